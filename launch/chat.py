"""Ask about images:

    python -m launch.chat --checkpoint=runs/demo/stage3 --image=a.png --prompt="What is it?"

Takes a stage's folder, an import, a Hugging Face folder or a model of the hub. Without --prompt, an interactive chat of
several turns, one question a line; /help lists its commands. Answers go to stdout, everything else to stderr.
"""

import importlib
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from absl import flags

from eve_jax.errors import amount
from eve_jax.process.fetched import fetch
from eve_jax.process.places import shown
from launch._flags import as_flag, define_model, define_path, define_paths, run

if TYPE_CHECKING:
    from PIL import Image

    from eve_jax.infer.api import EVE
    from eve_jax.infer.chat import Answering, Chat

CHECKPOINT_IS = "folder of a stage (at a step: FOLDER@STEP), an import, a Hugging Face folder, or ORG/NAME of the hub"
CHECKPOINT = define_path("checkpoint", None, CHECKPOINT_IS, remote=fetch)
IMAGES = define_paths("image", "image file, file: or data: URI; may be given several times")
PROMPT = flags.DEFINE_string(
    "prompt", None, "the question; <image> in it says where an image goes, else they go first; \\<image> is text"
)
MAX_NEW = flags.DEFINE_integer("max_new_tokens", 256, "longest answer in tokens", lower_bound=1)
CHOOSING = {  # how tokens are chosen: fields of eve_jax.infer.sampling.Sampling, which has the ranges
    "temperature": flags.DEFINE_float("temperature", 0.0, "0: greedy; more: tokens are drawn"),
    "top_p": flags.DEFINE_float("top_p", 1.0, "draw from the most probable tokens that add up to this"),
    "top_k": flags.DEFINE_integer("top_k", 0, "draw from so many of the most probable tokens; 0: all"),
    "min_p": flags.DEFINE_float("min_p", 0.0, "draw from tokens of at least this times the largest probability"),
    "seed": flags.DEFINE_integer("seed", 0, "of the draws"),
    "presence_penalty": flags.DEFINE_float(
        "presence_penalty", 0.0, "-2 to 2, taken from the logits of tokens that the answer has"
    ),
    "frequency_penalty": flags.DEFINE_float(
        "frequency_penalty", 0.0, "-2 to 2, taken from them for each time that the answer has them"
    ),
    "repetition_penalty": flags.DEFINE_float(
        "repetition_penalty", 1.0, "above 1: makes what prompt and answer have less probable"
    ),
}
STOP = flags.DEFINE_multi_string("stop", [], "text before which the answer ends; may be given up to 4 times")
MODEL = define_model()  # how the checkpoint is opened
JSON = flags.DEFINE_bool("json", False, 'print {"prompt", "text", "new_ids"}, one line an answer')
flags.mark_flag_as_required("checkpoint")

HELP = r"""/image FILE  add an image to the next question; <image> in it says where it goes, else it goes first
             (a question without images may speak of <image>; next to images, write \<image>)
/new         start over
/quit        leave, as Ctrl-D does"""


def main() -> None:
    from eve_jax.data.markers import MARKER, count_markers
    from eve_jax.errors import UserError, name_fields
    from eve_jax.infer.messages import read_image

    if PROMPT.value is not None and not PROMPT.value.strip():
        raise UserError("--prompt is empty: ask something, or leave it out for an interactive chat")
    # before the checkpoint is read, which may take long
    images = [read_image(path, "--image") for path in IMAGES.value]
    places = count_markers(PROMPT.value or "")
    if images and places and places != len(images):
        raise UserError(
            f"--prompt has {places} of {MARKER}, --image is given {amount(len(images), 'time')}: one for each; "
            f"a tag that is text and no image is written \\{MARKER}"
        )

    from eve_jax.infer.api import EVE
    from eve_jax.infer.settings import check_settings
    from eve_jax.process.hub import refuse_empty
    from eve_jax.process.setup import setup

    setup(computes=True)
    with name_fields(as_flag):
        check_settings(**settings())
        refuse_empty(CHECKPOINT.value or "")
        with Waiting(f"reading the checkpoint {shown(CHECKPOINT.value or '')} ..."):
            eve = EVE.from_pretrained(CHECKPOINT.value or "", **MODEL())
        if PROMPT.value is not None:
            answer(eve.chat(), PROMPT.value, images)
        else:
            interactive(eve, images)


