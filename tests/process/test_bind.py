"""Where the coordinator listens, and what paths and names are never taken for something on the network."""

import socket
from pathlib import Path

import pytest

from eve_jax.errors import UserError
from eve_jax.process.cluster import bind_address
from eve_jax.process.paths import expand, expand_list
from tests.launcher import launch


def test_the_coordinator_listens_at_its_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bind_address("localhost:1234") == "localhost:1234"
    assert bind_address("127.0.0.1:1234") == "127.0.0.1:1234"
    there = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]  # of no machine
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: there)
    assert bind_address("service:1234") is None

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror("unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert bind_address("gone:1234") is None


REMOTE = ("gs://bucket/runs", "s3://bucket/x", "abfs+x://a", "file:///tmp/x", "https://example.org/x")


@pytest.mark.parametrize("path", REMOTE)
def test_paths_of_other_places_are_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gs:" / "bucket" / "runs").mkdir(parents=True)  # as an earlier version made it
    scheme = path.partition("://")[0]
    said = rf"^--to={path.replace('+', '.')}: paths of {scheme.replace('+', '.')}:// are not read or written( here)?; "
    with pytest.raises(UserError, match=said):
        expand(path, "--to")
    with pytest.raises(UserError, match="are not read or written"):
        expand_list(f"a.jsonl,{path}", "--records")


def test_a_bucket_in_capitals_is_told_how_it_is_written() -> None:
    with pytest.raises(UserError, match=r"^--to=GS://bucket/x: expected s3://BUCKET/KEY or gs://BUCKET/KEY"):
        expand("GS://bucket/x", "--to")


@pytest.mark.parametrize("path", ["hf://ORG/NAME", "https://huggingface.co/ORG/NAME"])
def test_places_on_the_hub_say_what_to_do(path: str) -> None:
    with pytest.raises(UserError, match=r"no such folder; hf:ORG/NAME or hf:ORG/NAME@REVISION is the hub's model"):
        expand(path, "--checkpoint")


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("launch.train", ("--config=stage1:llm=tiny", "--workdir=runs", "--config.train.local_dir={}")),
        ("launch.train", ("--config=stage1:llm=tiny", "--workdir=runs", "--config.data.records=tfds:{}")),
        ("launch.eval score", ("--answers={}",)),
        ("launch.chat", ("--checkpoint=x", "--image={}", "--prompt=what?")),
        ("launch.prepare_data show", ("--config=stage1:llm=tiny", "--workdir={}", "--out=x.html")),
    ],
)
def test_where_no_bucket_can_be_named(command: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    done = launch(*command.split(), *(flag.format("gs://bucket/x") for flag in flags), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert (
        "gs://bucket/x: paths of gs:// are not read or written here; mount it, or copy it to a local folder"
        in done.stderr
    )
    assert not list(tmp_path.iterdir())
