"""A scripted stand-in of the server: the page's files and the API that the page calls, without a model."""

import base64
import io
import json
import math
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

from eve_jax.data.image.rule import ImageRule

PAGE = Path(__file__).parents[3] / "eve_jax" / "serve" / "page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
RULE = ImageRule(mode="anyratio_hd", fit="shrink", max_size=800)
MODEL: dict[str, Any] = {
    "id": "eve-v2-demo",
    "object": "model",
    "created": 0,
    "owned_by": "eve_jax",
    "max_model_len": 4096,
    "default_max_tokens": 1024,
    "default_temperature": 1.0,
    "images": {
        "mode": RULE.mode,
        "fit": RULE.fit,
        "max_size": RULE.size,
        "max_aspect": RULE.max_aspect,
        "patch": RULE.patch,
        "max_images": 4,
        "max_pixels": 64_000_000,
        "formats": ["png", "jpeg", "webp", "gif", "bmp", "tiff"],
        "urls": False,
    },
}
# Tokens of an answer with their probabilities, and what else was likely.
Tokens = tuple[tuple[str, float, dict[str, float]], ...]
SEEN: Tokens = (
    ("A", 0.93, {"The": 0.05}),
    (" red", 0.81, {" small": 0.12, " bright": 0.03}),
    (" boat", 0.55, {" ship": 0.31, " house": 0.06}),
    (" on", 0.97, {" in": 0.02}),
    (" the", 0.99, {" a": 0.01}),
    (" water", 0.34, {" sea": 0.33, " lake": 0.29}),
    (".", 0.995, {",": 0.004}),
)
UNSEEN: Tokens = (
    ("I", 0.4, {"A": 0.3}),
    (" see", 0.7, {" cannot": 0.2}),
    (" gray", 0.1, {" nothing": 0.6}),
    (".", 0.9, {"!": 0.05}),
)
TEXT_ONLY: Tokens = (("Yes", 0.8, {"No": 0.1}), (".", 0.9, {"!": 0.05}))
HTML: Tokens = (("<b>", 0.5, {}), ("bold", 0.5, {}), ("</b>", 0.5, {}))
MARKS = {"bold": HTML}  # answers by a word of the question


@dataclass
class Script:
    """What the stand-in does next, and what it was asked."""

    key: str = ""  # of the API; "" asks for none
    model: dict[str, Any] = field(default_factory=lambda: dict(MODEL))
    refuse: list[tuple[int, str]] = field(default_factory=list)  # status and message of the next chat requests
    starting: bool = False  # 503 to everything
    pause: float = 0.0  # seconds before each token
    break_after: int = 0  # tokens after which a stream ends in an error; 0 = never
    answers: dict[str, Tokens] = field(default_factory=lambda: dict(MARKS))
    seen: Tokens = SEEN  # the answer about images
    unseen: Tokens = UNSEEN  # the answer about blank images
    asked: list[dict] = field(default_factory=list)  # bodies of chat requests
    sized: list[dict] = field(default_factory=list)  # bodies of grid requests
    left: int = 0  # streams that the client closed
    go: threading.Event = field(default_factory=threading.Event)  # streams wait for it after their first token

    def __post_init__(self) -> None:
        self.go.set()


def images_of(body: dict) -> list[Image.Image]:
    """The images of a chat request, decoded."""
    parts = [
        part for message in body["messages"] if isinstance(message["content"], list) for part in message["content"]
    ]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]


def is_blank(image: Image.Image) -> bool:
    return image.convert("RGB").getcolors(1) == [(image.width * image.height, (128, 128, 128))]


def question_of(body: dict) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def grid_of(body: dict) -> dict:
    """What the server says of an image's size."""
    rule = ImageRule(RULE.mode, body.get("fit", RULE.fit), body.get("max_size", RULE.size), RULE.max_aspect)
    rows, columns = rule.grid(body["width"], body["height"])
    return {
        "object": "image.grid",
        "rows": rows,
        "columns": columns,
        "width": columns * rule.patch,
        "height": rows * rule.patch,
        "patch": rule.patch,
        "tokens": rows * (columns + 1) + 1,
        "max_size": rule.size,
        "fit": rule.fit,
    }


