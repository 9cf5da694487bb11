"""What the recipes of experiments share: arguments, trees of stages, the section `experiment`. No config of its own.

A recipe has three sizes. `demo` (the default; `tiny` at test size) trains models of 3 to 5 M parameters on the demo's
records; `1.5b` and `paper` are the papers' settings on Qwen2.5-1.5B and on the paper's own LLM, with records of yours:

    data=FOLDER     stage1.jsonl, captions.jsonl and sft.jsonl, and images/, which image paths are relative to; other
                    places of records by --config.stages.STAGE.data.records
    bench=FOLDER    data of the benchmarks (docs/eval.md#data)
    llm=...         the base LLM as for other configs, instead of the size's own; without size= it decides: 1.5b where
                    its name, or its folder's, has 1.5b in it, else the paper's

Rows and micro-batches are made for eight chips (`launch.compile` finds others); four of them hold a model that answers
(`config.experiment.mesh`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import demo, stage1, stage2_1, stage3, variants
from configs.args import parse_args
from eve_jax.errors import UserError
from eve_jax.experiments.config import stage_name
from eve_jax.process.paths import WORKDIR, expand, fetch

SIZES = ("demo", "1.5b", "paper")
# LLMs whose weights the hub has as we read them.
WEIGHTS = {"qwen2.5-1.5b": "hf:Qwen/Qwen2.5-1.5B", "qwen2.5-7b": "hf:Qwen/Qwen2.5-7B"}
BATCH = {"stage1": 1024, "captions": 1024, "sft": 512}  # samples of a step (EVEv2 paper, Table 5)
SMALL = "On Qwen2.5-1.5B the papers have Fig. 5 alone: the samples of stages 1 and 2 at this size are ours."
BENCHMARKS = "gqa,seed,textvqa"  # whose average Fig. 5 shows
Stage = Callable[[str], ConfigDict | None]  # arm -> a stage of it, None for an arm that has none of the kind


@dataclass(frozen=True)
class Arm:
    """What is compared: its name in reports, and what the paper reports for it."""

    label: str
    paper: str = ""


@dataclass(frozen=True)
class Args:
    """Arguments of the recipe `name`: `more` are its own. of: the arms that are chosen."""

    name: str
    tiny: bool
    size: str
    llm: str
    data: str
    bench: str
    seeds: int
    points: int
    of: tuple[str, ...]
    more: dict[str, Any]


def read_args(name: str, arg: str, arms: Mapping[str, Arm], llm: str, default: Sequence[str] = (), **more: str) -> Args:
    """Return the arguments of the recipe `name`. Raises UserError.

    llm: that of the paper's size. default: the arms where `of` names none, () = all. more: further arguments and the
    values that they have where they are not given.
    """
    a = parse_args(name, arg, tiny=False, size="", llm="", data="", bench="", seeds="", points="1", of="", **more)
    base = expand(a["llm"], "llm", fetch) if a["llm"] else ""
    of_llm = "1.5b" if "1.5b" in Path(a["llm"]).name.lower() else "paper" if base else "demo"
    size = a["size"] or ("demo" if a["tiny"] else of_llm)
    if size not in SIZES:
        raise UserError(f"--config={name}:size={size}: expected one of {', '.join(SIZES)}")
    real = [f"{key}={a[key]}" for key in ("llm", "data", "bench", *more) if a[key]]
    if wrong := real if size == "demo" else ["tiny"] if a["tiny"] else []:
        raise UserError(f"--config={name}:{arg}: {wrong[0]} does not go with size={size}")
    base = base or {"demo": "", "1.5b": "qwen2.5-1.5b", "paper": llm}[size]
    usual = 2 if a["tiny"] else 3 if size == "demo" else 1
    runs, points = _number(name, "seeds", a["seeds"] or str(usual)), _number(name, "points", a["points"])
    chosen = tuple(a["of"].split("+") if a["of"] else default or arms)
    if unknown := [one for one in chosen if one not in arms]:
        raise UserError(f"--config={name}:of={a['of']}: unknown arm {unknown[0]!r}; known: {', '.join(arms)}")
    data, bench = (expand(a[key], key, fetch) if a[key] else "" for key in ("data", "bench"))
    return Args(name, a["tiny"], size, base, data, bench, runs, points, chosen, {key: a[key] for key in more})


def _number(name: str, key: str, text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise UserError(f"--config={name}:{key}={text}: expected a number from 1 to 100")
    return int(text)


def grow(
    c: ConfigDict, trunk: Sequence[ConfigDict], own: Mapping[str, Stage], a: Args, curve: str, scored: str
) -> tuple[int, ...]:
    """Give `c` its stages: `trunk`, then those of every seed and arm, of `own` by kind; return the points' steps.

    The first stage of an arm starts where the trunk ends, unless it says where; each later one from the one before.
    """
    stages = list(trunk)
    steps: tuple[int, ...] = ()
    for seed in range(a.seeds):
        for arm in a.of:
            before = f"{WORKDIR}/{trunk[-1].name}" if trunk else ""
            for kind, make in own.items():
                made = make(arm)
                if made is None:
                    continue
                s = _named(made, stage_name(arm, seed, kind), seed, before)
                stages.append(s)
                before = f"{WORKDIR}/{s.name}"
                if kind != curve or a.points == 1:
                    continue
                steps = _steps(s.train.steps, a.points)
                s.train.save_every = s.train.keep_every = math.gcd(*steps)
                for step in steps:
                    point = own[scored](arm)
                    assert point is not None
                    stages.append(_named(point, stage_name(arm, seed, scored, step), seed, f"{before}@{step}"))
    for s in stages if a.size != "demo" else ():
        _for_eight_chips(s)
    c.order = tuple(s.name for s in stages)
    c.stages = ConfigDict({s.name: s for s in stages})
    return steps


def _for_eight_chips(s: ConfigDict) -> None:
    """Divide a step into micro-batches of two rows a chip, four of shorter ones, which leave room for the weights."""
    rows = s.data.rows * s.data.micro_batches
    s.data.rows = 16 if s.data.row_tokens > 4096 else 32 if not rows % 32 else 16
    s.data.micro_batches = rows // s.data.rows


def _named(s: ConfigDict, name: str, seed: int, init: str) -> ConfigDict:
    s.name, s.seed, s.train.keep = name, seed, 1
    s.init = s.init or init
    s.eval.every, s.eval.tasks, s.eval.records = 0, "", ""
    return s


def _steps(last: int, points: int) -> tuple[int, ...]:
    """Steps of the points before the end, evenly spaced; what is left of the division comes before the end."""
    every = last // points
    if not every:
        raise UserError(f"points={points}: there are only {last} steps")
    return tuple(every * n for n in range(1, points))


def demo_recipe(name: str, a: Args, settings: Mapping[str, Any] = variants.SETTINGS) -> ConfigDict:
    """Return the demo's recipe under a name, with the records of `settings` and held-out texts."""
    c = demo.get_config("tiny" if a.tiny else "")
    c.name = name
    c.demo.settings = ConfigDict({} if a.tiny else settings)
    c.demo.held_texts = 20 if a.tiny else 300
    return c


