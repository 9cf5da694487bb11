"""What tells checkpoints apart, the first one and each of the others:

    python -m launch.compare runs/demo/llm_chat runs/demo/stage3 --out=compared --texts=TEXTS.txt \
        --questions=heldout.jsonl --images=DIR --cards=CARDS.jsonl

Weight changes by layer and by kind, the loss on texts, the loss of answers with images and with blank ones, attention
on image tokens, filters of the patch embedding, and cards answered side by side (docs/compare.md). Takes folders of
stages (at a step: FOLDER@STEP), imports, Hugging Face folders and models of the hub. Writes OUT/compare.html,
compare.png and compare.json.
"""

import sys
from pathlib import Path

from absl import flags

from eve_jax.process.fetched import fetch, images
from eve_jax.process.paths import split_names
from eve_jax.process.published import in_bucket, work_folder
from launch._flags import define_path, required_folder, run, take_words

OUT = define_path("out", None, "folder for compare.html, compare.png and compare.json", remote=work_folder)
PARTS = flags.DEFINE_string(
    "parts",
    "",
    "some of weights,texts,questions,filters,cards; default: weights, filters, and what files are given for",
)
TEXTS = define_path("texts", "", "text files, passages between empty lines; commas", several=True, remote=fetch)
QUESTIONS = define_path(
    "questions", "", "records with images whose answers are scored, as config.data.records", several=True, remote=fetch
)
IMAGES = define_path("images", "", "folder that image paths of questions and cards are relative to", remote=images)
LIMIT = flags.DEFINE_integer("limit", 64, "questions, the first ones; 0: all", lower_bound=0)
CARDS = define_path("cards", "", 'JSONL of {"image", "prompt", "text", "paper", "marks"}', remote=fetch)
FIT = flags.DEFINE_enum(
    "fit", "fill", ["fill", "shrink"], "image rule of cards: fill (inference), shrink (as in training)"
)
MAX_NEW = flags.DEFINE_integer("max_new_tokens", 512, "longest answer to a card in tokens", lower_bound=1)
flags.mark_flags_as_required(["out"])


def main(checkpoints: list[str]) -> None:
    from eve_jax.compare.run import HTML, Asked, compare
    from eve_jax.errors import UserError
    from eve_jax.process.paths import expand
    from eve_jax.process.places import shown
    from eve_jax.process.setup import setup

    if not checkpoints:
        raise UserError("name the checkpoints first: python -m launch.compare A B --out=DIR (see --help)")
    given = {"weights": len(checkpoints) > 1, "texts": TEXTS.value, "questions": QUESTIONS.value, "cards": CARDS.value}
    chosen = [name for name, there in (given | {"filters": True}).items() if there]
    parts = [part.strip() for part in (PARTS.value or "").split(",") if part.strip()] or chosen
    asked = Asked(
        tuple(expand(name, remote=fetch) for name in checkpoints),
        tuple(parts),
        tuple(map(Path, split_names(TEXTS.value or ""))),
        QUESTIONS.value or "",
        IMAGES.value or "",
        LIMIT.value or 0,
        Path(CARDS.value) if CARDS.value else None,
        MAX_NEW.value or 1,
        FIT.value or "fill",
    )
    setup(computes=True)
    out = required_folder(OUT)
    with in_bucket(out, "compare"):
        compare(asked, out)
    print(shown(f"see {out / HTML}"), file=sys.stderr)


if __name__ == "__main__":
    named = take_words(sys.argv)
    run(lambda: main(named))
