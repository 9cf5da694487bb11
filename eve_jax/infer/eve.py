"""EVE: a trained model with its tokenizer, chat template and image rule, ready to answer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack

import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import track

from eve_jax.convert.convert import HF_CONFIG, carried_config
from eve_jax.convert.hf_config import is_plain
from eve_jax.convert.source import Checkpoint, open_checkpoint
from eve_jax.data.chat import TEMPLATES, get_template, prompt_ids, stop_ids
from eve_jax.data.images import ImageRule, patchify, resize
from eve_jax.data.records import open_records
from eve_jax.data.tokenizer import Tokenizer, load_tokenizer
from eve_jax.errors import UserError
from eve_jax.infer.chat import Chat
from eve_jax.infer.engine import Engine, Prompt
from eve_jax.infer.sampling import Sampling
from eve_jax.infer.text import Answer, Messages, Picture, text_pieces, to_pictures, to_turns
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params
from eve_jax.train.checkpoint import read_config

if TYPE_CHECKING:
    from eve_jax.infer.score import Scores


class Settings(TypedDict, total=False):
    """How to answer: `max_new_tokens` (256), `temperature` (0: greedy), `top_p` (1), `seed` (0); see `Sampling`."""

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int


class _Run(NamedTuple):
    max_new_tokens: int
    sampling: Sampling


class EVE:
    """Answers questions about pictures; made by `EVE.from_pretrained`.

    template: a dialogue template of `eve_jax.data.chat`. rule: how pictures are sized. sees: False for a model that
    takes no pictures. positions: longest sequence of the model in tokens, 0 = not known. data: the settings that the
    model was trained with (`config.data`); images go to the front of their turn where `image_first` there says so.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        template: str,
        rule: ImageRule,
        sees: bool = True,
        positions: int = 0,
        data: dict[str, Any] | None = None,
    ):
        self.engine, self.tokenizer, self.template, self.rule = engine, tokenizer, template, rule
        self.sees, self.positions, self.data = sees, positions, data or {}
        self.image_first = bool(self.data.get("image_first", False))
        self.stop_ids = stop_ids(tokenizer, template)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        fit: str = "fill",
        max_size: int = 0,
        max_aspect: float | None = None,
        image_first: bool | None = None,
        template: str = "",
    ) -> "EVE":
        """From a stage's folder, an imported or a Hugging Face folder.

        `fit` is fill (the original's inference rule, which always rescales to the full area) or shrink (the training
        rule); `max_size` is the side of the largest image area in pixels, 0 = the checkpoint's own; `max_aspect`,
        `image_first` and `template` are as in `config.data`, None or "" = the checkpoint's own. Raises UserError when
        the folder holds no model.
        """
        checkpoint = open_checkpoint(folder)
        changes = {"max_aspect": max_aspect, "image_first": image_first, "template": template or None}
        data = checkpoint.data | {name: value for name, value in changes.items() if value is not None}
        tokenizer = load_tokenizer(folder)
        rule = ImageRule.of(data, fit, max_size or None)
        template = dialogue_template(data["template"], tokenizer)
        engine = Engine(*_ready(checkpoint))
        positions = int(carried_config(Path(folder)).get("max_position_embeddings") or 0)
        return cls(engine, tokenizer, template, rule, sees_pictures(Path(folder)), positions, data)

    def generate(
        self, messages: Messages, images: Picture | Sequence[Picture] = (), **settings: Unpack[Settings]
    ) -> str:
        """The answer to a question, or to a conversation that ends with the user's turn.

        messages: the question, or a list of {"role": "user" | "assistant" | "system", "content": text}. images: paths
        or PIL images in the order of the `<image>` markers in the texts; without markers they go before the first
        user's text. settings: max_new_tokens=256, temperature=0.0 (greedy), top_p=1.0, seed=0. Raises UserError for
        messages, pictures or settings that are none, and when the prompt is too long for the model.
        """
        return self.answer(messages, images, **settings).text

    def generate_batch(
        self,
        conversations: Sequence[Messages],
        images: Sequence[Picture | Sequence[Picture]] | None = None,
        rows: int = 16,
        progress: str = "",
        **settings: Unpack[Settings],
    ) -> list[str]:
        """`generate` for each of `conversations` with its own `images`, `rows` at a time; each is answered as if alone.

        Prompts of like size share a batch. `progress` is the label of a progress bar on stderr.
        """
        images = [()] * len(conversations) if images is None else images
        if len(images) != len(conversations):
            raise UserError(f"{len(images)} lists of images for {len(conversations)} conversations")
        prompts = [self.prompt(m, i) for m, i in zip(conversations, images, strict=True)]
        runs = [self.settings(len(p), **settings) for p in prompts]
        order = sorted(range(len(prompts)), key=lambda i: (prompts[i].need, i))
        answers = [""] * len(prompts)
        starts = range(0, len(order), rows)
        for start in track(starts, progress, console=Console(stderr=True), disable=not progress):
            chosen = order[start : start + rows]
            padded = chosen + [chosen[-1]] * (rows - len(chosen) if len(order) > rows else 0)
            longest = max(runs[i].max_new_tokens for i in chosen)
            batch = [prompts[i] for i in padded]
            replies = self.engine.generate(batch, longest, self.stop_ids, runs[chosen[0]].sampling)
            for i, ids in zip(chosen, replies, strict=False):
                answers[i] = self.decode(ids[: runs[i].max_new_tokens])
        return answers

    def answer(
        self, messages: Messages, images: Picture | Sequence[Picture] = (), **settings: Unpack[Settings]
    ) -> Answer:
        """`generate` with the tokens of the answer."""
        prompt = self.prompt(messages, images)
        run = self.settings(len(prompt), **settings)
        (ids,) = self.engine.generate([prompt], run.max_new_tokens, self.stop_ids, run.sampling)
        return Answer(self.decode(ids), ids)

    def stream(
        self, messages: Messages, images: Picture | Sequence[Picture] = (), **settings: Unpack[Settings]
    ) -> Iterator[str]:
        """The text of `generate` in pieces as they are made, of whole characters."""
        prompt = self.prompt(messages, images)
        run = self.settings(len(prompt), **settings)
        tokens = self.engine.stream(prompt, run.max_new_tokens, self.stop_ids, run.sampling)
        return text_pieces(tokens, self.decode)

    def chat(self, system: str = "") -> Chat:
        """A conversation of several turns that keeps its cache; `system` replaces the template's system sentence."""
        return Chat(self, system)

    def score(self, records: str | Path, images: str | Path = "", **changes: Any) -> "Scores":
        """Loss of every record of a LLaVA file under the model, image paths relative to the folder `images`.

        The settings are those of the training; `changes` as in `eve_jax.infer.score.Settings.of`.
        """
        from eve_jax.infer import score

        settings = score.Settings.of(self.data, **changes)
        opened = open_records(str(records), images)
        cfg = replace(self.engine.cfg, dtype="float32")  # in bfloat16 a loss moves with the packing, by up to 5e-3
        return score.score_records(cfg, self.engine.params, self.tokenizer, opened, settings)

    def prompt(self, messages: Messages, images: Picture | Sequence[Picture] = ()) -> Prompt:
        """The prompt of `generate`. Raises UserError as it does."""
        turns = to_turns(messages)
        return self.with_images(
            turns[-1].text,
            images,
            lambda n: prompt_ids(turns, self.tokenizer, self.template, n, self.image_first),
        )

    def with_images(
        self, question: str, images: Picture | Sequence[Picture], ids_for: Callable[[int], np.ndarray]
    ) -> Prompt:
        """The prompt of `question` with `images`, where `ids_for(number of images)` gives its ids."""
        pictures = to_pictures(images)
        if not pictures and not question.strip():
            raise UserError("the question is empty")
        if pictures and not self.sees:
            raise UserError("this is a language model that was never trained to see: ask it without pictures")
        ids = ids_for(len(pictures))
        if ids.max() >= self.engine.cfg.vocab_size:
            raise UserError(
                f"{self.tokenizer.folder}: its tokenizer makes token {ids.max()}, the model knows "
                f"{self.engine.cfg.vocab_size}: it belongs to another model"
            )
        arrays = [resize(picture, self.rule) for picture in pictures]
        side = self.rule.patch
        grids = [(a.shape[0] // side, a.shape[1] // side) for a in arrays]
        return Prompt(ids, [patchify(a, side) for a in arrays], grids)

    def settings(
        self, tokens: int, max_new_tokens: int = 256, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0
    ) -> _Run:
        """Settings for an answer to a prompt of `tokens` tokens: no longer than the model has positions for.

        Raises UserError when it has none left, or for settings that make no sense.
        """
        if max_new_tokens < 1:
            raise UserError(f"max_new_tokens={max_new_tokens}: expected 1 or more")
        if self.positions and tokens >= self.positions:
            raise UserError(
                f"{tokens} tokens, image tokens included, leave no room for an answer: the model has {self.positions} "
                "positions; ask with fewer or smaller pictures (max_size), or start a new conversation"
            )
        longest = min(max_new_tokens, self.positions - tokens) if self.positions else max_new_tokens
        return _Run(longest, Sampling(temperature, top_p, seed))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return self.tokenizer.decode(list(ids)).strip()


def _ready(checkpoint: Checkpoint) -> tuple[ModelConfig, Params]:
    """Sizes and parameters as the engine wants them.

    Weights are cast to the computation's dtype, which each would be anyway before it is used.
    """
    cfg, params = checkpoint.for_inference()
    for name in list(params):  # one at a time, so that both copies exist of one weight only
        params[name] = jnp.asarray(params[name], cfg.dtype)
    return replace(cfg, remat="none"), params


def dialogue_template(name: str, tokenizer: Tokenizer) -> str:
    """The template to ask with: `name`, or when that is for captions, the dialogue whose end `tokenizer` knows."""
    if not get_template(name).caption:
        return name
    dialogues = (n for n, t in TEMPLATES.items() if not t.caption and tokenizer.find(t.end) is not None)
    return next(dialogues, "qwen2")


def sees_pictures(folder: Path) -> bool:
    """False for an LLM whose patch embedding was never trained: a plain one, its import, or a stage of text alone."""
    config = read_config(folder)
    if "model" in config and not (folder / HF_CONFIG).is_file():
        return config.get("stage") != "llm"
    return not is_plain(carried_config(folder))