def demo_stage(whole: ConfigDict, like: str, steps: int, parts: str = "none") -> ConfigDict:
    """Return the demo's stage `like` with `steps`, of a model with `parts` twice ("none", "delta", "mlp" ...)."""
    c = variants.stage(whole, like, like, steps)
    c.model.variant, c.model.parts = "dense", parts
    c.init = ""
    return c


def captions_stage(whole: ConfigDict, steps: int, parts: str) -> ConfigDict:
    """Return the demo's stage of captions: the patch embedding learns, and what of the layers is vision's own."""
    c = demo_stage(whole, "stage2_1", steps, parts)
    c.stage = "1" if parts == "none" else "2.1"
    return c


def demo_trunk(whole: ConfigDict, names: Sequence[str] = tuple(variants.SHARED)) -> list[ConfigDict]:
    """Return the stages that all arms share: the LLM, its chats, the pre-alignment of the patch embedding."""
    trunk = [variants.stage(whole, name, *variants.SHARED[name]) for name in names]
    for c in trunk:
        c.train.keep = 1
    return trunk


def real_stage(c: ConfigDict, a: Args, name: str, samples: int, records: str, parts: str = "none") -> ConfigDict:
    """Return a stage of a real size: `samples` of DATA/`records`.jsonl in steps of the paper's batch."""
    c.name, c.init = name, ""
    c.model.variant, c.model.parts = "dense", parts
    c.data.tokenizer = c.data.tokenizer or WEIGHTS.get(a.llm, "")
    c.data.records = f"{a.data or 'DATA'}/{records}.jsonl"
    c.data.images = f"{a.data}/images" if a.data else ""
    c.data.image_mode = "anyratio_ld"  # 800^2
    c.train.steps = samples // BATCH[records]
    if records == "sft":
        c.data.max_tokens, c.data.row_tokens, c.data.rows, c.data.micro_batches = 4096, 5120, 64, 1
    else:
        c.data.row_tokens = 3328  # times 256 rows: about 1,024 samples of 801 tokens
    return c


