"""The figures of the papers, for 7B models, greedy and zero-shot, as far as they are known here."""

from dataclasses import dataclass

EVE_V2_TABLE = "EVEv2 paper, Table 2"
EVE_V1_TABLE = "EVEv1 paper, Table 3"
NOT_STATED = "the tool and the protocol of the papers' figure are unknown"


@dataclass(frozen=True)
class Figures:
    """What the papers report of a benchmark; None where they report nothing.

    Attributes:
        v1: EVEv1 (HD).
        v2: EVEv2.0.
        remark: how the figures differ from ours, or what is not known about them.
        source: paper and table.
    """

    v1: float | None
    v2: float | None
    remark: str = "EVE has scripts for it: protocol eve"
    source: str = EVE_V2_TABLE


NONE = Figures(None, None, "no figure of the papers is known here", "")
FIGURES = {
    "mmmu": Figures(32.6, 39.3, NOT_STATED),
    "mmbench_en": Figures(52.3, 66.3, "EVE's scripts write a table for MMBench's server; ours is scored here"),
    "seed": Figures(64.6, 71.4),
    "mmvet": Figures(25.7, 45.0, "MM-Vet's evaluator asks gpt-4-0613; another judge grades otherwise"),
    "mme": Figures(1628, 1709, "which sum the papers report is not stated; ours is perception + cognition"),
    "pope": Figures(85.0, 87.6, "whether the papers report F1 or accuracy is not stated; ours is F1"),
    "gqa": Figures(62.6, 62.9),
    "scienceqa": Figures(64.9, 96.2),
    "textvqa": Figures(56.8, 71.1, "EVE's scripts show OCR tokens in the prompt: protocols eve and lmms_ocr"),
    "chartqa": Figures(59.1, 73.9, NOT_STATED),
    "ai2d": Figures(61.0, 74.8, NOT_STATED),
    "realworldqa": Figures(None, 62.4, NOT_STATED),
    "ocrbench": Figures(398, 702, NOT_STATED),
    "vqav2": Figures(78.6, None, "the paper's figure is by the server, of a set without public answers", EVE_V1_TABLE),
    "vizwiz": Figures(51.1, None, "the paper's figure is by the server, of a set without public answers", EVE_V1_TABLE),
}


def figures_of(benchmark: str) -> Figures:
    """Return the papers' figures of a benchmark."""
    return FIGURES.get(benchmark, NONE)
