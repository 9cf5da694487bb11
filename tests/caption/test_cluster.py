"""Captions on a cluster: the files of one process, never more requests at once than are allowed, what is not shared."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.caption_server import Asked, Reply, ScriptedEndpoint, describe, refusal
from eve_jax.caption import cluster
from eve_jax.caption.config import CaptionConfig
from eve_jax.caption.write import caption_records
from eve_jax.errors import UserError
from tests.caption.scenes import config_of, files_of, write_images
from tests.curate.web import in_order

ROOT = Path(__file__).parents[2]


def config(url: str, **changes: Any) -> CaptionConfig:
    given: dict[str, Any] = {"engine__runner": "ray", "engine__workers": 3, "write__records_per_shard": 4}
    return config_of(url, **(given | changes))


@pytest.fixture
def records(tmp_path: Path) -> str:
    """Records of which one has a broken image and one an id of other letters."""
    return write_images(tmp_path / "in", 22, {3: {"id": "Zürich 中"}, 9: {"image": "gone.jpg"}})


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[cluster.Part]:
    """What would go to the cluster; it is done here."""
    seen = []

    def run(make: Any, shards: Iterable[int], engine: Any, title: str) -> None:
        seen.append(make)
        in_order(make, shards, engine, title)

    monkeypatch.setattr("eve_jax.caption.cluster.run", run)
    return seen


def caption(records: str, out: Path, made: Callable[[str], CaptionConfig], script: Any = describe) -> ScriptedEndpoint:
    with ScriptedEndpoint(script) as endpoint:
        caption_records(made(endpoint.url), records, str(Path(records).parent), out)
        return endpoint


def test_several_processes_leave_the_files_of_one(tmp_path: Path, records: str, parts: list[cluster.Part]) -> None:
    caption(records, tmp_path / "one", partial(config, engine__runner="native", engine__workers=0))
    endpoint = caption(records, tmp_path / "three", config)
    assert files_of(tmp_path / "three") == files_of(tmp_path / "one")
    assert len(files_of(tmp_path / "one")) > 6
    assert sum(endpoint.received.values()) == 21
    assert parts[0].parts == 3 and len(list((tmp_path / "three/answers").iterdir())) == 3


def test_the_parts_ask_no_more_at_once_than_one_process(
    tmp_path: Path, records: str, parts: list[cluster.Part]
) -> None:
    for number, (most, workers) in enumerate(((8, 3), (2, 5), (64, 100), (1, 4))):
        changes: dict[str, Any] = {
            "endpoint__concurrency": most,
            "endpoint__start": min(most, 4),
            "engine__workers": workers,
        }
        caption(records, tmp_path / f"out{number}", partial(config, **changes))
        part = parts[-1]
        assert part.parts == min(most, workers, 6)  # shards
        assert part.parts <= part.parts * part.config.endpoint.concurrency <= most
        assert part.config.endpoint.start >= 1


def test_what_is_there_is_not_asked_again(tmp_path: Path, records: str, parts: list[cluster.Part]) -> None:
    caption(records, tmp_path / "whole", config)
    asked: list[Asked] = []

    def ends(one: Asked) -> Reply | str:
        asked.append(one)
        return describe(one) if len(asked) <= 12 else refusal(401, "no credit")

    one_at_a_time: dict[str, Any] = {"endpoint__concurrency": 3, "endpoint__start": 1}
    with pytest.raises(UserError, match="no credit"):
        caption(records, tmp_path / "cut", partial(config, **one_at_a_time), ends)
    rest = caption(records, tmp_path / "cut", config)
    assert sum(rest.received.values()) == 21 - 12
    assert len(parts[-1].todo) < 6
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_a_folder_or_records_of_another_machine(
    tmp_path: Path, records: str, parts: list[cluster.Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is at the same path on another machine is not what the command was given."""
    caption(records, tmp_path / "out", config)
    part = parts[0]
    with pytest.raises(UserError, match="not there; name a folder of a file system that all nodes have"):
        cluster.replace(part, out=tmp_path / "elsewhere")(0)
    Path(records).write_text(Path(records).read_text().replace("alt 1", "alt one"))
    with pytest.raises(UserError, match="holds other records than where the command was started"):
        part(0)
    monkeypatch.setattr("eve_jax.caption.cluster.run", lambda *_: None)  # files that another machine keeps
    with pytest.raises(UserError, match="6 shards that other nodes asked about are not here"):
        caption(records, tmp_path / "local", config)


def test_the_key_stays_in_the_environment(
    tmp_path: Path, records: str, parts: list[cluster.Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVE_CAPTION_KEY", "sk-secret")
    with ScriptedEndpoint(describe) as endpoint:
        endpoint.keep_requests = True
        caption_records(config(endpoint.url), records, str(Path(records).parent), tmp_path / "out", "sk-secret")
        assert {one.headers["authorization"] for one in endpoint.requests} == {"Bearer sk-secret"}
    assert b"sk-secret" not in pickle.dumps(parts[0])
    monkeypatch.delenv("EVE_CAPTION_KEY")
    with pytest.raises(UserError, match="no EVE_CAPTION_KEY in the environment; set it on every node"):
        parts[0](0)


def test_workers_are_for_a_cluster() -> None:
    with pytest.raises(UserError, match=r"config.engine.workers=2 is for config.engine.runner=ray"):
        config_of(engine__workers=2)


@pytest.mark.slow
def test_two_nodes_of_ray_leave_the_files_of_one_process(tmp_path: Path) -> None:
    python = os.environ.get("EVE_RAY_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import daft, ray"], capture_output=True).returncode:
        pytest.skip("no Ray: EVE_RAY_PYTHON names the Python of an environment that has it")
    write_images(tmp_path / "in", 40)
    with ScriptedEndpoint(describe) as endpoint:
        for runner in ("native", "ray"):
            fields = [f"--config.endpoint.url={endpoint.url}", "--config.endpoint.model=m"]
            fields += ["--config.write.records_per_shard=4", f"--config.engine.runner={runner}"]
            where = ["--from=in/records.jsonl", "--images=in", f"--to=out-{runner}"]  # relative, also for the nodes
            command = [python, "-m", "launch.caption", "--config=caption", *where, *fields]
            if runner == "ray":
                command = [python, "-m", "benchmarks.curate_engines", "nodes", *command]
            path = os.environ | {"PYTHONPATH": str(ROOT)}
            done = subprocess.run(command, cwd=tmp_path, env=path, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        assert sum(endpoint.received.values()) == 80
    left = {runner: files_of(tmp_path / f"out-{runner}") for runner in ("native", "ray")}
    drawn = {"report.html", "report.png"}  # with how fast it was
    assert left["ray"].keys() == left["native"].keys() > drawn
    assert {n for n in left["ray"] if left["ray"][n] != left["native"][n]} <= drawn
    assert len(list((tmp_path / "out-ray/answers").iterdir())) == 2