def llm_weights(a: Args, c: ConfigDict) -> str:
    """Return what a stage that was made for `a.llm` starts from: its folder or hub id, "" where neither is known."""
    return c.init or WEIGHTS.get(a.llm, "")


def llm_of(a: Args) -> str:
    """Return the LLM that all arms begin with: a stage at demo size, else its folder or hub id, "" for one by name."""
    if a.size == "demo":
        return "llm_chat"
    return WEIGHTS.get(a.llm, a.llm if Path(a.llm).is_dir() else "")


def real_trunk(a: Args, samples: int) -> list[ConfigDict]:
    """Return stage 1, in which the patch embedding alone learns, from the LLM."""
    llm = f"llm={a.llm}"
    c = stage1.get_config(llm)
    weights = llm_weights(a, c)
    c = real_stage(c, a, "stage1", samples, "stage1")
    c.init = weights
    return [c]


def real_captions(a: Args, samples: int, parts: str) -> ConfigDict:
    """Return stage 2.1 of a real size: as `captions_stage`."""
    c = real_stage(stage2_1.get_config(f"llm={a.llm}"), a, "captions", samples, "captions", parts)
    c.stage = "1" if parts == "none" else "2.1"
    return c


def real_sft(a: Args, samples: int, parts: str) -> ConfigDict:
    """Return fine-tuning of a real size, in which everything trains; its learning rate is the main recipe's."""
    return real_stage(stage3.get_config(f"llm={a.llm}"), a, "sft", samples, "sft", parts)


def experiment(a: Args, title: str, arms: Mapping[str, Arm], **fields: Any) -> ConfigDict:
    """Return the section `experiment` with the defaults of the size; `fields` are others, curve, steps, scored ..."""
    demo_size = a.size == "demo"
    held_out = f"{WORKDIR}/data/heldout.jsonl" if demo_size else ""
    values = {
        "title": title if demo_size else f"{title} (size {a.size}, LLM {Path(a.llm).name})",
        "arms": a.of,
        "labels": {arm: arms[arm].label for arm in a.of},
        "seeds": a.seeds,
        "tasks": held_out or BENCHMARKS,
        "data": a.bench,
        "protocol": "lmms",
        "images": f"{WORKDIR}/data/images" if demo_size else "",
        "answers": held_out,
        "texts": f"{WORKDIR}/texts/documents.txt,{WORKDIR}/texts/chats.txt" if demo_size else "",
        "before": "llm_chat" if demo_size else "",
        "weights": "",
        "fit": "" if demo_size else "fill",
        "rows": 32,
        "max_new_tokens": demo.ANSWER if demo_size else 0,
        "mesh": "" if demo_size else "data:-1,tensor:4",
        "chart": "curves" if a.points > 1 else "bars",
        "paper": {arm: arms[arm].paper for arm in a.of if arms[arm].paper},
    }
    if a.size == "1.5b" and a.name != "fig5":
        fields["deviations"] = (*fields.get("deviations", ()), SMALL)
    return ConfigDict(values | fields)
