"""The section `experts` of a config: which experts look at the images, and what of their findings is kept."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from eve_jax.curate.experts.form import EXPERTS
from eve_jax.errors import Field, FieldError
from eve_jax.process.checks import is_address, unexpected
from eve_jax.process.section import Section, setting


def _address(expert: str) -> Callable[[str], None]:
    """Return the check of the field `url` of an expert."""

    def check(text: str) -> None:
        if text and not is_address(text):
            raise unexpected(Field(f"experts.{expert}.url"), text, "http://HOST:PORT/PATH, https://HOST/PATH or ''")

    return check


def expert_names(text: str) -> list[str]:
    """Return the experts that `experts.run` names. Raise FieldError for unknown ones, and for one named twice."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if any(name not in EXPERTS for name in names) or len({*names}) < len(names):
        raise unexpected(Field("experts.run"), text, f"some of {', '.join(EXPERTS)}, each once, or ''")
    return names


@dataclass(frozen=True)
class OcrConfig(Section):
    """The section `experts.ocr`: lines of text, by rapidocr (extra `experts`) or an endpoint.

    Attributes:
        url: the endpoint's address; "": rapidocr in this process.
        folder: with the files *_det_*.onnx, *_rec_*.onnx and *_cls_*.onnx of PP-OCR; "": those in rapidocr's wheel.
        score: the least certainty of a line that is kept.
        short_side: pixels to which the shorter side of an image with its border is enlarged, before text is looked for.
        threads: CPU threads of an image; 0: all cores.
    """

    PATH: ClassVar[str] = "experts.ocr."

    url: str = setting("", reads=_address("ocr"))
    folder: str = ""
    score: float = setting(0.9, low=0, high=1)
    short_side: int = setting(736, low=32, high=4096)
    threads: int = setting(1, low=0, high=1024)


@dataclass(frozen=True)
class BoxesConfig(Section):
    """The section `experts.boxes`: objects of COCO's 80 classes, by a CenterNet or an endpoint.

    Attributes:
        url: the endpoint's address; "": the network in `folder`.
        folder: the npm package @vladmandic/human, or the folder in it that holds centernet.json and centernet.bin.
        score: the least certainty of an object that is kept.
        overlap: intersection over union from which on, of two boxes of a class, only the more certain one is kept.
        most: the most objects of an image, of the most certain.
    """

    PATH: ClassVar[str] = "experts.boxes."

    url: str = setting("", reads=_address("boxes"))
    folder: str = ""
    score: float = setting(0.4, low=0, high=1)
    overlap: float = setting(0.5, low=0, high=1)
    most: int = setting(100, low=1, high=100)


@dataclass(frozen=True)
class TagsConfig(Section):
    """The section `experts.tags`: classes of ImageNet, by an EfficientNet-Lite0 or an endpoint.

    Attributes:
        url: the endpoint's address; "": the network in this process.
        folder: with efficientnet-lite0*.pth and names.json (the 1,000 classes); "": those of the extra `experts`.
        score: the least probability of a class that is kept.
        most: the most classes of an image.
    """

    PATH: ClassVar[str] = "experts.tags."

    url: str = setting("", reads=_address("tags"))
    folder: str = ""
    score: float = setting(0.3, low=0, high=1)
    most: int = setting(5, low=1, high=1000)


@dataclass(frozen=True)
class ExpertsConfig(Section):
    """The section `experts` of a config.

    Attributes:
        run: the experts that look at each image, separated by commas, in any order; "" for none.
        timeout: seconds of one request to an endpoint.
        patience: seconds that an endpoint may be away, busy or failing before the run stops.
        ocr, boxes, tags: of each expert.
    """

    PATH: ClassVar[str] = "experts."

    run: str = setting("", reads=expert_names)
    timeout: float = setting(60.0, low=0, between=True)
    patience: float = setting(600.0, low=0)
    ocr: OcrConfig = OcrConfig()
    boxes: BoxesConfig = BoxesConfig()
    tags: TagsConfig = TagsConfig()

    def check(self) -> None:
        """Raise FieldError for a detector that has neither a folder nor an address."""
        if "boxes" in self.names and not self.boxes.folder and not self.boxes.url:
            raise FieldError(
                Field("experts.boxes.folder"),
                "='': the detector needs the folder of its weights: npm install @vladmandic/human, then name ",
                "node_modules/@vladmandic/human; or an address in ",
                Field("experts.boxes.url"),
            )

    @property
    def names(self) -> list[str]:
        """Return the experts that `run` names."""
        return expert_names(self.run)
