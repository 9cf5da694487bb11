"""One output, several verdicts: what each benchmark and protocol makes of the same text."""

from typing import Any

import pytest

from eve_jax.eval import registry
from tests.eval.goldens import NAMES, golden

OPTIONS = ["a red kettle", "a steel bolt", "a straw mat", "a paper fan"]
CAPITAL = [option.capitalize() for option in OPTIONS]
QBENCH = {"question": "How?", "question_type": 0, "question_concern": 0}
PROBLEM = {"question": "Which?", "choices": OPTIONS, "answer": 0, "hint": ""}
CHOICES = dict(zip(("choice_a", "choice_b", "choice_c", "choice_d"), OPTIONS, strict=True))
SEED = {"question": "What?", **CHOICES, "answer": "A", "data_type": "image", "question_id": "1", "question_type_id": 1}
ROWS: dict[tuple[str, str], dict[str, Any]] = {
    ("scienceqa", "lmms"): PROBLEM,
    ("scienceqa", "eve"): {"id": "1", "conversations": [{"value": "Which?"}], "problem": PROBLEM},
    ("seed", "lmms"): SEED,
    ("seed", "eve"): {"question_id": 1, "text": "What?", "annotation": SEED},
    ("ai2d", "lmms"): {"question": "What?", "options": OPTIONS, "answer": "0"},
    ("realworldqa", "lmms"): {"question": "What?", "image_path": "0.webp", "answer": "A"},
    ("qbench", "lmms"): {"id": "q", **QBENCH, **{f"option{n}": CAPITAL[n] for n in range(4)}, "correct_choice": "A"},
    ("qbench", "eve"): {"img_path": "q", **QBENCH, "candidates": CAPITAL, "correct_ans": CAPITAL[0]},
    ("mmmu", "lmms"): {
        "id": "validation_Art_1",
        "question": "What?",
        "options": str(OPTIONS),
        "question_type": "multiple-choice",
        "answer": "A",
    },
}
# Output -> verdicts in the order of ROWS: 1 right, 0 wrong, ? not parsed, so wrong.
TABLE = {
    "A": "11 11 1 1 11 1",
    "a": "10 10 1 0 ?0 ?",
    "A.": "10 10 1 1 11 1",
    "A. a red kettle": "11 10 1 1 11 1",
    "(A)": "00 00 1 1 10 1",
    "The answer is A.": "01 00 0 1 10 1",
    "A)": "00 10 1 1 ?1 ?",
    "A: a red kettle": "00 10 0 1 ?1 ?",
    "**A**": "00 00 1 1 ?0 ?",
    "a red kettle": "00 10 0 0 ?0 ?",
    "A\nThe picture shows a B next to it": "00 10 0 1 01 0",
    "": "00 00 0 0 ?0 ?",
}


@pytest.mark.parametrize("output", TABLE)
def test_same_output_two_verdicts(output: str) -> None:
    expected = TABLE[output].replace(" ", "")
    for (name, row), wanted in zip(ROWS.items(), expected, strict=True):
        verdict = registry.get(*name).score(row, output)
        assert verdict.score == float(wanted == "1"), name
        if wanted == "?":
            assert not verdict.parsed, name


EVERYWHERE = [(name, protocol) for name in registry.MODULES for protocol in registry.protocols(name)]


def test_every_benchmark_has_both_protocols() -> None:
    assert len(registry.MODULES) == 21 and len(EVERYWHERE) == 45
    assert all({"eve", "lmms"} <= set(registry.protocols(name)) for name in registry.MODULES if "mmbench" not in name)
    assert registry.get("MMBench", "lmms").name == "mmbench_en.lmms_static"
    assert registry.get("pope-popular", "eve").name == "pope_pop.eve"


@pytest.mark.parametrize(
    "output", [None, "", " \n ", "<think>", "</think>", "\ud800", "9" * 5000, "1e999", "A " * 50_000]
)
def test_odd_outputs_are_wrong_and_do_no_harm(output: str | None) -> None:
    for name, row in ROWS.items():
        verdict = registry.get(*name).score(row, output)
        assert (output is not None and "A" in output) or verdict.score == 0
        assert (output and output.strip()) or not verdict.parsed


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_parsed_is_wrong(name: str) -> None:
    data = golden(name)
    files = {key: data[key] for key in ("annotation_file",) if key in data}
    task = registry.get(data["benchmark"], data["protocol"]).with_files(files)
    for row in data["rows"]:
        for output in ("", "(", "?!", "\U0001f600", *data["outputs"][:5]):
            verdict = task.score(row, output)
            assert verdict.parsed or verdict.score == 0


def test_reasoning_is_removed_for_lmms_alone() -> None:
    scored = [registry.get(*name).score(row, "<think>B or C</think>A").score for name, row in ROWS.items()]
    assert scored == [1, 0, 1, 0, 1, 1, 1, 0, 1]
    assert registry.get("seed", "lmms").score(SEED, "so B</think> A").score == 1
    assert registry.get("seed", "lmms").score(SEED, "<THINK>B</THINK>A").score == 0


@pytest.mark.parametrize(
    ("gold", "output", "right"),
    [
        ("14%", "14", False),
        ("14%", "0.14", True),
        ("0", "0.0", False),
        ("2010", "2011", True),
        ("1,234", "1234", False),
        ("5000000", "5 million", False),
        ("5", "$5", False),
        ("14", "\uff11\uff14", True),
        ("nan", "nan", False),
        ("Yes", "yes", True),
    ],
)
def test_chartqa_tolerates_what_the_reference_does(gold: str, output: str, right: bool) -> None:
    row = {"type": "human_test", "question": "?", "answer": gold}
    assert registry.get("chartqa", "lmms").score(row, output).score == float(right)


def test_mmmu_of_ours_reads_a_list_of_golds() -> None:
    row = {
        "id": "validation_Art_1",
        "question": "?",
        "options": "[]",
        "question_type": "open",
        "answer": "['6', 'six']",
    }
    assert registry.get("mmmu", "lmms").score(row, "six").score == 0
    assert registry.get("mmmu", "eve").score(row, "six").score == 1
    assert registry.get("mmmu", "eve").score(row | {"answer": "[0, 2)"}, "[0, 2)").score == 1


def test_mmmu_interleaves() -> None:
    options = "['<image 2>', '<image 1>']"
    row = {"id": "validation_Art_1", "question": "See <image 1>?", "options": options, "answer": "A"}
    row["question_type"] = "multiple-choice"
    parts = registry.get("mmmu", "lmms").content(row)
    assert parts[:4] == ["See", 0, "?\nA.", 1] and isinstance(parts[1], int)
    assert str(parts[-1]).endswith("given choices directly.")
    assert registry.get("mmmu", "eve").prompt(row).count("<image>") == 2


def test_annotators_agree_by_thirds() -> None:
    row = {"question_id": 1, "question": "what?", "text": "What?", "image": "a.jpg"}
    for agreeing, expected in ((10, 1.0), (4, 1.0), (3, 0.9), (2, 0.6), (1, 0.3), (0, 0.0)):
        answers = ["Two dogs."] * agreeing + [f"{n} cats" for n in range(10 - agreeing)]
        verdict = registry.get("vizwiz", "eve").score(row | {"answers": answers}, "the 2 dogs")
        assert verdict.score == pytest.approx(expected, abs=1e-12)
