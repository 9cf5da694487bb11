"""EVE: a trained model with its tokenizer, chat template and image rule, ready to answer."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from eve_jax.convert.source import open_checkpoint
from eve_jax.data.chat import prompt_ids
from eve_jax.data.images import PATCH, ImageRule, open_image, patchify
from eve_jax.data.records import Turn
from eve_jax.data.tokenizer import Tokenizer, load_tokenizer
from eve_jax.errors import UserError
from eve_jax.infer.engine import Engine, Prompt

STOP_TOKENS = ("<|im_end|>", "<|endoftext|>")


class EVE:
    """Answers questions about pictures.

    `rule` says how pictures are sized; the default of `from_pretrained` is the original's inference rule, which
    always rescales to the full area.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer, template: str, rule: ImageRule):
        self.engine, self.tokenizer, self.template, self.rule = engine, tokenizer, template, rule
        self.stop_ids = [i for i in map(tokenizer.find, STOP_TOKENS) if i is not None]

    @classmethod
    def from_pretrained(cls, folder: str | Path, fit: str = "fill") -> "EVE":
        """From a stage's folder, an imported or a Hugging Face folder.

        `fit` is shrink (the training rule) or fill (the inference rule). Raises UserError when the folder holds none.
        """
        checkpoint = open_checkpoint(folder)
        data = checkpoint.data
        rule = ImageRule(data["image_mode"], fit, data["max_size"], data["max_aspect"])
        template = "qwen2" if data["template"] == "plain" else data["template"]
        cfg = replace(checkpoint.cfg, remat="none")
        return cls(Engine(cfg, checkpoint.params()), load_tokenizer(folder), template, rule)

    def prompt(self, question: str, images: Sequence[str | Path | Image.Image] = ()) -> Prompt:
        """Prompt of one human turn; `<image>` in the question says where a picture goes, else they go first."""
        ids = prompt_ids([Turn("human", question)], self.tokenizer, self.template, len(images))
        arrays = [self._pixels(image) for image in images]
        grids = [(a.shape[0] // PATCH, a.shape[1] // PATCH) for a in arrays]
        return Prompt(ids, [patchify(a) for a in arrays], grids)

    def _pixels(self, image: str | Path | Image.Image) -> np.ndarray:
        picture = image if isinstance(image, Image.Image) else open_image(str(image))
        size = self.rule.resized(*picture.size)
        return np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC))

    def generate(
        self, question: str, images: Sequence[str | Path | Image.Image] = (), max_new_tokens: int = 256
    ) -> list[int]:
        """Greedy answer as token ids, the stop token left out."""
        return self.engine.generate([self.prompt(question, images)], max_new_tokens, self.stop_ids)[0]

    def stream(
        self, question: str, images: Sequence[str | Path | Image.Image] = (), max_new_tokens: int = 256
    ) -> Iterator[int]:
        """Like `generate`, token by token."""
        return self.engine.stream(self.prompt(question, images), max_new_tokens, self.stop_ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return self.tokenizer.decode(list(ids)).strip()


def check_images(images: Sequence[str]) -> None:
    """UserError naming the first path that is no file."""
    for path in images:
        if not Path(path).is_file():
            raise UserError(f"--image={path}: no such file")
