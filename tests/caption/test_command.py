"""`python -m launch.caption`: what users type, and what they see."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.caption_server import Asked, Reply, ScriptedEndpoint, refusal
from eve_jax.data.sources.records import open_records
from tests.caption.scenes import write_images
from tests.launcher import launch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("command")
    write_images(target, 12)
    (target / "5.jpg").write_bytes(b"")
    return target


def command(folder: Path, out: Path, url: str, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
    arguments = ("--config=caption", f"--from={folder}/records.jsonl", f"--images={folder}", f"--to={out}")
    endpoint = (f"--config.endpoint.url={url}", "--config.endpoint.model=m")
    keys: dict[str, Any] = {"EVE_CAPTION_KEY": "", "OPENAI_API_KEY": "", "NO_PROXY": "127.0.0.1"}
    return launch("launch.caption", *arguments, *endpoint, *more, **(keys | env))


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    return done.stderr


def test_caption_then_read(folder: Path, tmp_path: Path) -> None:
    with ScriptedEndpoint() as endpoint:
        endpoint.keep_requests = True
        done = command(folder, tmp_path / "out", endpoint.url, EVE_CAPTION_KEY="sk-1")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            "12 records",
            "11 captioned (0 asked twice)",
            " 1 rejected, read: image",
            f"done: {tmp_path}/out",
        ]
        assert {asked.headers["authorization"] for asked in endpoint.requests} == {"Bearer sk-1"}
        for file in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
            assert b"sk-1" not in file.read_bytes(), file
        again = command(folder, tmp_path / "out", endpoint.url)
        assert again.stdout == done.stdout and sum(endpoint.received.values()) == 11
    assert len(open_records(str(tmp_path / "out"))) == 11
    shown = launch("launch.prepare_data", "inspect", str(tmp_path / "out"))
    assert shown.returncode == 0 and "11 records" in shown.stdout


def test_what_is_wrong_is_one_line_and_makes_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for changes, words in (
        (("--config.endpoint.url=", "--retry=sorver"), "--retry=sorver: expected any of refused, server, timeout"),
        (("--config.endpoint.url=http://u:pw@h/v1",), "give the key as EVE_CAPTION_KEY"),
        ((f"--from={folder}/none.jsonl",), "set --from to files that exist"),
    ):
        said = one_line(command(folder, out, "http://127.0.0.1:9/v1", *changes))
        assert words in said and "pw@" not in said, said
        assert not out.exists()


@pytest.mark.parametrize(("config", "what"), [("caption", "captions"), ("curate", "a curation")])
def test_what_is_no_config_to_train_with(tmp_path: Path, config: str, what: str) -> None:
    done = launch("launch.train", f"--config={config}", f"--workdir={tmp_path}/work")
    assert f"error: --config={config} is of {what}, for launch.{config} alone" in one_line(done)


def test_an_endpoint_that_refuses_the_key(folder: Path, tmp_path: Path) -> None:
    def script(asked: Asked) -> Reply:
        return refusal(401, f"Incorrect API key provided: {asked.headers['authorization'].removeprefix('Bearer ')}")

    with ScriptedEndpoint(script) as endpoint:
        said = one_line(command(folder, tmp_path / "out", endpoint.url, OPENAI_API_KEY="sk-secret"))
    assert "Incorrect API key provided: ***; the key is wrong or missing: set EVE_CAPTION_KEY or OPENAI_API_KEY" in said
    assert "sk-secret" not in said
