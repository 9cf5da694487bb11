"""A server of buckets for tests: what TensorStore asks of S3 and of Google Cloud Storage, with faults on request.

Objects are kept in memory, with preconditions, ranges and listings; `Buckets.fault` says which requests are refused.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "bkt"
S3_ERROR = "<Error><Code>{code}</Code><Message>{text}</Message></Error>"
UNMET = S3_ERROR.format(code="PreconditionFailed", text="a precondition did not hold")
FAULTS = {  # status and code of S3, of GCS
    "forbidden": (403, "AccessDenied", 403, "forbidden"),
    "gone": (404, "NoSuchBucket", 404, "notFound"),
    "full": (403, "QuotaExceeded", 403, "quotaExceeded"),
}


@dataclass
class Buckets:
    """The objects by key, each with its generation, and what is asked for. fault: of (method, key), "" for none."""

    objects: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    signed: list[str] = field(default_factory=list)  # the credentials of each request
    fault: Callable[[str, str], str] = lambda method, key: ""
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    last: int = 0

    @property
    def env(self) -> dict[str, str]:
        """Variables of the environment that lead here."""
        url = f"http://127.0.0.1:{self.port}"
        return {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_ENDPOINT_URL": url,
            "TENSORSTORE_GCS_HTTP_URL": url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
        }

    def put(self, key: str, data: bytes, allowed: Callable[[int], bool] = lambda generation: True) -> int:
        """Write an object if its present generation (0: none) is `allowed`; its new one, or 0."""
        with self.lock:
            if not allowed(self.objects.get(key, (b"", 0))[1]):
                return 0
            self.last += 1
            self.objects[key] = (data, self.last)
            return self.last

    def remove(self, key: str, allowed: Callable[[int], bool] = lambda generation: True) -> bool:
        """Remove an object if its present generation is `allowed`."""
        with self.lock:
            if key not in self.objects or not allowed(self.objects[key][1]):
                return False
            del self.objects[key]
            return True


@contextmanager
def serving() -> Iterator[Buckets]:
    """Serve in the block."""
    buckets = Buckets()
    handler = type("Handler", (_Handler,), {"buckets": buckets})
    server = _Server(("127.0.0.1", 0), handler)
    buckets.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield buckets
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 128


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # which holds the body of an answer back until its head has arrived
    buckets: Buckets

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def setup(self) -> None:
        super().setup()
        self.body, self.cut = b"", False

    def _any(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        gcs = url.path.startswith(("/storage/", "/upload/"))
        bucket, key = self._named(url.path, query, gcs)
        self.buckets.asked.append((self.command, key))
        self.buckets.signed.append(self.headers.get("Authorization", ""))
        fault = self.buckets.fault(self.command, key) or ("" if bucket == BUCKET else "gone")
        if fault == "full" and self.command == "HEAD":
            fault = ""  # which needs no room, and whose answers say no reason
        if fault == "reset":
            self.close_connection = True
            self.connection.close()
            return
        self.cut = fault == "cut"
        if fault.startswith("slow") or self.cut:
            time.sleep(0 if self.cut else float(fault[4:]))
            fault = ""
        if fault in FAULTS:
            s3_status, code, gcs_status, reason = FAULTS[fault]
            text = json.dumps({"error": {"code": gcs_status, "message": reason, "errors": [{"reason": reason}]}})
            self._answer(gcs_status if gcs else s3_status, text if gcs else S3_ERROR.format(code=code, text=code))
        elif gcs:
            self._gcs(key, query)
        else:
            self._s3(key, query)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _any

    def _named(self, path: str, query: dict[str, str], gcs: bool) -> tuple[str, str]:
        parts = path.lstrip("/").split("/")
        if not gcs:
            return parts[0], unquote("/".join(parts[1:]))
        parts = parts[parts.index("b") + 1 :]
        return parts[0], unquote("/".join(parts[2:])) or query.get("name", "")

    def _s3(self, key: str, query: dict[str, str]) -> None:
        if "list-type" in query:
            self._list_s3(query)
            return
        match, none_match = self.headers.get("If-Match"), self.headers.get("If-None-Match")

        def allowed(generation: int) -> bool:
            return (match is None or generation == _number(match)) and not (
                none_match is not None and (generation if none_match == "*" else generation == _number(none_match))
            )

        if self.command == "PUT":
            generation = self.buckets.put(key, self.body, allowed)
            self._answer(200 if generation else 412, "" if generation else UNMET, ETag=f'"{generation}"')
        elif self.command == "DELETE":
            there = key in self.buckets.objects
            removed = self.buckets.remove(key, allowed) or not there
            self._answer(204 if removed else 412, "" if removed else UNMET)
        else:
            self._read(key, allowed, "ETag", '"{}"')

    def _gcs(self, key: str, query: dict[str, str]) -> None:
        match, other = query.get("ifGenerationMatch"), query.get("ifGenerationNotMatch")

        def allowed(generation: int) -> bool:
            return (match is None or generation == int(match)) and (other is None or generation != int(other))

        if self.command == "POST":
            generation = self.buckets.put(key, self.body, allowed)
            about = json.dumps({"name": key, "generation": str(generation), "size": str(len(self.body))})
            self._answer(200 if generation else 412, about)
        elif self.command == "DELETE":
            there = key in self.buckets.objects
            self._answer(204 if self.buckets.remove(key, allowed) else 412 if there else 404)
        elif not key:
            self._list_gcs(query)
        elif query.get("alt") == "media":
            self._read(key, allowed, "x-goog-generation", "{}")
        else:
            data, generation = self.buckets.objects.get(key, (b"", 0))
            about = json.dumps({"name": key, "generation": str(generation), "size": str(len(data))})
            self._answer(404 if not generation else 200 if allowed(generation) else 304, about if generation else "")

    def _read(self, key: str, allowed: Callable[[int], bool], header: str, form: str) -> None:
        data, generation = self.buckets.objects.get(key, (b"", 0))
        if not generation:
            self._answer(404, S3_ERROR.format(code="NoSuchKey", text=key))
            return
        headers = {header: form.format(generation)}
        if not allowed(generation):
            self._answer(304, **headers)
            return
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(0, len(data) - int(last))
            stop = min(len(data), int(last) + 1) if first and last else len(data)
            if start >= len(data):
                self._answer(416)
                return
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            self._answer(206, data[start:stop], **headers)
            return
        self._answer(200, data, **headers)

    def _list_s3(self, query: dict[str, str]) -> None:
        start = query.get("continuation-token") or query.get("start-after", "")
        names = [k for k in sorted(self.buckets.objects) if k.startswith(query.get("prefix", "")) and k > start]
        page, more = names[:5], len(names) > 5  # few, so that pages are tried
        items = "".join(f"<Contents><Key>{escape(k)}</Key><Size>1</Size></Contents>" for k in page)
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        text = f"<KeyCount>{len(page)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>{items}{token}"
        self._answer(200, f'<?xml version="1.0"?><ListBucketResult>{text}</ListBucketResult>')

    def _list_gcs(self, query: dict[str, str]) -> None:
        start, end, token = query.get("startOffset", ""), query.get("endOffset", ""), query.get("pageToken", "")
        names = [k for k in sorted(self.buckets.objects) if k >= start and k > token and (not end or k < end)]
        names = [k for k in names if k.startswith(query.get("prefix", ""))]
        page, more = names[:5], len(names) > 5
        found: dict[str, object] = {"items": [{"name": k, "generation": "1", "size": "1"} for k in page]}
        self._answer(200, json.dumps(found | ({"nextPageToken": page[-1]} if more else {})))

    def _answer(self, status: int, body: str | bytes = b"", **headers: str) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(data[: len(data) // 2] if self.cut else data)
        self.close_connection = self.close_connection or self.cut


def _number(etag: str) -> int:
    number = etag.strip('"')
    return int(number) if number.isdecimal() else -1


SAID = {  # of a fault, in messages
    "forbidden": "access denied",
    "gone": "no such bucket or object",
    "full": "its quota is used up",
    "reset": "it cannot be reached",
}


def step(store: Buckets, key: str, number: int, whole: bool = True) -> None:
    """A checkpoint of two items."""
    names = {"params/d/1": b"p%d" % number, "optimizer/o": b"o%d" % number}
    for name, data in names.items():
        store.put(f"{key}/checkpoints/{number}/{name}", data)
    store.put(f"{key}/checkpoints/{number}/_METADATA", b"{}")
    store.put(f"{key}/checkpoints/{number}/params/left", b"of a killed save")
    if whole:
        store.put(f"{key}/checkpoints/{number}/manifest.json", json.dumps({"files": dict.fromkeys(names)}).encode())


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
