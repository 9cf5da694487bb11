"""An HTTP endpoint that gives the answers of a script, for tests of those who ask one."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Scripted(BaseHTTPRequestHandler):
    """Gives the answers of `script` in order, the last for ever, and keeps what was sent."""

    script: list[tuple[int, dict[str, str], bytes]]
    sent: list[tuple[Any, bytes]]

    def do_POST(self) -> None:
        self.sent.append((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
        status, headers, body = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@contextmanager
def scripted_endpoint() -> Iterator[tuple[str, type[Scripted]]]:
    """Yield the address of a scripted endpoint, and the class that holds its script."""
    handler = type("Handler", (Scripted,), {"script": [], "sent": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}/x", handler
        made.shutdown()
