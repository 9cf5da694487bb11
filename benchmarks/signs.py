"""How fast signs are learned: python -m benchmarks.signs --recipe=runs/parts --workdir=runs/signs [--json]

EVEv1's and EVEv2's patch embedding by images of their own size and on EVEv1's square canvas, on the questions of what a
sign reads alone (docs/evev1.md#the-demo). The data and the LLM (`llm_chat`) are those of a work folder of `fig5`,
`fig5_parts` or another recipe of the demo's size. HELD questions are asked afterwards, with the image rule of training.
A model takes four minutes on one core; the stages are those of `launch.train`, so a rerun resumes. With --json the last
line is JSON.
"""

import json
from pathlib import Path
from random import Random
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from configs import demo, demo_v1
from eve_jax.demo.questions import TEMPLATES
from eve_jax.infer.api import EVE
from eve_jax.train.metrics import read_metrics
from eve_jax.train.trainer import train
from launch._flags import define_path, run

RECIPE = define_path("recipe", None, "work folder of a recipe, with data and llm_chat")
WORKDIR = define_path("workdir", None, "folder for the stages")
STEPS = flags.DEFINE_integer("steps", 800, "of each model", lower_bound=4)
JSON = flags.DEFINE_bool("json", False, "print the rows as a line of JSON last", allow_override=True)
flags.mark_flags_as_required(["recipe", "workdir"])
HELD = 200  # of the questions
SHOWN = (100, 200, 400, 700)  # steps, around each of which the losses of 20 are averaged
ARMS = [(embed, images) for images in ("native", "square") for embed in ("v2", "v1")]
Record = dict[str, Any]


def readings(file: Path) -> list[Record]:
    """Records of the questions of what a sign reads, one each, from the demo's `file`; in an order of their own."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        turns = record["conversations"]
        for question, answer in zip(turns[::2], turns[1::2], strict=True):
            text = question["value"].removeprefix("<image>\n")
            if text in TEMPLATES["read"]:
                asked = {"from": "human", "value": f"<image>\n{text}"}
                found.append({"id": record["id"], "image": record["image"], "conversations": [asked, answer]})
    Random(0).shuffle(found)
    return found


def stage(embed: str, images: str, recipe: Path, records: Path) -> ConfigDict:
    """One model: everything trains, from the LLM of `recipe`."""
    c = demo.stage(f"{embed}_{images}", "3", "qwen2", "", STEPS.value, 1e-3, tiny=False)
    c.model.variant, c.model.patch_embed = "dense", embed
    if embed == "v1":
        c.model.patch_hidden = c.model.hidden_size
    if images == "square":
        demo_v1.square(c)
    c.data.update(records=str(records), images=str(recipe / "data/images"), tokenizer=str(recipe / "data/tokenizer"))
    c.init = str(recipe / "llm_chat")
    return c


def share_read(folder: Path, held: list[Record], images: Path) -> float:
    """The share of the questions that the stage in `folder` answers right."""
    eve, right = EVE.from_pretrained(folder, fit="shrink"), 0
    for record in held:
        question, answer = record["conversations"]
        text = question["value"].removeprefix("<image>\n")
        given = eve.answer(text, [images / record["image"]], max_new_tokens=demo.ANSWER)
        right += given.text.strip() == answer["value"]
    return right / len(held)


def main() -> None:
    recipe, workdir = Path(RECIPE.value), Path(WORKDIR.value)
    found = readings(recipe / "data/questions.jsonl")
    held, records = found[:HELD], workdir / "train.jsonl"
    records.parent.mkdir(parents=True, exist_ok=True)
    records.write_text("".join(f"{json.dumps(one)}\n" for one in found[HELD:]), encoding="utf-8")
    rows = []
    for embed, images in ARMS:
        folder = train(stage(embed, images, recipe, records), workdir, quiet=True)
        losses = [line["loss"] for line in read_metrics(folder)]
        at = {step: sum(losses[step - 10 : step + 10]) / 20 for step in SHOWN if step + 10 <= len(losses)}
        read = share_read(folder, held, recipe / "data/images")
        rows.append({"patch_embed": embed, "images": images, "read": read, "losses": at})
        said = ", ".join(f"{loss:.3f} after {step}" for step, loss in at.items())
        print(f"{embed}, {images}: {read:.1%} of {len(held)} read; losses {said}", flush=True)
    if JSON.value:
        print(json.dumps(rows))


if __name__ == "__main__":
    run(main)
