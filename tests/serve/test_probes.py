"""What each kind of request is answered with: status, the field that the error is about, and words of its message."""

import json
import re
from typing import Any
from urllib.parse import quote_from_bytes

import httpx
import pytest

from tests.serve.bodies import CHAT, TEXT, chat, image, png, text, uri, user
from tests.serve.scripted import Scripted

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
LONG = "x" * 4000
URL = "messages[1].content[0].image_url"


def ask(**more: Any) -> dict[str, Any]:
    return chat(**more)


TAKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "parts": (CHAT, chat([text(), image()])),
    "images between texts": (CHAT, chat([text("a"), image(), text("b"), image()])),
    "no model": (CHAT, chat()),
    "the second name": (CHAT, chat(model="eve-2")),
    "developer": (CHAT, {"messages": [{"role": "developer", "content": "S"}, user("a")]}),
    "nulls are absent": (CHAT, chat(max_tokens=None, stop=None, tools=None, stream=None, seed=None, n=None)),
    "unknown and ignored fields": (
        CHAT,
        chat(foo=1, user="me", metadata={"a": 1}, store=True, service_tier="auto", parallel_tool_calls=True),
    ),
    "neutral values of what is refused": (
        CHAT,
        chat(
            tools=[], tool_choice="none", response_format={"type": "text"}, reasoning_effort="low", modalities=["text"]
        ),
    ),
    "detail": (CHAT, chat([image(detail="high"), text()])),
    "four stops": (CHAT, chat(stop=["a", "b", "c", "d"])),
    "both limits": (CHAT, chat(max_tokens=100_000, max_completion_tokens=5)),
    "greedy with settings of draws": (CHAT, chat(temperature=0, top_p=0.5, top_k=5, min_p=0.1)),
    "extensions": (
        CHAT,
        chat(top_k=-1, min_p=0.1, stop_token_ids=[1], ignore_eos=True, min_tokens=2, max_tokens=4, cache_salt="a"),
    ),
    "penalties": (CHAT, chat(presence_penalty=1, frequency_penalty=-2, repetition_penalty=1.1, logit_bias={"5": -100})),
    "a seed of 64 bits": (CHAT, chat(seed=-(2**63))),
    "JPEG that is called PNG": (CHAT, chat([image(uri(png(kind="JPEG"))), text()])),
    "PNG that is called text": (CHAT, chat([image(uri(png(), "text/plain")), text()])),
    "a data URI in capitals": (CHAT, chat([image(uri(png()).replace("data:image/png", "DATA:IMAGE/PNG")), text()])),
    "base64 in lines": (CHAT, chat([image(re.sub("(.{60})", "\\1\n", uri(png()))), text()])),
    "a data URI in percents": (CHAT, chat([image("data:image/png," + quote_from_bytes(png())), text()])),
    "a data URI with a parameter": (CHAT, chat([image(uri(png(), "image/png;name=a.png")), text()])),
    "an assistant's turn": (CHAT, {"messages": [user("a"), {"role": "assistant", "content": "b"}, user("c")]}),
    "a continued answer": (
        CHAT,
        {
            "messages": [user("a"), {"role": "assistant", "content": "b"}],
            "continue_final_message": True,
            "add_generation_prompt": False,
        },
    ),
    "an image alone": (CHAT, chat([image()])),
    "a fit and a size": (CHAT, chat([image(), text()], fit="fill", max_size=96)),
    "a text": (TEXT, {"prompt": "a", "max_tokens": 3}),
    "texts": (TEXT, {"prompt": ["a", "b"], "max_tokens": 3}),
    "ids": (TEXT, {"prompt": [1, 2, 3], "max_tokens": 3}),
    "lists of ids": (TEXT, {"prompt": [[1], [2, 3]], "max_tokens": 3, "echo": False, "suffix": None, "best_of": 1}),
    "tokens of a text": ("/tokenize", {"prompt": "a"}),
    "tokens of a chat": ("/tokenize", {"messages": [user([text(), image()])]}),
    "a grid": ("/v1/images/grid", {"width": 100, "height": 90}),
}
REFUSED: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "no messages": ({}, "messages", "at least one"),
    "empty messages": ({"messages": []}, "messages", "at least one"),
    "messages of a text": ({"messages": "hi"}, "messages", "a list"),
    "content null": (chat(None), "messages", r"messages\[1\].content"),
    "content of a number": (chat(5), "messages", r"messages\[1\].content"),
    "an unknown role": ({"messages": [{"role": "tool", "content": "a"}]}, "messages", "role must be one of system"),
    "two turns of the user": ({"messages": [user("a"), user("b")]}, "messages", "alternate"),
    "a system sentence in the midst": (
        {"messages": [user("a"), {"role": "system", "content": "b"}, user("c")]},
        "messages",
        "alternate",
    ),
    "the assistant first": ({"messages": [{"role": "assistant", "content": "a"}, user("b")]}, "messages", "alternate"),
    "the assistant last": (
        {"messages": [user("a"), {"role": "assistant", "content": "b"}]},
        "messages",
        "must be the user's",
    ),
    "an empty question": (chat("  "), "messages", "empty"),
    "max_tokens 0": (ask(max_tokens=0), "max_tokens", "greater than or equal to 1"),
    "max_tokens -1": (ask(max_tokens=-1), "max_tokens", "greater"),
    "max_tokens over the context": (ask(max_tokens=513), "max_tokens", "so at most"),
    "max_tokens of a text": (ask(max_tokens="5"), "max_tokens", "valid integer"),
    "max_tokens true": (ask(max_tokens=True), "max_tokens", "valid integer"),
    "temperature -1": (ask(temperature=-1), "temperature", "greater"),
    "temperature 3": (ask(temperature=3), "temperature", "less"),
    "top_p 0": (ask(top_p=0), "top_p", "greater"),
    "top_p 2": (ask(top_p=2), "top_p", "less"),
    "top_k -2": (ask(top_k=-2), "top_k", "greater"),
    "five stops": (ask(stop=list("abcde")), "stop", "at most 4 items"),
    "an empty stop": (ask(stop=""), "stop", "at least 1"),
    "top_logprobs alone": (ask(top_logprobs=2), "top_logprobs", "needs logprobs"),
    "top_logprobs 21": (ask(logprobs=True, top_logprobs=21), "top_logprobs", "less"),
    "stream_options alone": (ask(stream_options={"include_usage": True}), "stream_options", "needs stream"),
    "n of a greedy answer": (ask(n=2, temperature=0), "n", "all the same"),
    "n 9": (ask(n=9), "n", "less"),
    "response_format json": (ask(response_format={"type": "json_object"}), "response_format", "constrained"),
    "response_format schema": (
        ask(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}),
        "response_format",
        "constrained",
    ),
    "response_format unknown": (ask(response_format={"type": "x"}), "response_format", "constrained"),
    "tools": (ask(tools=[TOOL]), "tools", "not supported"),
    "tool_choice": (ask(tool_choice="auto"), "tool_choice", "not supported"),
    "functions": (ask(functions=[{}]), "functions", "not supported"),
    "echo": (ask(echo=True), "echo", "not given back"),
    "beam search": (ask(use_beam_search=True), "use_beam_search", "not supported"),
    "guided": (ask(guided_regex="a+"), "guided_regex", "constrained"),
    "a logit_bias of words": (ask(logit_bias={"a": 1}), "logit_bias", "token ids"),
    "a logit_bias of a token twice": (ask(logit_bias={"5": 1, "05": 2}), "logit_bias", "twice"),
    "a logit_bias of no token": (ask(logit_bias={"99999": 1}), "logit_bias", "not one of the model's"),
    "a stop token of no token": (ask(stop_token_ids=[99999]), "stop_token_ids", "0 to"),
    "min_tokens over max_tokens": (ask(min_tokens=5, max_tokens=4), "min_tokens", "more than"),
    "min_tokens over the room": (ask(min_tokens=500), "min_tokens", "0 to max_new_tokens|more than"),
    "bad base64": (chat([image("data:image/png;base64,%%%")]), URL, "not valid base64"),
    "no base64 at all": (chat([image("data:image/png")]), URL, "data:image/png;base64"),
    "base64 of URLs": (chat([image("data:image/png;base64,_-_-")]), URL, "not valid base64"),
    "base64 without its end": (chat([image(uri(png())[:-5])]), URL, "not valid base64|no image|cannot be decoded"),
    "base64 after its end": (chat([image(uri(b"hello") + "aGVsbG8=")]), URL, "not valid base64"),
    "base64 that is not called so": (chat([image(uri(png()).replace(";base64", ""))]), URL, "no image"),
    "an image that is a page": (chat([image(uri(b"<svg xmlns='http://www.w3.org/2000/svg'/>"))]), URL, "no image"),
    "a data URI in a data URI": (chat([image("data:data:image/png;base64,aGVsbG8=")]), URL, "no image"),
    "a scheme of scripts": (chat([image("javascript:alert(1)")]), URL, "send a data URI"),
    "bytes that are no image": (chat([image(uri(b"hello"))]), URL, "no image that can be read"),
    "half an image": (chat([image(uri(png(kind="PNG", width=300)[:-30]))]), URL, "cannot be decoded$"),
    "an image that is a program": (chat([image(uri(b"%!PS-Adobe-3.0 EPSF-3.0\n" * 9))]), URL, "no image"),
    "an empty image": (chat([image("data:image/png;base64,")]), URL, "no image"),
    "a URL": (chat([image("https://example.com/a.png")]), URL, "send a data URI"),
    "a file": (chat([image("file:///etc/passwd")]), URL, "send a data URI"),
    "an image_url of a text": (chat([{"type": "image_url", "image_url": "data:,"}]), "messages", "an object"),
    "a wrong detail": (chat([image(detail="best")]), "messages", "auto, low, high or original"),
    "four images": (chat([image()] * 4), "image", "at most 3"),
    "audio": (chat([{"type": "input_audio", "input_audio": {}}]), "messages", r"at most 0 audio"),
    "a video": (chat([{"type": "video_url", "video_url": {"url": "data:,"}}]), "messages", "at most 0 video"),
    "a file part": (chat([{"type": "file", "file": {}}]), "messages", "at most 0 files"),
    "an unknown part": (chat([{"type": "x"}]), "messages", "text or image_url"),
    "an image of the system": (
        {"messages": [{"role": "system", "content": [image()]}, user("a")]},
        "messages",
        "user's",
    ),
    "tool calls": (
        {"messages": [user("a"), {"role": "assistant", "content": "b", "tool_calls": [{}]}, user("c")]},
        "messages",
        "not supported",
    ),
    "a prompt that is too long": (chat(LONG), "input_tokens", "4,0"),
    "a prompt that is far too long": (chat(LONG * 5000), "input_tokens", "tokens"),
    "images that are too long": (chat([image(uri(png(800, 800)))] * 2), "input_tokens", "image tokens included"),
    "a wrong fit": (chat([image()], fit="x"), "fit", "'fill' or 'shrink'"),
    "a wrong size": (chat([image()], max_size=7), "max_size", "expected at least 32"),
    "no size": (chat([image()], max_size=0), "max_size", "expected at least 32"),
    "a negative size": (chat([image()], max_size=-1), "max_size", "expected at least 32"),
    "half a character": (chat("\ud800"), None, "not valid JSON"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken(client: httpx.Client, told: Scripted, name: str) -> None:
    path, body = TAKEN[name]
    given = client.post(path, json=body)
    assert given.status_code == 200, given.text
    assert given.headers["content-type"] == "application/json"
    if path == CHAT:
        (choice,) = given.json()["choices"]
        assert choice["message"]["role"] == "assistant" and choice["message"]["content"]
        assert choice["finish_reason"] in ("stop", "length")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(client: httpx.Client, told: Scripted, name: str) -> None:
    body, param, words = REFUSED[name]
    given = client.post(CHAT, content=json.dumps(body), headers={"Content-Type": "application/json"})
    check(given, 400, "BadRequestError", param, words)
    assert not told.requests, "nothing is asked"


def check(given: httpx.Response, status: int, kind: str, param: str | None, words: str) -> None:
    """Assert the whole error body."""
    assert given.status_code == status, given.text
    (error,) = given.json().values()
    message = error.pop("message")
    assert error == {"type": kind, "param": param, "code": status}, message
    assert re.search(words, message), message
    assert not re.search(r"Error\b|Traceback|/work|/tmp|\.py|eve_jax", message)


@pytest.mark.parametrize(
    "body",
    [b"{", b"[1]", b"5", b"", b"null", b'{"messages": NaN}', b"\xff\xfe", b"[" * 100_000, b'{"n":' + b"9" * 5000],
)
def test_bodies_that_are_no_object(client: httpx.Client, body: bytes) -> None:
    given = client.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    check(given, 400, "BadRequestError", None, "JSON")


def test_two_values_of_one_name(client: httpx.Client, told: Scripted) -> None:
    whole = json.dumps(chat(max_tokens=2))
    body = whole[:-1] + ', "max_tokens": 3}'
    given = client.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    check(
        given, 400, "BadRequestError", None, r"JSON in UTF-8 \('max_tokens' stands there twice, with different values\)"
    )
    assert not told.requests


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_bodies_that_are_not_called_json(client: httpx.Client, kind: str | None) -> None:
    given = client.post(CHAT, content=json.dumps(chat()), headers={"Content-Type": kind} if kind else {})
    check(given, 415, "BadRequestError", None, "Content-Type: application/json")


def test_models_and_paths_that_are_not_there(client: httpx.Client) -> None:
    check(client.post(CHAT, json=chat(model="gpt")), 404, "NotFoundError", "model", "'gpt' does not exist")
    check(client.get("/v1/models/gpt"), 404, "NotFoundError", "model", "does not exist")
    check(client.get("/v1/nothing"), 404, "NotFoundError", None, "no such path")
    check(client.get(CHAT), 405, "MethodNotAllowedError", None, "GET is not allowed")
    assert client.get(CHAT).headers["allow"] == "POST"
    check(client.delete("/v1/models"), 405, "MethodNotAllowedError", None, "DELETE")
    assert client.options(CHAT).status_code == 405, "CORS is off"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [-200]}, "prompt"),
        ({"prompt": [10**6]}, "prompt"),
        ({"prompt": ["a"] * 17}, "prompt"),
        ({"prompt": ["a"] * 16, "n": 3}, "n"),
        ({"prompt": LONG}, "input_tokens"),
        ({"prompt": [1] * 600}, "input_tokens"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
    ],
)
def test_completions_that_are_refused(client: httpx.Client, body: dict[str, Any], param: str) -> None:
    check(client.post(TEXT, json=body), 400, "BadRequestError", param, ".")


