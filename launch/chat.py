"""Ask about a picture: python -m launch.chat --checkpoint=runs/demo/stage3 --image=a.png --prompt="What is it?"

Without --prompt, an interactive chat: one question a line, an empty line ends it.
"""

import json
import sys
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from eve_jax.infer.eve import EVE

from launch._flags import run

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "folder of a trained stage")
IMAGES = flags.DEFINE_multi_string("image", [], "picture file; may be given several times")
PROMPT = flags.DEFINE_string("prompt", None, "the question; <image> in it says where a picture goes")
MAX_NEW = flags.DEFINE_integer("max_new_tokens", 256, "longest answer in tokens", lower_bound=1)
FIT = flags.DEFINE_enum("fit", "fill", ["fill", "shrink"], "image rule: fill (inference), shrink (as in training)")
JSON = flags.DEFINE_bool("json", False, 'print {"prompt", "text", "new_ids"}')
flags.mark_flag_as_required("checkpoint")


def main() -> None:
    from eve_jax.infer.eve import EVE, check_images
    from eve_jax.runtime import setup

    check_images(IMAGES.value)
    setup()
    eve = EVE.from_pretrained(CHECKPOINT.value or "", FIT.value or "fill")
    if PROMPT.value is not None:
        answer(eve, PROMPT.value)
        return
    try:
        while question := input("> ").strip():
            answer(eve, question)
    except EOFError:  # Ctrl-D, or the end of piped questions
        print()


def answer(eve: "EVE", question: str) -> None:
    """Print the answer, as it comes or as one JSON line."""
    if JSON.value:
        ids = eve.generate(question, IMAGES.value, MAX_NEW.value)
        print(json.dumps({"prompt": question, "text": eve.decode(ids), "new_ids": ids}))
        return
    ids, shown = [], ""
    for token in eve.stream(question, IMAGES.value, MAX_NEW.value):
        ids.append(token)
        text = eve.decode(ids)
        sys.stdout.write(text[len(shown) :])
        sys.stdout.flush()
        shown = text
    print()


if __name__ == "__main__":
    run(main)
