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
from eve_jax.serve.messages import read_messages
from eve_jax.serve.model import Served
from eve_jax.serve.process import Tls
from eve_jax.serve.settings import ServeSettings, keys_of, named
from tests.launcher import launch
from tests.serve.bodies import CHAT, HTTP, chat, user
from tests.serve.scripted import Scripted, serving
from tests.serve.test_guard import raw, rest

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


def test_the_path_of_a_proxy_without_its_slash_leads_to_the_page(eve: EVE) -> None:
    with serving(eve, Scripted(eve), ServeSettings(root_path="/a/eve", api_keys=("k",), quiet=True)) as address:
        given = HTTP.get(f"{address.url}/a/eve")
        assert (given.status_code, given.headers["location"]) == (307, "/a/eve/") and given.headers["x-request-id"]
        assert HTTP.get(address.url + given.headers["location"]).headers["content-type"].startswith("text/html")


def test_names_that_are_not_those_of_the_server(eve: EVE) -> None:
    """As of a page whose name was made to stand for this machine: its browser would let it read the answers."""
    settings = named(ServeSettings(hosts=("proxy.example",), quiet=True), "127.0.0.1", "Me.local")
    with serving(eve, Scripted(eve), settings) as address:
        for name in ("localhost", "LocalHost:8000", "127.0.0.1:1", "[::1]", "[::1]:80", "me.local", "proxy.example"):
            assert HTTP.get(f"{address.url}/health", headers={"Host": name}).status_code == 200, name
        assert HTTP.post(address.url + CHAT, json=chat()).status_code == 200  # as clients call it by default
        others = ("evil.com", "evil.com:8000", "127.0.0.1.evil.com", "localhost:a", "a@localhost", "::1", "x.me.local")
        for name in others:
            for path in ("/", "/health", "/v1/models", "/nothing"):
                given = HTTP.get(address.url + path, headers={"Host": name})
                assert given.status_code == 421 and given.json()["error"]["type"] == "MisdirectedRequestError", name
                assert "--allowed_hosts" in given.json()["error"]["message"]
        assert HTTP.post(address.url + CHAT, json=chat(), headers={"Host": "evil.com"}).status_code == 421
        assert rest(raw(address, b"GET /health HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200")  # a probe of a proxy


def test_a_server_of_this_machine_without_a_key_takes_its_own_names_alone() -> None:
    own = ("localhost", "127.0.0.1", "::1", "me.local")
    bare, key, told = ServeSettings(), ServeSettings(api_keys=("k",)), ServeSettings(hosts=("a.org",))
    for address in ("127.0.0.1", "127.8.0.1", "::1"):
        assert set(named(bare, address, "Me.local").hosts) == {*own, address}
        assert set(named(told, address, "Me.local").hosts) == {*own, address, "a.org"}
        assert named(key, address, "me.local").hosts == ()
    for address in ("0.0.0.0", "10.0.0.1", "::"):
        assert named(bare, address, "a").hosts == named(key, address, "a").hosts == ()
        assert named(told, address, "a").hosts == ("a.org",)


def test_a_context_without_room_for_a_chat(eve: EVE) -> None:
    least = len(Served(eve, ServeSettings(), 512).chat(read_messages([user("a")]), ()))
    assert [Served(eve, ServeSettings(), least + more).short_of() for more in (-1, 0, 1)] == [least, least, 0]


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
        *[("hosts", host, "--allowed_hosts") for host in ("https://a.org", "a.org:443", "a.org/", "*", "")],
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
