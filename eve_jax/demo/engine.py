"""The data engine closed into a loop: web-like images are curated, captioned by a stage of the recipe, trained on.

WORKDIR/web, taught, unseen    images (`eve_jax.demo.web`)
WORKDIR/curated, looked        what launch.curate makes of web, of taught
WORKDIR/taught.jsonl           what the captioner learns from: prompts with and without experts, right captions
WORKDIR/captioned, recaptioned what launch.caption makes of curated, asking the captioner behind our server
"""

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from eve_jax.caption.config import CaptionConfig
from eve_jax.caption.folder import CAPTION_FILE, Allowed, describe
from eve_jax.caption.prompts import fill, parse_template, variables
from eve_jax.caption.run import web_caption
from eve_jax.caption.write import caption_records, check_kept, funnel_lines
from eve_jax.curate.config import ALL, NONE, CurateConfig, FilterConfig
from eve_jax.curate.experts.form import read_findings
from eve_jax.curate.funnel import lines as curation_lines
from eve_jax.curate.report.write import write_report
from eve_jax.curate.run import curate
from eve_jax.data.markers import escape_markers
from eve_jax.data.record import Record
from eve_jax.data.sources.records import Records, open_records
from eve_jax.data.sources.shards import DATASET_FILE
from eve_jax.demo.config import DemoConfig
from eve_jax.demo.dataset import record_of
from eve_jax.demo.finish import FIT
from eve_jax.demo.loop_config import CAPTIONED, RECAPTIONED, LoopConfig
from eve_jax.demo.web import IMAGES, RECORDS, read_truth, write_unseen, write_web
from eve_jax.errors import UserError, install
from eve_jax.infer.api import EVE
from eve_jax.infer.scheduler import SchedulerSettings
from eve_jax.process.files import read_json, read_text, write_atomically

WEB, TAUGHT, UNSEEN, CURATED, LOOKED = "web", "taught", "unseen", "curated", "looked"
LESSONS = "taught.jsonl"
NO_FILTER = FilterConfig(
    short_edge=0,
    aspect=0.0,
    min_bytes=0,
    max_bytes=0,
    formats="",
    entropy=0.0,
    min_words=0,
    max_words=0,
    languages="",
    language_words=1,
    caption_similarity=0.0,
    caption_copies=1,
)
CHUNK = 256  # tokens of prompts that are read between two blocks of decoding
PACKAGES = ("daft", "httpx")  # of the extra curate


def check_installed(loop: LoopConfig) -> None:
    """Raise UserError, before anything is trained, where a package of curation, captions or the server is missing."""
    experts = loop.curate.experts
    reads = ("rapidocr",) if "ocr" in experts.names and not experts.ocr.url else ()
    serves = () if loop.caption.endpoint.url else ("uvicorn",)
    for package in (*PACKAGES, *serves, *reads):
        if importlib.util.find_spec(package) is None:
            without = "; or go without OCR: --config.loop.curate.experts.run=" if package in reads else ""
            raise UserError(f"this demo requires {package}: {install('demo,serve,curate,experts')}{without}")


def prepare(loop: LoopConfig, demo: DemoConfig, workdir: Path) -> None:
    """Write the web, curate it, and write what the captioner learns from. What is there is kept."""
    write_web(workdir / WEB, demo.dataset, WEB, loop.web, loop.bad, demo.seed)
    write_web(workdir / TAUGHT, demo.dataset, TAUGHT, loop.taught, 0.0, demo.seed)
    write_unseen(workdir / UNSEEN, demo.dataset, loop.unseen, demo.seed)
    print("curating the web's images", flush=True)
    funnel = curate(loop.curate, str(workdir / WEB / RECORDS), str(workdir / WEB / IMAGES), workdir / CURATED)
    print("\n".join(curation_lines(funnel)), flush=True)
    write_report(workdir / CURATED)
    print("having the experts look at the images that the captioner learns from", flush=True)
    source = str(workdir / TAUGHT / RECORDS), str(workdir / TAUGHT / IMAGES)
    curate(all_of(loop.curate), *source, workdir / LOOKED)
    text = "".join(f"{json.dumps(line)}\n" for line in lessons(loop.caption, workdir))
    if not (workdir / LESSONS).is_file() or read_text(workdir / LESSONS) != text:
        write_atomically(workdir / LESSONS, text)


