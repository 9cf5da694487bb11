"""Credentials of buckets are found where their vendors' tools find them, and nothing is said on the way."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from eve_jax.process import buckets, credentials
from eve_jax.process.buckets import Refused
from tests.buckets import Buckets

KEYS = "[{}]\naws_access_key_id = {}\naws_secret_access_key = secret\n"
SAID = b"E1130 14:28:45.503564    1327 AuthCredentialsProvider:6146] static: no profile\n"


@pytest.fixture
def home(tmp_path: Path, store: Buckets, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with profiles, on a machine without any other credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "GOOGLE_AUTH_TOKEN_FOR_TESTING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("GCE_METADATA_ROOT", "127.0.0.1:9")
    monkeypatch.setattr(buckets, "_search", credentials.Search())
    (tmp_path / "home" / ".aws").mkdir(parents=True)
    text = KEYS.format("default", "first") + KEYS.format("lab", "second")
    (tmp_path / "home" / ".aws" / "credentials").write_text(text)
    return tmp_path / "home"


@pytest.mark.parametrize(("profile", "key"), [("", "first"), ("lab", "second")])
def test_a_profile(
    profile: str, key: str, home: Path, store: Buckets, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("AWS_PROFILE", profile)
    buckets.write("s3://bkt/x", b"1")
    assert store.signed and all(f"Credential={key}/" in signed for signed in store.signed)
    assert capfd.readouterr().err == ""


ASK = """
from eve_jax.process import buckets
print(buckets.read_whole("SCHEME://bkt/x"))
try:
    buckets.read("SCHEME://bkt/y")
except buckets.Refused as error:
    print(error.strerror)
"""


@pytest.mark.parametrize(("scheme", "place"), [("s3", "profile other of ~/.aws"), ("gs", "gcloud auth application")])
def test_none(scheme: str, place: str, home: Path, store: Buckets) -> None:
    """A bucket that everyone may read is read; of another the refusal says what was missing.

    In a process of its own, since TensorStore keeps what it found on Google Cloud.
    """
    store.put("x", b"1")
    store.fault = lambda method, key: "forbidden" if key == "y" else ""
    command, env = [sys.executable, "-c", ASK.replace("SCHEME", scheme)], os.environ | {"AWS_PROFILE": "other"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert set(store.signed) == {""}
    first, refusal = done.stdout.splitlines()
    assert first == "b'1'"
    assert refusal.startswith("access denied; no credentials were found (") and place in refusal
    assert refusal.endswith("), so it was asked without")
    assert done.stderr == ""


def test_half_of_a_key(home: Path, store: Buckets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    with pytest.raises(Refused, match=r"no valid credentials \(.*Required environment variables"):
        buckets.read("s3://bkt/x")


def test_what_else_is_said_passes(capfd: pytest.CaptureFixture) -> None:
    """At once, whatever it is, and also of a process that outlives the search."""
    search, later = credentials.Search(), "import sys; input(); print('late', file=sys.stderr)"
    with search.first("s3", 1):
        child = subprocess.Popen([sys.executable, "-c", later], stdin=subprocess.PIPE)
        for text in (b"before\n", SAID, SAID[:20], SAID[20:], b"E0000 of others\n", b"no line"):
            os.write(2, text)
    assert capfd.readouterr().err == "before\nE0000 of others\nno line"
    with search.first("s3", 1):
        os.write(2, SAID)
    assert capfd.readouterr().err == SAID.decode()
    child.communicate(b"\n", timeout=60)
    limit = threading.Event()
    while not (found := capfd.readouterr().err):
        limit.wait(0.01)
    assert found == "late\n"
    assert search.lacking("s3") == ""
