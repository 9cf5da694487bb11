"""EVE: a trained model with its tokenizer, chat template and image rule, ready to answer."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from eve_jax.checkpoint.named_step import find_checkpoint
from eve_jax.checkpoint.own_tokenizer import own_tokenizer
from eve_jax.checkpoint.stage_folder import read_config
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.record import Turn
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import open_records
from eve_jax.data.text.own_template import named_template
from eve_jax.data.text.templates import check_template, fitting_templates, get_template, stop_ids
from eve_jax.data.text.tokenizer import Tokenizer
from eve_jax.errors import Argument, Field, FieldError, UserError, name_arguments
from eve_jax.hf.config import is_plain
from eve_jax.hf.vision_tokenizer import with_coder
from eve_jax.infer.batches import Ask, answer_all
from eve_jax.infer.chat import Chat
from eve_jax.infer.engine import Engine
from eve_jax.infer.image_cache import Patches
from eve_jax.infer.messages import Answer, Images, Messages, answer_of, match_images, text_of, text_pieces, to_turns
from eve_jax.infer.parameters import loaded
from eve_jax.infer.prompt import Prompt
from eve_jax.infer.settings import AnswerSettings, CheckedSettings, Stored, check_settings
from eve_jax.model.config import DTYPES
from eve_jax.process.checks import known_names, of_type, unexpected, whole
from eve_jax.process.paths import REMOTE, expand, expand_list, fetch
from eve_jax.process.progress import ProgressBar
from eve_jax.process.setup import keep_programs_of_library
from eve_jax.sharding import make_mesh
from eve_jax.weights.base_config import HF_CONFIG, carried_config, max_positions
from eve_jax.weights.open import open_checkpoint
from eve_jax.weights.quantize import kept_weights

if TYPE_CHECKING:
    from eve_jax.infer.score import Scores


class EVE:
    """Answers questions about images; made by `EVE.from_pretrained`.

    rule: tokenizer, dialogue template and image rule. sees: False for a model that takes no images. positions: longest
    sequence of the model in tokens, 0 = not known. data: the settings that the model was trained with (`config.data`).
    """

    def __init__(
        self,
        engine: Engine,
        rule: SampleRule,
        sees: bool = True,
        positions: int = 0,
        data: dict[str, Any] | None = None,
    ):
        self.engine, self.rule, self.tokenizer = engine, rule, rule.tokenizer
        self.sees, self.positions, self.data = sees, positions, data or {}
        self.stop_ids = stop_ids(rule.tokenizer, rule.template)

    @classmethod
    @name_arguments("fit", "max_size", "max_aspect", "image_first", "template", "mesh", "weights")
    def from_pretrained(
        cls,
        folder: str | Path,
        fit: str = "fill",
        max_size: int = 0,
        max_aspect: float | None = None,
        image_first: bool | None = None,
        template: str = "",
        mesh: str = "",
        **how: Unpack[Stored],
    ) -> "EVE":
        """From a stage's folder (FOLDER@STEP), an imported or a Hugging Face folder, or the hub (ORG/NAME[@REVISION]).

        fit: fill (the original's inference rule: always rescaled to the full area) or shrink (the training rule).
        max_size: side of the largest image area in pixels, 0 = the checkpoint's own. max_aspect, image_first, template,
        special_text: as in `config.data` ("own": of the folder's chat template), None or "" = the checkpoint's. mesh:
        of all devices, as `config.mesh` (docs/infer.md#several-devices); "" = on one. dtype: of computation, "" = the
        checkpoint's; with float32 no answer depends on others in its batch. weights: int8 or int4 quantizes matrices
        (docs/infer.md#quantized-weights). cache: True or a folder keeps what is compiled (docs/infer.md#ask), False
        leaves JAX's settings alone. Raises UserError.
        """
        known_names(how, Stored.__annotations__, "argument")
        dtype, weights, special_text = how.get("dtype", ""), how.get("weights", ""), how.get("special_text")
        of_type("folder", folder, "the path of a folder", str, Path)
        of_type("template", template, "the name of a template", str)
        if dtype not in ("", *DTYPES):
            raise unexpected(Argument("dtype"), dtype, f"one of {', '.join(DTYPES)}, or none (the checkpoint's own)")
        of_type("mesh", mesh, "a mesh such as data:2,tensor:4, or none", str)
        for name, value in {"image_first": image_first, "special_text": special_text}.items():
            of_type(name, value, "True, False, or None (the checkpoint's own)", bool, NoneType)
        if max_size is not None:
            whole("max_size", max_size, "0 (the checkpoint's own) or a number of pixels", 0)
        keep_programs_of_library(how.get("cache", False))
        checkpoint = open_checkpoint(find_checkpoint(expand(folder, "folder", fetch)))
        folder, template = checkpoint.folder, named_template(template, checkpoint.folder)
        kept_weights(checkpoint, weights)
        changes: dict[str, Any] = {"max_aspect": max_aspect, "image_first": image_first, "special_text": special_text}
        data = checkpoint.data | {k: v for k, v in (changes | {"template": template or None}).items() if v is not None}
        tokenizer = own_tokenizer(folder)
        tokenizer.check_vocabulary(checkpoint.cfg.vocab_size, "the model's vocabulary")
        template = dialogue_template(checkpoint.data["template"], tokenizer, template)
        check_template(tokenizer, template)  # now, not when the weights have been read
        sizes = ImageRule.of(data | {"fit": fit}, max_size=max_size or None)
        first, special = (bool(data.get(name, False)) for name in ("image_first", "special_text"))
        layout, sizes = checkpoint.here.layout, with_coder(sizes, folder)
        rule = SampleRule(tokenizer, sizes, template, first, special_text=special, layout=layout)
        devices = make_mesh(mesh) if mesh else None
        engine = Engine(*loaded(checkpoint, devices, dtype, weights), devices)
        return cls(engine, rule, takes_images(folder), _positions(folder), data)

    def generate(self, messages: Messages, images: Images = (), **settings: Unpack[AnswerSettings]) -> str:
        """The answer to a question, or to a conversation that ends with the user's turn.

        messages: the question, or a list of {"role": "user" | "assistant" | "system", "content": text}. images: a path
        or PIL image, or a list of those in the order of the `<image>` markers in the user's texts; without markers they
        go before the first of these. `<image_1>` and the like are markers, too, in texts without `<image>`; there must
        be one for each image. None is no image, also in a list. Without images, and in other texts, markers are text;
        next to images a backslash before one makes it text. settings: max_new_tokens=256, and how tokens are chosen
        (`eve_jax.infer.sampling.Sampling`): temperature=0.0 (greedy), top_p=1.0, seed=0, top_k, min_p, penalties,
        logit_bias. `stop` is a text, or up to 4 of them, before the first of which the answer ends. Raises UserError
        naming the message, image or setting that cannot be used, for too long prompts, and where weights or activations
        that are not finite leave no answer.
        """
        return self.answer(messages, images, **settings).text

    def generate_batch(
        self,
        conversations: Sequence[Messages],
        images: Sequence[Images] | None = None,
        rows: int = 16,
        progress: str = "",
        **settings: Unpack[AnswerSettings],
    ) -> list[str]:
        """`generate` for each of `conversations` with its own `images`, `rows` at a time; each is answered as if alone.

        They share the slots of continuous batching, and an image with several questions is read once
        (`eve_jax.infer.batches`). progress: label of a bar on stderr. Raises `generate`'s errors with the conversation.
        """
        rows = whole("rows", rows, "a whole number of at least 1", 1)
        of_type("progress", progress, "a text", str)
        of_type("conversations", conversations, "a list of questions or of lists of messages", list, tuple)
        images = images if images is not None else [None] * len(conversations)
        of_type("images", images, "a list with the images of each conversation", list, tuple)
        if len(images) != len(conversations):
            raise UserError(f"{len(images)} lists of images for {len(conversations)} conversations")
        asks, stop = [], check_settings(**settings).stop
        for number, (messages, shown) in enumerate(zip(conversations, images, strict=True)):
            with _naming(number):
                prompt = self.prompt(messages, shown)
                run = self.settings(len(prompt), **settings)
            asks.append(Ask(str(number), prompt, run.max_new_tokens, run.sampling))
        answers = [""] * len(asks)
        with ProgressBar(progress, len(asks), unit="answers", off=not progress) as bar:
            for reply in answer_all(self.engine, asks, self.stop_ids, rows):
                if reply.error:
                    raise UserError(f"conversations[{reply.key}]: {reply.error}")
                answers[int(reply.key)] = self.decode(reply.ids, stop)
                bar.advance()
        return answers

    def answer(self, messages: Messages, images: Images = (), **settings: Unpack[AnswerSettings]) -> Answer:
        """`generate` with the tokens of the answer."""
        prompt = self.prompt(messages, images)
        run = self.settings(len(prompt), **settings)
        if run.stop:
            tokens = self.engine.stream(prompt, run.max_new_tokens, self.stop_ids, run.sampling)
            return answer_of(tokens, self.tokenizer.decode, run.stop)
        (ids,) = self.engine.generate([prompt], run.max_new_tokens, self.stop_ids, run.sampling)
        return Answer(self.decode(ids), ids)

    def stream(self, messages: Messages, images: Images = (), **settings: Unpack[AnswerSettings]) -> Iterator[str]:
        """The text of `generate` in pieces as they are made, of whole characters."""
        prompt = self.prompt(messages, images)
        run = self.settings(len(prompt), **settings)
        tokens = self.engine.stream(prompt, run.max_new_tokens, self.stop_ids, run.sampling)
        return text_pieces(tokens, self.tokenizer.decode, run.stop)

    def chat(self, system: str = "") -> Chat:
        """A conversation of several turns that keeps its cache; `system` replaces the template's system sentence."""
        return Chat(self, system)

    @name_arguments("records", "images")
    def score(self, records: str | Path, images: str | Path = "", **changes: Any) -> "Scores":
        """Loss of every record of a LLaVA file under the model, image paths relative to the folder `images`.

        The settings are those of the training; `changes` as in `eve_jax.infer.score.ScoreSettings.of`.
        """
        from eve_jax.infer import score

        of_type("records", records, "the path of a file of records", str, Path)
        of_type("images", images, "the path of a folder", str, Path)
        settings = score.ScoreSettings.of(self.data, self.tokenizer, **changes)
        opened = open_records(expand_list(str(records), "records", fetch), expand(images, "images", REMOTE["images"]))
        cfg = replace(self.engine.cfg, dtype="float32")  # in bfloat16 a loss moves with the packing, by up to 5e-3
        scores = score.score_records(cfg, self.engine.params, opened, settings, mesh=self.engine.mesh)
        if not scores.lines:
            raise UserError(scores.none_scored())
        return scores

    def prompt(self, messages: Messages, images: Images = ()) -> Prompt:
        """The prompt of `generate`. Raises UserError as it does."""
        return self.with_images(to_turns(messages), images, self.rule.prompt_ids)

    def with_images(
        self, turns: Sequence[Turn], images: Images, ids_for: Callable[[Sequence[Turn], int], np.ndarray]
    ) -> Prompt:
        """The prompt of `turns` with `images`, where `ids_for(turns, number of images)` gives its ids.

        Markers of others place the images as in records (`eve_jax.data.sources.other_markers`).
        """
        turns, shown = match_images(turns, images)
        if not shown and not turns[-1].text.strip():
            raise UserError("the question is empty")
        if shown and not self.sees:
            raise UserError("this checkpoint has no trained image input: ask it without images")
        ids = ids_for(turns, len(shown))
        if ids.max() >= self.engine.cfg.vocab_size:
            raise UserError(
                f"{self.tokenizer.folder}: its tokenizer makes token {ids.max()}, the model knows "
                f"{self.engine.cfg.vocab_size}: it belongs to another model"
            )
        cut = [p if isinstance(p, Patches) else Patches.of(p, self.rule.images) for p in shown]
        return Prompt(ids, [p.pixels for p in cut], [p.grid for p in cut], self.engine.cfg.layout)

    def settings(self, tokens: int, **settings: Unpack[AnswerSettings]) -> CheckedSettings:
        """Settings for an answer to a prompt of `tokens` tokens: no longer than the model has positions for.

        Raises UserError when it has none left, or for settings that make no sense.
        """
        run = check_settings(**settings)
        if self.positions and tokens >= self.positions:
            raise UserError(
                f"{tokens} tokens, image tokens included, leave no room for an answer: the model has {self.positions} "
                "positions; ask with fewer or smaller images (max_size), or start a new conversation"
            )
        room = self.positions - tokens if self.positions else run.max_new_tokens
        return run._replace(max_new_tokens=min(run.max_new_tokens, room))

    def decode(self, ids: Sequence[int], stops: Sequence[str] = ()) -> str:
        """Text of token ids before the first of `stops`, special tokens left out."""
        return text_of(list(ids), self.tokenizer.decode, stops)


@contextmanager
def _naming(conversation: int) -> Iterator[None]:
    """Errors of the block name the conversation that they are about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"conversations[{conversation}]: {error}") from error


def _positions(folder: Path) -> int:
    """Return how many positions the LLM was made for, 0 for any number; warn when its config is lost."""
    return positions_of(lambda: carried_config(folder), folder)


def positions_of(config: Callable[[], dict[str, Any]], folder: Path) -> int:
    """Return how many positions an LLM was made for by the Hugging Face config that `config` reads; 0 for any number.

    folder: of the model, for messages. Warn when `config` raises UserError, since the config is lost.
    """
    try:
        found = config()
    except UserError as error:
        print(f"warning: {error}; until then prompts of any length are taken", file=sys.stderr, flush=True)
        return 0
    return max_positions(found, folder)


def dialogue_template(own: str, tokenizer: Tokenizer, given: str = "") -> str:
    """Return the template to ask with: `given`, else the checkpoint's `own`, or a dialogue that fits `tokenizer`.

    The latter is taken, with a note, where the own one is for captions. Raises UserError where `given` is for captions.
    """
    if not get_template(given or own).caption:
        return given or own
    fitting = fitting_templates(tokenizer)
    if given:
        remedy = f"use {' or '.join(fitting)}, which fits the tokenizer" if fitting else "use a tokenizer for dialogue"
        raise FieldError(Field("data.template"), f"={given} is for captions, not for asking: {remedy}")
    template = next(iter(fitting), "qwen2")
    print(f"note: the checkpoint's template {own} is for captions; asking with {template}", file=sys.stderr, flush=True)
    return template


def takes_images(folder: Path) -> bool:
    """False for an LLM whose patch embedding was never trained: a plain one, its import, or a stage of text alone."""
    config = read_config(folder)
    if "model" in config and ("stage" in config or not (folder / HF_CONFIG).is_file()):
        return config.get("stage") != "llm"
    return not is_plain(carried_config(folder))