def test_facts(client: httpx.Client) -> None:
    listed = client.get("/v1/models/").json()  # a slash at the end does no harm
    assert listed["object"] == "list" and [one["id"] for one in listed["data"]] == ["eve", "eve-2"]
    one = client.get("/v1/models/eve-2").json()
    assert one == listed["data"][1]
    assert {
        "object": "model",
        "owned_by": "eve_jax",
        "max_model_len": 512,
        "default_max_tokens": 512,
    }.items() <= one.items()
    assert one["images"] == {
        "mode": "anyratio_ld",
        "fit": "shrink",
        "max_size": 800,
        "max_aspect": 0.0,
        "patch": 32,
        "max_images": 3,
        "max_pixels": 64_000_000,
        "formats": ["png", "jpeg", "webp", "gif", "bmp", "tiff"],
        "urls": False,
    }
    assert client.get("/health").json() == {"status": "ok"}
    described = client.get("/openapi.json").json()
    assert {CHAT, TEXT, "/v1/images/grid", "/tokenize", "/health"} <= described["paths"].keys()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"width": 96, "height": 64}, (2, 3, 9, 800)),
        ({"width": 96, "height": 64, "fit": "fill", "max_size": 320}, (9, 13, 127, 320)),
        ({"width": 5000, "height": 5, "max_size": 64}, (1, 63, 65, 64)),
    ],
)
def test_grid(client: httpx.Client, body: dict[str, Any], expected: tuple[int, int, int, int]) -> None:
    found = client.post("/v1/images/grid", json=body).json()
    assert (found["rows"], found["columns"], found["tokens"], found["max_size"]) == expected
    assert (found["width"], found["height"]) == (found["columns"] * 32, found["rows"] * 32)
    check(client.post("/v1/images/grid", json={"width": 0, "height": 1}), 400, "BadRequestError", "width", "greater")


def test_tokens_of_a_chat_are_those_of_its_prompt(client: httpx.Client, told: Scripted) -> None:
    body = chat([text("<image>"), image(uri(png(96, 64))), text("b")])
    found = client.post("/tokenize", json=body | {"return_token_strs": True}).json()
    used = client.post(CHAT, json=body).json()["usage"]["prompt_tokens"]
    assert found["count"] == used == len(told.requests[0].prompt) and found["max_model_len"] == 512
    assert found["tokens"].count(-200) == 1 and found["tokens"] == told.requests[0].prompt.ids.tolist()
    spoken = "".join(found["token_strs"])  # images of this model go first
    assert spoken == "S USER: <image>\n<image>\n\nb ASSISTANT:"
    assert found["count"] == len(found["tokens"]) - 1 + 9
