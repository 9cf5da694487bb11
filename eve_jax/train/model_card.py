"""The card of an export, made from the run: recipe, data, losses, scores, license of the base."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eve_jax.checkpoint.stage_folder import CONFIG, read_config
from eve_jax.config.stages import STAGES
from eve_jax.data.plan.plan import STATS_FILE
from eve_jax.data.rows.pipeline import PLAN_FOLDER
from eve_jax.data.sources.hub_files import DataSet, is_data_set
from eve_jax.errors import UserError, warn
from eve_jax.hf.family import member
from eve_jax.hf.llava import is_llava
from eve_jax.model.eve import declared
from eve_jax.process.files import read_json
from eve_jax.process.hub import CARD
from eve_jax.process.paths import split_names
from eve_jax.process.stored_path import StoredPath
from eve_jax.train.metrics import evaluated_names, read_evaluations, read_metrics
from eve_jax.train.report import REPORT
from eve_jax.version import __version__
from eve_jax.weights.base_config import PATHS
from eve_jax.weights.base_facts import base_facts
from eve_jax.weights.stage_config import stage_config

USE = """    from transformers import {cls}

    model = {cls}.from_pretrained("{name}"{more})

"""
REMOTE = ", trust_remote_code=True"
EVE_USE = "With eve_jax, which has the image rule and the template: `eve chat --checkpoint={name} --image=image.png`."


def stages_of(folder: Path) -> list[Path]:
    """Return the folders of the stages that led to the model in `folder`, itself the last, as far as they are there."""
    found = [folder]
    while (paths := found[0] / PATHS).is_file() and (entry := read_json(paths).get("init")):
        before = StoredPath.read(entry, paths).find(found[0], lambda path: (path / CONFIG).is_file())
        if before is None or before in found or "model" not in read_config(before):
            break
        found.insert(0, before)
    return [stage for stage in found if "optim" in read_config(stage)]


def write_card(folder: Path, export: Path, name: str, license: str = "", reports: Sequence[Path] = ()) -> None:
    """Write README.md with its images into the folder `export` of the model in `folder`, to be `name` on the hub.

    license: of the export, "" = that of the base, of which a warning is printed when it is not known. reports: folders
    of evaluations, whose scores are listed. Raises UserError for a report that cannot be read.
    """
    base, stages = base_facts(folder), stages_of(folder)
    ours = {"license": license} if license else {k: v for k, v in base.items() if k.startswith("license") and v}
    if not ours:
        warn(f"{name}: the license of the base is not known, so its card names none; --license=... does")
    configs = [read_config(stage) for stage in stages]
    names = [name for config in configs for name in split_names(config["data"]["records"])]
    data_sets = sorted({DataSet.of(one).id for one in names if is_data_set(one)})
    front: dict[str, Any] = {**ours, "library_name": "transformers", "pipeline_tag": "image-text-to-text"}
    hf = read_json(export / CONFIG) if (export / CONFIG).is_file() else {}
    llava = is_llava(hf)
    front |= {"tags": ["eve_jax"] if llava else ["eve_jax", "encoder-free"]}
    if base.get("commit"):
        front["base_model"] = base["name"]
    if data_sets:
        front["datasets"] = data_sets
    lines = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in front.items()),  # JSON is YAML
        "---",
        f"# {name.partition('/')[2] or name}",
        "",
        f"A vision-language model {'with' if llava else 'without'} a vision encoder{_from(base)}, trained with eve_jax "
        f"{__version__}.",
        *["", "## Use", "", _use(name, hf)],
        *_recipe(stages, configs),
        *_data(stages),
        *_losses(stages, export),
        *_scores(stages, reports),
        *["", "## License", "", _license(base, license)],
    ]
    (export / CARD).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _use(name: str, hf: dict[str, Any]) -> str:
    """Return how an export with config.json `hf` is loaded: by transformers and ours, or by ours alone."""
    ours = EVE_USE.format(name=name)
    if is_llava(hf):
        return USE.format(cls="LlavaForConditionalGeneration", name=name, more="") + ours
    return ours if member(hf) else USE.format(cls="AutoModelForCausalLM", name=name, more=REMOTE) + ours


def _from(base: Mapping[str, str]) -> str:
    if not base:
        return ""
    commit = f" at commit `{base['commit']}`" if base.get("commit") else ""
    return f" on the base `{base['name']}`{commit}"


def _license(base: Mapping[str, str], license: str) -> str:
    of_base = " ".join(base[k] for k in ("license", "license_name", "license_link") if base.get(k))
    known = f"The license of the base is {of_base}." if of_base else "The license of the base is not known to this run."
    return f"{license}. {known}" if license else known


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    yield from ("", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}")
    for row in rows:
        yield f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |"


def _recipe(stages: Sequence[Path], configs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not stages:
        return
    yield from ("", "## Recipe")
    rows = []
    for stage, config in zip(stages, configs, strict=True):
        data, optim, stats = config["data"], config["optim"], _stats(stage)
        changed = [f"{name} x{value:g}" for name, value in (optim.get("groups") or {}).items() if value is not None]
        groups = {weight.group for weight in declared(stage_config(stage)[0]).values()}
        there = [group for group in STAGES.get(config["stage"], ()) if group in groups]
        trains = ", ".join((*there, *changed))
        if rank := config.get("lora", {}).get("rank"):
            trains = f"adapters of rank {rank}: " + (config["lora"]["on"] or trains)
        size = data["image_mode"] + (f" up to {data['max_size']}²" if data["max_size"] else "")
        numbers = (stats.get("steps", "?"), stats.get("samples", "?"), f"{optim['lr']:g}")
        rows.append((stage.name, trains, *numbers, size, data["template"], config["seed"]))
    head = ("stage", "trains", "steps", "samples", "learning rate", "images", "template", "seed")
    yield from _table(head, rows)


def _stats(stage: Path) -> dict[str, Any]:
    file = stage / PLAN_FOLDER / STATS_FILE
    return read_json(file) if file.is_file() else {}


def _data(stages: Sequence[Path]) -> Iterator[str]:
    rows = [
        (stage.name, _public(one["name"]), f"{one['records']:,}", f"{one['samples']:,}", f"{one['share']:.1%}")
        for stage in stages
        for one in _stats(stage).get("sources", [])
    ]
    if rows:
        yield from ("", "## Data")
        yield from _table(("stage", "source", "records", "samples", "share"), rows)


def _public(source: str) -> str:
    """Return the name of a source without the folders of the machine that it was read on."""
    return f"`{source}`" if is_data_set(source) or ":" in source else f"`{Path(source).name}`"


def _losses(stages: Sequence[Path], export: Path) -> Iterator[str]:
    rows, images = [], []
    for stage in stages:
        losses = [line["loss"] for line in read_metrics(stage) if line.get("loss") is not None]
        if losses:
            last = losses[-max(1, len(losses) // 20) :]
            rows.append((stage.name, f"{losses[0]:.4f}", f"{sum(last) / len(last):.4f}"))
        if (stage / REPORT).is_file():
            images.append(f"{stage.name}.png")
            shutil.copyfile(stage / REPORT, export / images[-1])
    if rows:
        yield from ("", "## Losses")
        yield from _table(("stage", "first step", "mean of the last twentieth"), rows)
        for image in images:
            yield from ("", f"![Curves of {image.removesuffix('.png')}]({image})")


def _scores(stages: Sequence[Path], reports: Sequence[Path]) -> Iterator[str]:
    rows = [row for report in reports for row in _reported(report)]
    for stage in stages[-1:]:
        evaluated = read_evaluations(stage)
        last = evaluated[-1] if evaluated else {}
        for name in evaluated_names(evaluated):
            if last.get(name) is not None:
                rows.append((name, "while training", f"{last[name]:.4f}", ""))
    if rows:
        yield from ("", "## Scores")
        yield from _table(("task", "protocol", "score", "95% interval"), rows)


def check_reports(reports: Iterable[Path]) -> None:
    """Raise UserError for a folder of `--scores` whose report of an evaluation cannot be read, before a long export."""
    for folder in reports:
        if not folder.is_dir():
            raise UserError(f"--scores={folder}: no such folder; name the --out of launch.eval")
        list(_reported(folder))


def _reported(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    path = folder / "report.json"
    if not path.is_file():
        raise UserError(f"--scores={folder} has no report.json; name the --out of launch.eval")
    tasks, keys = read_json(path).get("tasks"), {"benchmark", "protocol"}
    if not isinstance(tasks, dict) or not all(isinstance(one, dict) and keys <= one.keys() for one in tasks.values()):
        raise UserError(f"--scores={folder}: not a report of an evaluation; name the --out of launch.eval")
    for entry in tasks.values():
        if entry.get("headline") is not None:
            ends = entry.get("interval")
            shown = f"{ends[0]:.1f} to {ends[1]:.1f}" if isinstance(ends, list) and len(ends) == 2 else ""
            yield str(entry["benchmark"]), str(entry["protocol"]), f"{entry['headline']:.1f}", shown