def logprobs_of(token: str, probability: float, others: dict[str, float]) -> dict:
    def one(text: str, share: float) -> dict:
        return {"token": text, "logprob": math.log(share), "bytes": list(text.encode())}

    top = sorted({token: probability, **others}.items(), key=lambda pair: -pair[1])
    return {**one(token, probability), "top_logprobs": [one(*pair) for pair in top]}


class Handler(BaseHTTPRequestHandler):
    """Answers one request by the script of its server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "StandIn"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    @property
    def script(self) -> Script:
        return self.server.script

    def reply(self, status: int, content: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def json(self, value: dict, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.reply(status, json.dumps(value).encode(), "application/json", headers)

    def error(self, status: int, message: str) -> None:
        kind = {401: "AuthenticationError", 400: "BadRequestError"}.get(status, "ServerError")
        body = {"error": {"message": message, "type": kind, "param": None, "code": status}}
        self.json(body, status, {"Retry-After": "3"} if status == 503 else {})

    def is_refused(self) -> bool:
        """Whether the request was answered with an error of the script."""
        if self.script.starting:
            self.error(503, "The server is warming up")
        elif self.script.key and self.headers.get("Authorization") != f"Bearer {self.script.key}":
            self.error(401, "Wrong or missing API key")
        else:
            return False
        return True

    def do_GET(self) -> None:
        if self.path.startswith("/v1/"):
            if not self.is_refused():
                self.json({"object": "list", "data": [self.script.model]})
            return
        file = PAGE / (self.path.lstrip("/") or "index.html")
        if file.parent != PAGE or not file.is_file():
            self.error(404, "Not found")
            return
        headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
        self.reply(200, file.read_bytes(), TYPES[file.suffix], headers)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.is_refused():
            return
        if self.path == "/v1/images/grid":
            self.script.sized.append(body)
            self.json(grid_of(body))
            return
        self.script.asked.append(body)
        if self.script.refuse:
            self.error(*self.script.refuse.pop(0))
        elif body.get("stream"):
            self.stream(body)
        else:
            text = "".join(token for token, *_ in self.answer(body))
            self.json(
                {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
            )

    def answer(self, body: dict) -> Tokens:
        for word, answer in self.script.answers.items():
            if word in question_of(body):
                return answer
        images = images_of(body)
        return (self.script.unseen if all(map(is_blank, images)) else self.script.seen) if images else TEXT_ONLY

    def stream(self, body: dict) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            self.send_answer(body)
        except OSError:
            self.script.left += 1
        self.close_connection = True

    def event(self, data: dict | str) -> None:
        self.wfile.write(f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def chunk(self, delta: dict, finish: str | None = None, logprobs: list | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs and {"content": logprobs}}
        self.event({"object": "chat.completion.chunk", "model": self.script.model["id"], "choices": [choice]})

    def send_answer(self, body: dict) -> None:
        answer = self.answer(body)
        most = body.get("max_tokens", len(answer))
        self.chunk({"role": "assistant", "content": ""})
        for n, (text, probability, others) in enumerate(answer[:most]):
            if n == 1:
                while not self.script.go.wait(0.1):
                    self.wfile.write(b": waiting\n\n")  # finds out whether the client is still there
                    self.wfile.flush()
            if self.script.break_after and n == self.script.break_after:
                self.event(
                    {
                        "error": {
                            "message": "The model ran out of memory",
                            "type": "ServerError",
                            "param": None,
                            "code": 500,
                        }
                    }
                )
                self.event("[DONE]")
                return
            threading.Event().wait(self.script.pause)
            self.chunk(
                {"content": text}, logprobs=[logprobs_of(text, probability, others)] if body.get("logprobs") else None
            )
        self.chunk({}, "length" if most < len(answer) else "stop")
        tokens = sum(grid_of({"width": one.width, "height": one.height})["tokens"] for one in images_of(body))
        usage = {"prompt_tokens": tokens + 20, "completion_tokens": min(most, len(answer))}
        self.event({"choices": [], "usage": {**usage, "total_tokens": sum(usage.values())}})
        self.event("[DONE]")


class StandIn(ThreadingHTTPServer):
    """The stand-in on a free port of this machine; `script` may be exchanged at any time."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = Script()
        self.url = f"http://127.0.0.1:{self.server_port}/"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
