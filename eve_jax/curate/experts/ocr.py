"""OCR: lines of text by rapidocr, which runs PP-OCR's detector, orientation and recognizer in ONNX Runtime.

The weights lie in rapidocr's wheel (Apache-2.0), or in a folder of the user's. Nothing is downloaded.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from eve_jax.curate.experts.config import OcrConfig
from eve_jax.curate.experts.form import DIGITS, Finding, relative_box
from eve_jax.errors import UserError, install

MARGIN = 40  # pixels of a border in the colors of the edge: text that ends there is read wrong without
STEPS = {"Det": "det", "Cls": "cls", "Rec": "rec"}  # rapidocr's names, and their part in the names of files


def make_ocr(config: OcrConfig) -> Callable[[UInt8[np.ndarray, "H W 3"]], list[Finding]]:
    """Return the reader: an upright RGB image -> its lines of text in reading order.

    Raises UserError without the package, or without the files in `config.folder`.
    """
    try:
        import rapidocr
    except ImportError as error:
        raise UserError(
            f"experts.run names ocr, which needs rapidocr ({error}): {install('experts')}, or name an "
            "endpoint in experts.ocr.url"
        ) from error
    folder = Path(config.folder) if config.folder else Path(rapidocr.__file__).parent / "models"
    threads = config.threads or -1  # ONNX Runtime's word for all cores
    reader = rapidocr.RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.text_score": config.score,
            "Det.limit_type": "min",
            "Det.limit_side_len": config.short_side,
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": threads,
            # Named, since rapidocr downloads what it does not find by itself.
            **{f"{step}.model_path": str(_file(folder, part)) for step, part in STEPS.items()},
        }
    )

    def read(image: UInt8[np.ndarray, "H W 3"]) -> list[Finding]:
        wider = np.pad(image, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="edge")
        found: Any = reader(np.ascontiguousarray(wider[..., ::-1]))  # it takes arrays as BGR
        if found.txts is None:
            return []
        high, wide = image.shape[:2]
        return [
            {
                "text": text,
                "score": round(float(score), DIGITS),
                "box": relative_box([*(corners.min(0) - MARGIN), *(corners.max(0) - MARGIN)], wide, high),
            }
            for text, score, corners in zip(found.txts, found.scores, found.boxes, strict=True)
            if text.strip() and score >= config.score
        ]

    return read


def _file(folder: Path, part: str) -> Path:
    """Return the network of one step in `folder`."""
    found = sorted(folder.glob(f"*_{part}_*.onnx"))
    if len(found) != 1:
        which = ", ".join(file.name for file in found) or "none"
        raise UserError(f"experts.ocr.folder={folder}: expected one file *_{part}_*.onnx there, found {which}")
    return found[0]