def settings() -> Any:
    """What the flags say about answers, as `Chat.ask` takes it."""
    chosen = {name: holder.value for name, holder in CHOOSING.items()}
    return {"max_new_tokens": MAX_NEW.value, "stop": STOP.value, **chosen}


def answer(chat: "Chat", question: str, images: "list[Image.Image]") -> None:
    """Print the answer to the next question, as it comes or as one JSON line."""
    from eve_jax.data.markers import MARKER, count_markers
    from eve_jax.data.record import Turn
    from eve_jax.data.sources.other_markers import found_markers

    others = [found[0] for found in found_markers([Turn("human", question)])]
    if not images and (count_markers(question) or others):
        escaped = f" (\\{MARKER} is that without a note)" if count_markers(question) else ""
        print_once(f"note: the question has no image, so {others[0] if not escaped else MARKER} is text in it{escaped}")
    if JSON.value:
        with compiling(chat.eve):
            given = chat.ask(question, images, **settings())
        print(json.dumps({"prompt": question, "text": given.text, "new_ids": given.new_ids}), flush=True)
        return
    pieces = chat.stream(question, images, **settings())
    with compiling(chat.eve):
        first = next(pieces, "")
    try:
        print(first, end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
    finally:  # also of an answer that an error ends
        print(flush=True)


def interactive(eve: "EVE", images: "list[Image.Image]") -> None:
    """Answer questions until the input ends; errors are printed, and the chat continues."""
    from eve_jax.errors import UserError

    with suppress(ImportError):
        importlib.import_module("readline")  # gives `input` line editing
    chat, failed, person = eve.chat(), False, sys.stdin.isatty()
    if person:
        print_once(f"one question a line; /help lists commands; images for the first question: {len(images)}")
    sign = "> " if person and sys.stdout.isatty() else ""
    try:
        while (line := input(sign).strip()) != "/quit":
            try:
                if line.startswith("/"):
                    images = command(chat, images, *line.split(maxsplit=1))
                elif line:
                    answer(chat, line, images)
                    images = []
            except UserError as error:
                failed = True
                print_once(f"error: {' '.join(str(error).split())}")
    except EOFError:  # Ctrl-D, or the end of piped questions
        if sign:
            print()
    except KeyboardInterrupt:
        print_once("")
        sys.exit(130)
    if failed and not person:
        sys.exit(1)


def command(chat: "Chat", images: "list[Image.Image]", name: str, argument: str = "") -> "list[Image.Image]":
    """Do what a line that starts with / says; returns the images that wait for the next question."""
    from eve_jax.infer.messages import read_image

    if name == "/image" and argument:
        return [*images, read_image(argument.strip().strip("'\""), name)]
    if name == "/new":
        chat.new()
        return []
    print_once(HELP if name == "/help" else f"{name}: expected one of\n{HELP}")
    return images


def print_once(text: str) -> None:
    """Print for people, not for what reads the answers."""
    print(text, file=sys.stderr, flush=True)


class Waiting:
    """Says `text` on stderr once the block has taken a second; a text may also come while it runs."""

    def __init__(self, text: str = ""):
        self.text, self.late = text, threading.Event()
        self.timer = threading.Timer(1.0, self._show)
        self.timer.daemon = True

    def _show(self) -> None:
        self.late.set()
        if self.text:
            print_once(self.text)

    def expect(self, text: str) -> None:
        """What takes long from here on."""
        if self.late.is_set() and text != self.text:
            print_once(text)
        self.text = text

    def __enter__(self) -> "Waiting":
        self.timer.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.timer.cancel()


@contextmanager
def compiling(eve: "Answering") -> Iterator[None]:
    """Says that the engine compiles when it takes long to."""
    with Waiting() as waiting:
        eve.engine.on_compile = lambda: waiting.expect("compiling ...")
        yield


if __name__ == "__main__":
    run(main)
