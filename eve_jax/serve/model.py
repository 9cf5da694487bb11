"""The model that is served: its names and facts, prompts from conversations, and how much room they leave."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from eve_jax.batch import Layout
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.text.encode import encode_chat
from eve_jax.data.text.templates import end_id
from eve_jax.errors import UserError
from eve_jax.infer.api import EVE
from eve_jax.infer.image_cache import Patches
from eve_jax.infer.prompt import Prompt
from eve_jax.serve.fields import Answering, ImageSizes
from eve_jax.serve.images import FORMATS
from eve_jax.serve.messages import Conversation, read_messages
from eve_jax.serve.problem import Problem
from eve_jax.serve.settings import ServeSettings

LONGEST_PROMPT = "input_tokens"  # what errors about a prompt's length are about, as vLLM has it


class Served:
    """`eve` under the names of `settings`; `context`: the most tokens of a prompt with its answer, images included."""

    def __init__(self, eve: EVE, settings: ServeSettings, context: int):
        self.eve, self.settings = eve, settings
        self.context = min(context, eve.positions or context)
        self.created, tokenizer = int(time.time()), eve.tokenizer
        texts = (tokenizer.decode([token], skip_special=False) for token in range(tokenizer.vocab_size))
        self.longest_token = max(1, *map(len, texts))  # in characters

    @property
    def layout(self) -> Layout:
        """What images are to the model."""
        return self.eve.engine.cfg.layout

    @property
    def name(self) -> str:
        """The name that answers have."""
        return self.settings.names[0]

    def short_of(self) -> int:
        """Return the tokens of the shortest chat where the context has no room for it and an answer, else 0."""
        least = len(self.chat(read_messages([{"role": "user", "content": "a"}]), ()))
        return least if least >= self.context else 0

    def check(self, name: str | None) -> None:
        """Raise Problem for a model of another name."""
        if name and name not in self.settings.names:
            raise Problem(f"the model {name!r} does not exist; GET /v1/models lists those that do", "model", 404)

    def rule(self, body: ImageSizes) -> ImageRule:
        """The image rule of a request. Raises Problem for a size that cannot be."""
        own = self.eve.rule.images
        if body.max_size is not None and body.max_size < own.patch:
            raise Problem(f"max_size: expected at least {own.patch}, the pixels of a patch's side", "max_size")
        try:
            return replace(own, fit=body.fit or own.fit, max_size=body.max_size or own.max_size)
        except UserError as error:
            raise Problem(str(error).removeprefix("data."), "max_size") from None

    def chat(self, conversation: Conversation, images: Sequence[Patches]) -> Prompt:
        """The prompt of a conversation with its images. Raises UserError."""
        eve, turns, count = self.eve, conversation.turns, len(images)
        self.check_length(sum(len(turn.text) for turn in turns))
        if conversation.begun:
            rule = eve.rule
            whole = encode_chat(turns, rule.tokenizer, rule.template, count, rule.image_first, rule.special_text)
            ids = whole.ids[:-1] if whole.ids[-1] == end_id(rule.tokenizer, rule.template) else whole.ids
        else:
            ids = eve.rule.prompt_ids(turns, count)
        return Prompt(ids, [image.pixels for image in images], [image.grid for image in images], self.layout)

    def text(self, prompt: str | Sequence[int], special: bool = True) -> Prompt:
        """A text, or token ids, as they are; `special`: after the tokenizer's bos token. Raises Problem."""
        if isinstance(prompt, str):
            self.check_length(len(prompt))
            bos = self.eve.tokenizer.bos if special else None
            ids = [*([] if bos is None else [bos]), *self.eve.rule.text_ids(prompt)]
        else:
            ids, size = list(prompt), self.eve.engine.cfg.vocab_size
            if len(ids) > self.context:
                raise self.too_long(len(ids))
            if any(not 0 <= token < size for token in ids):
                raise Problem(f"prompt: token ids are 0 to {size - 1}", "prompt")
        return Prompt(np.array(ids, np.int32), layout=self.layout)

    def check_length(self, characters: int) -> None:
        """Raise Problem for a text of so many characters that it is too long whatever its tokens are."""
        least = -(-characters // self.longest_token)
        if least > self.context:
            raise self.too_long(least, "at least ")

    def too_long(self, tokens: int, more: str = "") -> Problem:
        """The error of a prompt that leaves no room for an answer."""
        return Problem(
            f"the prompt has {more}{tokens:,} tokens, image tokens included, of {self.context:,} with its answer: "
            "ask with less text, fewer images or a smaller max_size",
            LONGEST_PROMPT,
        )

    def image_room(self) -> Callable[[int, int], None]:
        """A function that is told the grids of a request's images, in any thread, before they are resized: it raises
        Problem once they have more tokens than the context, which may be gigabytes of pixels."""
        taken, lock = 0, threading.Lock()

        def take(rows: int, columns: int) -> None:
            nonlocal taken
            with lock:
                taken += self.layout.tokens_of(rows, columns)
                if taken > self.context:
                    raise self.too_long(taken, "at least ")

        return take

    def room(self, prompt: Prompt, asked: int | None) -> int:
        """Tokens that the answer may have. Raises Problem where the prompt or the asked number leave none."""
        tokens = len(prompt)
        left = self.context - tokens
        if left < 1:
            raise self.too_long(tokens)
        if asked is not None and asked > left:
            raise Problem(
                f"max_tokens={asked:,} is too large: the prompt has {tokens:,} of {self.context:,} tokens, so at most "
                f"{left:,} are left",
                "max_tokens",
            )
        return asked or min(self.settings.max_tokens, left)

    def temperature(self, body: Answering) -> float:
        """The temperature of a request."""
        return self.settings.temperature if body.temperature is None else body.temperature

    def facts(self, name: str) -> dict[str, Any]:
        """What GET /v1/models says."""
        return {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": "eve_jax",
            "max_model_len": self.context,
            "default_max_tokens": min(self.settings.max_tokens, self.context),
            "default_temperature": self.settings.temperature,
            "images": self._image_facts() if self.eve.sees else None,
        }

    def _image_facts(self) -> dict[str, Any]:
        rule, settings = self.eve.rule.images, self.settings
        return {
            "mode": rule.mode,
            "fit": rule.fit,
            "max_size": rule.size,
            "max_aspect": rule.max_aspect,
            "patch": rule.patch,
            "max_images": settings.max_images,
            "max_pixels": settings.max_pixels,
            "formats": [name.lower() for name in FORMATS],
            "urls": bool(settings.media_domains),
        }


def grid_facts(rule: ImageRule, layout: Layout, width: int, height: int) -> dict[str, Any]:
    """The grid that an image of `width` x `height` pixels gets, and its tokens: of EVE the patches of each row with a
    split token, after a class token."""
    rows, columns = rule.grid(width, height)
    return {
        "object": "image.grid",
        "rows": rows,
        "columns": columns,
        "width": columns * rule.patch,
        "height": rows * rule.patch,
        "patch": rule.patch,
        "tokens": layout.tokens_of(rows, columns),
        "max_size": rule.size,
        "fit": rule.fit,
    }
