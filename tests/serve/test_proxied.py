"""Behind a proxy that adds a path, and by https; who may ask."""

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from eve_jax import EVE
from eve_jax.errors import UserError, name_fields
from eve_jax.serve.process import Tls
from eve_jax.serve.settings import ServeSettings, keys_of
from tests.launcher import launch
from tests.serve.bodies import CHAT, HTTP, chat
from tests.serve.scripted import Scripted, serving

NO_OPENSSL = "openssl is not installed: there is no certificate to test with"


def test_paths_below_that_of_a_proxy(eve: EVE) -> None:
    """Of a proxy that takes its path away, and of one that does not; keys are asked for all the same."""
    settings = ServeSettings(root_path="/a/eve", api_keys=("k",), quiet=True)
    with serving(eve, Scripted(eve), settings) as address:
        for root in ("", "/a/eve"):
            url = address.url + root
            assert HTTP.get(f"{url}/health").status_code == HTTP.get(f"{url}/").status_code == 200
            assert HTTP.get(f"{url}/openapi.json").json()["servers"] == [{"url": "/a/eve"}]
            assert HTTP.post(url + CHAT, json=chat()).status_code == 401
            assert HTTP.post(url + CHAT, json=chat(), headers={"Authorization": "Bearer k"}).status_code == 200
        for path in ("/a/eve/a/eve/health", "/a/evex/health", "/a/health", "/a/eve//health"):
            assert HTTP.get(address.url + path).status_code == 401


@pytest.mark.parametrize("root", ["eve", "/eve/", "/", "/a b", "/a//b", "/a?b"])
def test_paths_of_proxies_that_are_none(root: str) -> None:
    with pytest.raises(UserError, match=r"root_path='.*': expected a path such as /eve"):
        ServeSettings(root_path=root)


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        *[("api_keys", key, "empty or has white space") for key in ("", " zq", "zq\n", "zq 1")],
        *[("media_domains", host, "--media_domains") for host in ("https://a.org", "a.org:443", "a.org/", "*", "")],
        *[("names", names, "--served_model_name") for names in (("",), ("a", "b", "a"))],
        *[("origins", site, "--cors_origins") for site in ("a.org", "https://a.org/", "null", "https://*.org", "")],
    ],
)
def test_settings_that_nothing_could_equal(field: str, value: Any, what: str) -> None:
    given: dict[str, Any] = {field: ("right", value) if field == "api_keys" else (value,)}
    given |= {field: value} if field == "names" else {}
    with pytest.raises(UserError, match=what) as told, name_fields("--{}".format):
        ServeSettings(**given)
    assert "zq" not in str(told.value)  # keys are not shown


def test_settings_of_keys_hosts_and_sites() -> None:
    ServeSettings(
        api_keys=("k-é",),
        media_domains=("a.org", "a_b.c-d.example", "localhost", "10.0.0.1", "2001:db8::1"),
        origins=("*", "https://a.org", "http://localhost:8080", "http://[::1]:80"),
    )
    assert [keys_of(listed) for listed in ("", "a", " a , b,\n", ",")] == [[], ["a"], ["a", "b"], [""]]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if not shutil.which("openssl"):
        pytest.skip(NO_OPENSSL)
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, "-out", str(files[0]), "-keyout", str(files[1])], check=True, capture_output=True)
    return files


def test_https(eve: EVE, certificate: tuple[Path, Path]) -> None:
    tls = Tls(*map(str, certificate))
    tls.check()
    trusted = ssl.create_default_context(cafile=certificate[0])
    with (
        serving(eve, Scripted(eve), ServeSettings(quiet=True), tls=tls) as address,
        httpx.Client(verify=trusted, trust_env=False) as client,
    ):
        assert client.get(f"{address.url}/health").status_code == 200
        answer = client.post(address.url + CHAT, json=chat(stream=True))
        assert answer.status_code == 200 and answer.text.endswith("data: [DONE]\n\n")
        with pytest.raises(httpx.TransportError):
            client.get(f"{address.url.replace('https', 'http')}/health")


def test_certificates_that_cannot_be_used(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    own, key = map(str, certificate)
    other = tmp_path / "other.pem"
    protected = ["openssl", "ec", "-in", key, "-aes256", "-passout", "pass:secret", "-out", str(other)]
    subprocess.run(protected, check=True, capture_output=True)
    for tls in (Tls("/nowhere.pem"), Tls(own), Tls(own, own), Tls(key, key), Tls(own, str(other))):
        with pytest.raises(UserError, match=r"^--ssl_certfile=.*; name a certificate and its key without a password"):
            tls.check()
    done = launch("launch.serve", "--checkpoint=x", "--port=0", f"--ssl_keyfile={key}")
    assert done.returncode == 1 and "give --ssl_certfile as well" in done.stderr
    done = launch("launch.serve", "--checkpoint=x", "--port=0", f"--ssl_certfile={tmp_path / 'none.pem'}")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].endswith("in PEM")
    done = launch("launch.serve", "--checkpoint=x", "--port=0", "--root_path=eve")
    assert done.returncode == 1 and "--root_path='eve': expected a path" in done.stderr
