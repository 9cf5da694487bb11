"""A small stand-in for the Hugging Face hub: repositories in memory, served as huggingface_hub asks for them.

It knows what downloading, listing, reading by range and uploading (git and LFS, no Xet) need, and nothing else.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

RESOLVE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/(.+?)/(.+)")
API = re.compile(
    r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|preupload|commit)/([^/]+|refs/convert/[^/]+))?"
)
BATCH = re.compile(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch")


class Hub:
    """Repositories by kind (`models`, `datasets`) and id: commits, which hold files, and names of commits.

    asked: method, path and range ("") of every request. closed: requests that are answered with that status.
    """

    def __init__(self) -> None:
        self.commits: dict[tuple[str, str], dict[str, dict[str, bytes]]] = {}
        self.names: dict[tuple[str, str], dict[str, str]] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.private: set[str] = set()
        self.closed: Callable[[str], int] = lambda path: 0
        self.url = ""

    def add(self, id: str, files: Mapping[str, bytes] | Path, kind: str = "models", name: str = "main") -> str:
        """Make a commit of `files`, of a folder all that are in it, and the branch or tag `name` lead to it; returns
        the commit."""
        if isinstance(files, Path):
            every = [path for path in files.rglob("*") if path.is_file()]
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in every}
        known = self.commits.setdefault((kind, id), {})
        commit = hashlib.sha1(f"{kind} {id} {len(known)}".encode()).hexdigest()
        known[commit] = dict(files)
        self.names.setdefault((kind, id), {})[name] = commit
        return commit

    def files(self, id: str, kind: str = "models") -> dict[str, bytes]:
        """Return the files of the branch main."""
        return self.commits[kind, id][self.names[kind, id]["main"]]

    def ranges(self) -> list[str]:
        """Return the ranges that were asked for."""
        return [asked for _, _, asked in self.asked if asked]

    def commit_of(self, kind: str, id: str, revision: str) -> str | None:
        """Return the commit that a revision stands for."""
        key = (kind, id)
        found = self.names.get(key, {}).get(revision, revision)
        return found if found in self.commits.get(key, {}) else None


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """Serve `hub` while the block runs; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub.url
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if status := self.hub.closed(path):
            self._send(status, b"")
        elif found := RESOLVE.fullmatch(path):
            self._file(found[1] or "models", found[2], found[3], found[4])
        elif found := API.fullmatch(path):
            self._api(found[1], found[2], found[3] or "revision", found[4] or "main", body)
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif found := BATCH.fullmatch(path):
            self._batch(json.loads(body))
        elif path.startswith("/blobs/"):
            self.hub.blobs[path.removeprefix("/blobs/")] = body
            self._send(200, b"")
        else:
            self._send(404, b"", {"X-Error-Message": f"the stand-in does not know {path}"})

    def _file(self, kind: str, id: str, revision: str, name: str) -> None:
        commit = self.hub.commit_of(kind, id, revision)
        if commit is None or name not in self.hub.commits[kind, id][commit]:
            code = (
                "EntryNotFound" if commit else "RevisionNotFound" if (kind, id) in self.hub.commits else "RepoNotFound"
            )
            return self._send(404, b"", {"X-Error-Code": code})
        data = self.hub.commits[kind, id][commit][name]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_sha(data)}"', "Accept-Ranges": "bytes"}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d+)?", self.headers.get("Range", "")):
            first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            return self._send(206, data[first : last + 1], headers)
        self._send(200, data, headers)

    def _api(self, kind: str, id: str, what: str, revision: str, body: bytes) -> None:
        commit = self.hub.commit_of(kind, id, revision)
        if commit is None:
            code = "RevisionNotFound" if (kind, id) in self.hub.commits else "RepoNotFound"
            return self._send(404, b"{}", {"X-Error-Code": code})
        files = self.hub.commits[kind, id][commit]
        if what == "revision":
            self._json({"id": id, "sha": commit, "siblings": [{"rfilename": name} for name in files], "tags": []})
        elif what == "tree":
            rows = [{"type": "file", "path": k, "size": len(v), "oid": _sha(v)} for k, v in files.items()]
            self._json(rows)
        elif what == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith((".safetensors", ".png")) else "regular" for name in names}
            self._json({"files": [{"path": k, "uploadMode": v, "shouldIgnore": False} for k, v in modes.items()]})
        else:
            commit = self.hub.add(id, self._committed(dict(files), body), kind)
            self._json(
                {"commitUrl": f"{self.hub.url}/{id}/commit/{commit}", "commitOid": commit, "pullRequestUrl": None}
            )

    def _committed(self, files: dict[str, bytes], body: bytes) -> dict[str, bytes]:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        return files

    def _create(self, asked: dict[str, Any]) -> None:
        id = f"{asked['organization']}/{asked['name']}"
        kind = f"{asked.get('type') or 'model'}s"
        status = 409 if (kind, id) in self.hub.commits else 200
        if status == 200:
            self.hub.add(id, {}, kind)
            if asked.get("private") or asked.get("visibility") == "private":
                self.hub.private.add(id)
        self._json({"url": f"{self.hub.url}/{id}", "name": id}, status)

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {
                "oid": one["oid"],
                "size": one["size"],
                "actions": {"upload": {"href": f"{self.hub.url}/blobs/{one['oid']}"}},
            }
            for one in asked["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | dict(headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _sha(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
