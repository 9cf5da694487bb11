"""Ask a model about images from Python.

    python examples/ask.py CHECKPOINT "What is on the left?" image.png [image.png ...]

CHECKPOINT is the folder of a trained stage (runs/demo/stage3), of an import, or of a Hugging Face EVE model.
"""

import sys

from eve_jax import EVE
from eve_jax.errors import UserError


def main(checkpoint: str, question: str, *images: str) -> None:
    """Print the answer to one question, then the answers to several questions of one batch."""
    eve = EVE.from_pretrained(checkpoint, fit="shrink")  # "fill", the default, always scales to the full area
    print(eve.generate(question, images=list(images), max_new_tokens=64))

    questions = [question, "Describe the image."]
    for asked, answer in zip(questions, eve.generate_batch(questions, images=[list(images)] * 2), strict=True):
        print(f"{asked} -> {answer}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except UserError as error:  # bad input; the message says what to do
        sys.exit(f"error: {error}")