def all_of(config: CurateConfig) -> CurateConfig:
    """Return a curation that leaves nothing out and has the same experts."""
    return replace(
        config,
        filter=NO_FILTER,
        embed=replace(config.embed, kind=NONE, model="", url=""),
        select=replace(config.select, rule=ALL, clusters=0),
        dedup=replace(config.dedup, phash=-1, semantic=0.0),
    )


def lessons(caption: CaptionConfig, workdir: Path) -> Iterator[dict[str, object]]:
    """Yield the records that the captioner learns from: every image twice, with what is known of it and without."""
    truths = read_truth(workdir / TAUGHT)
    paths = {line["id"]: line["image"] for line in _lines(workdir / TAUGHT / RECORDS)}
    for record in open_records(str(workdir / LOOKED / "records")):
        for name, prompt in (("alone", alone(caption)), ("with experts", caption)):
            asked = escape_markers(filled(prompt, record))
            yield record_of(f"{record.id} {name}", [paths[record.id]], [(asked, truths[record.id])])


def _lines(file: Path) -> list[dict[str, str]]:
    with open(file, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def filled(config: CaptionConfig, record: Record) -> str:
    """Return the prompt about a record, as launch.caption asks it."""
    findings = read_findings(record.kept.get("experts"), record.id)
    values = variables(findings, web_caption(record), config.experts.block)
    return fill(parse_template(config.prompt.text, "prompt.text"), values)


def alone(config: CaptionConfig) -> CaptionConfig:
    """Return the config of captions by the model alone: the lines of the prompt without variables, no word of experts
    in the checks."""
    text = "\n".join(line for line in config.prompt.text.split("\n") if "{" not in line)
    prompt, checks = replace(config.prompt, text=text), replace(config.checks, ocr=0.0, classes=0.0)
    return replace(config, prompt=prompt, checks=checks)


def caption_web(loop: LoopConfig, workdir: Path, checkpoint: Path) -> None:
    """Caption what is left of the web by the stage at `checkpoint`, alone and with experts.

    Asks our own server, in this process, or what `loop.caption.endpoint.url` names. What is done is kept. Raises
    UserError, and Interrupted when told to stop.
    """
    configs = {CAPTIONED: alone(loop.caption), RECAPTIONED: loop.caption}
    source = str(workdir / CURATED / "records")
    records = open_records(source)
    todo = [name for name, config in configs.items() if not _is_done(config, records, workdir / name)]
    if not todo:
        return
    with _endpoint(loop, checkpoint) as url:
        for name in todo:
            print(f"{name}: asking {url}", flush=True)
            asked = replace(configs[name], endpoint=replace(loop.caption.endpoint, url=url))
            funnel = caption_records(asked, source, "", workdir / name, new=Allowed(answers=True, records=True))
            print("\n".join(funnel_lines(funnel)), flush=True)
            check_kept(funnel, workdir / name)
            write_report(workdir / name)


def _is_done(config: CaptionConfig, records: Records, folder: Path) -> bool:
    made = folder / CAPTION_FILE
    return (folder / DATASET_FILE).is_file() and made.is_file() and read_json(made) == _plain(describe(config, records))


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Return `value` as JSON gives it back."""
    return json.loads(json.dumps(value))


@contextmanager
def _endpoint(loop: LoopConfig, checkpoint: Path) -> Iterator[str]:
    """Yield the address of the API to ask, with the server of `checkpoint` behind it where no other is named."""
    if loop.caption.endpoint.url:
        yield loop.caption.endpoint.url
        return
    from eve_jax.serve.local import served_here
    from eve_jax.serve.settings import ServeSettings

    print(f"serving {checkpoint} to caption the web's images", flush=True)
    eve = EVE.from_pretrained(checkpoint, FIT)
    slots = SchedulerSettings(slots=loop.slots, context=loop.context, chunk=min(loop.context, CHUNK))
    with served_here(eve, ServeSettings(names=(loop.caption.endpoint.model,), quiet=True), slots) as url:
        yield url
