"""Answers whole and in streams, of chats and completions, by HTTP and by the openai client."""

from collections.abc import Iterator
from itertools import chain

import httpx
import openai
import pytest

from eve_jax import EVE
from eve_jax.serve.settings import ServeSettings
from tests.serve.bodies import CHAT, HTTP, TEXT, chat, events, image, png, text, uri, user
from tests.serve.scripted import SAID, Address, Scripted, serving, wait_for


@pytest.fixture(scope="module")
def api(shared: Address) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{shared.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_an_answer_and_its_stream_are_the_same(client: httpx.Client, told: Scripted) -> None:
    body = chat([image(), text()], seed=5, temperature=0.5, logprobs=True, top_logprobs=2, return_token_ids=True)
    whole = client.post(CHAT, json=body)
    streamed = client.post(CHAT, json=body | {"stream": True, "stream_options": {"include_usage": True}})
    assert streamed.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert whole.headers["x-request-id"] != streamed.headers["x-request-id"]
    answer, (first, *rest, last, use) = whole.json(), events(streamed.text)
    (choice,) = answer["choices"]
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert {one["id"] for one in (first, *rest, last, use)} == {first["id"]}
    assert {one["object"] for one in (first, *rest, last)} == {"chat.completion.chunk"}
    pieces = [one["choices"][0] for one in (*rest, last)]
    assert "".join(piece["delta"]["content"] for piece in pieces) == choice["message"]["content"] == SAID.strip()
    assert [piece["finish_reason"] for piece in pieces] == [None] * len(rest) + ["stop"]
    assert [*chain.from_iterable(piece["token_ids"] for piece in pieces)] == choice["token_ids"] == told.said
    assert choice["prompt_token_ids"] == told.requests[0].prompt.ids.tolist()
    assert [*chain.from_iterable(piece["logprobs"]["content"] for piece in pieces)] == choice["logprobs"]["content"]
    assert use["choices"] == [] and use["usage"] == answer["usage"]
    prompt = len(told.requests[0].prompt)
    assert answer["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": len(told.said),
        "total_tokens": prompt + len(told.said),
        "prompt_tokens_details": {"cached_tokens": 5},
    }
    one, other = told.requests
    assert one.sampling == other.sampling and one.sampling.seed == 5 and one.logprobs == 2


def test_log_probabilities_have_the_bytes_of_tokens(client: httpx.Client, told: Scripted) -> None:
    body = chat(logprobs=True, top_logprobs=1)
    content = client.post(CHAT, json=body).json()["choices"][0]["logprobs"]["content"]
    assert bytes([*chain.from_iterable(token["bytes"] for token in content)]).decode() == SAID
    assert content[2] == {
        "token": "I",
        "logprob": -0.5,
        "bytes": [73],
        "top_logprobs": [{"token": "!", "logprob": -1.0, "bytes": [33]}],
    }
    assert client.post(CHAT, json=chat()).json()["choices"][0]["logprobs"] is None


@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_end_an_answer_and_its_request(client: httpx.Client, told: Scripted, stream: bool) -> None:
    told.pace = 0.005
    body = chat(stop=["bus", "xyz"], stream=stream)
    given = client.post(CHAT, json=body)
    if stream:
        choices = [one["choices"][0] for one in events(given.text)]
        content = "".join(choice["delta"]["content"] for choice in choices)
        end = choices[-1]
        assert [choice["finish_reason"] for choice in choices[:-1]] == [None] * (len(choices) - 1)
    else:
        (end,) = given.json()["choices"]
        content = end["message"]["content"]
        assert given.json()["usage"]["completion_tokens"] == len(told.eve.tokenizer.encode(SAID.partition(",")[0]))
    assert content == "It is a réd" and (end["finish_reason"], end["stop_reason"]) == ("stop", "bus")
    wait_for(lambda: told.reasons == ["cancelled"])


def test_limits_and_stop_tokens(client: httpx.Client, told: Scripted) -> None:
    short = client.post(CHAT, json=chat(max_tokens=5)).json()
    assert short["choices"][0]["message"]["content"] == "It" and short["usage"]["completion_tokens"] == 5
    assert short["choices"][0]["finish_reason"] == "length"
    client.post(CHAT, json=chat(max_completion_tokens=4, max_tokens=9))
    client.post(CHAT, json=chat(ignore_eos=True, max_tokens=60, min_tokens=3))
    client.post(CHAT, json=chat(stop_token_ids=[7]))
    client.post(CHAT, json=chat())
    second, ignoring, more, plain = told.requests[1:]
    assert second.max_new_tokens == 4
    assert (ignoring.stop_ids, ignoring.min_tokens, ignoring.max_new_tokens) == ((), 3, 60)
    assert more.stop_ids == (*told.eve.stop_ids, 7)
    assert plain.max_new_tokens == 512 - len(plain.prompt), "the default, as far as there is room"


def test_several_answers_have_seeds_of_their_own(client: httpx.Client, told: Scripted) -> None:
    given = client.post(CHAT, json=chat(n=3, seed=2**32 - 1, temperature=1, max_tokens=4)).json()
    assert [choice["index"] for choice in given["choices"]] == [0, 1, 2]
    assert given["usage"]["completion_tokens"] == 12
    assert given["usage"]["prompt_tokens"] == len(told.requests[0].prompt)
    assert sorted(request.sampling.seed for request in told.requests) == [0, 1, 2**32 - 1]
    streamed = events(client.post(CHAT, json=chat(n=2, stream=True, max_tokens=4)).text)
    ends = [c["index"] for one in streamed for c in one["choices"] if c["finish_reason"]]
    assert sorted(ends) == [0, 1]
    drawn = told.requests[-1].sampling
    assert drawn.temperature == 1.0 and drawn.seed != told.requests[-2].sampling.seed, "none given: drawn"


def test_settings_reach_the_scheduler(client: httpx.Client, told: Scripted) -> None:
    draws = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "seed": -1}
    others = {"presence_penalty": 0.5, "frequency_penalty": -0.5, "repetition_penalty": 1.2}
    client.post(CHAT, json=chat(**draws, **others, logit_bias={"5": 3, "2": -100}, cache_salt="s"))
    (request,) = told.requests
    assert {name: getattr(request.sampling, name) for name in (*draws, *others)} == draws | others | {"seed": 2**32 - 1}
    assert request.sampling.logit_bias == ((2, -100.0), (5, 3.0)) and request.salt == ":s" and request.logprobs == -1


def test_completions_take_prompts_as_they_are(client: httpx.Client, told: Scripted) -> None:
    body = {"prompt": ["a 图", "b"], "max_tokens": 3, "logprobs": 1, "n": 2}
    given = client.post(TEXT, json=body).json()
    assert [choice["index"] for choice in given["choices"]] == [0, 1, 2, 3] and given["object"] == "text_completion"
    prompts = [told.eve.tokenizer.decode(request.prompt.ids) for request in told.requests]
    assert prompts == ["a 图", "a 图", "b", "b"]
    choice = given["choices"][0]
    assert choice["text"] == "  I" and choice["finish_reason"] == "length"
    assert choice["logprobs"] == {
        "tokens": [" ", " ", "I"],
        "token_logprobs": [-0.5] * 3,
        "top_logprobs": [{"!": -1.0, " ": -0.5}] * 2 + [{"!": -1.0, "I": -0.5}],
        "text_offset": [0, 1, 2],
    }
    assert given["usage"]["prompt_tokens"] == len(told.eve.tokenizer.encode("a 图b"))
    streamed = events(client.post(TEXT, json={"prompt": [1, 2], "stream": True}).text)
    assert "".join(one["choices"][0]["text"] for one in streamed) == SAID, "with its white space"
    assert {one["object"] for one in streamed} == {"text_completion"}


def test_the_openai_client(api: openai.OpenAI, told: Scripted) -> None:
    assert [model.id for model in api.models.list()] == ["eve", "eve-2"]
    assert api.models.retrieve("eve").id == "eve"
    messages: list = [user([text("What?"), image(uri(png(kind="WEBP")))])]
    answer = api.chat.completions.create(model="eve", messages=messages, temperature=0, logprobs=True)
    assert answer.choices[0].message.content == SAID.strip() and answer.usage is not None
    assert answer.choices[0].logprobs is not None and answer.choices[0].logprobs.content
    stream = api.chat.completions.create(model="eve", messages=messages, stream=True)
    assert "".join(one.choices[0].delta.content or "" for one in stream) == SAID.strip()
    with api.chat.completions.stream(model="eve", messages=messages) as helper:
        assert helper.get_final_completion().choices[0].message.content == SAID.strip()
    assert api.completions.create(model="eve", prompt="a").choices[0].text == SAID
    with pytest.raises(openai.BadRequestError, match="temperature") as wrong:
        api.chat.completions.create(model="eve", messages=messages, temperature=3)
    assert (wrong.value.param, wrong.value.code, wrong.value.type) == ("temperature", "400", "BadRequestError")
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        api.models.retrieve("none")


def test_a_failure_is_an_error_before_and_an_event_after_the_first_byte(
    client: httpx.Client, told: Scripted, capfd: pytest.CaptureFixture[str]
) -> None:
    told.error = "layers.3 is NaN in /some/folder"
    whole = client.post(CHAT, json=chat())
    assert whole.status_code == 500 and whole.json()["error"]["type"] == "InternalServerError"
    streamed = client.post(CHAT, json=chat(stream=True))
    assert streamed.status_code == 200 and events(streamed.text)[-1] == whole.json()
    assert "folder" not in whole.text + streamed.text
    assert "layers.3 is NaN" in capfd.readouterr().err


def test_the_queue_may_be_full(api: openai.OpenAI, client: httpx.Client, told: Scripted) -> None:
    told.most = 0
    for stream in (False, True):
        given = client.post(CHAT, json=chat(stream=stream))
        assert given.status_code == 503 and given.headers["retry-after"] == "1"
        assert given.json()["error"]["type"] == "ServiceUnavailableError"
    told.most = 2
    assert client.post(CHAT, json=chat(n=3)).status_code == 503
    wait_for(lambda: not told.running)
    told.capacity = 2  # so that trying again would be of no use
    given = client.post(CHAT, json=chat(n=3))
    assert given.status_code == 400 and given.json()["error"]["param"] == "n"
    with pytest.raises(openai.InternalServerError):
        told.most = 0
        api.chat.completions.create(model="eve", messages=[{"role": "user", "content": "a"}])


def test_a_default_temperature_of_zero_is_greedy(eve: EVE) -> None:
    with serving(eve, Scripted(eve), ServeSettings(temperature=0.0, max_tokens=7, quiet=True)) as address:
        given = HTTP.post(address.url + CHAT, json=chat(top_p=0.5)).json()
        assert given["usage"]["completion_tokens"] == 7
        assert address.scheduler.requests[0].sampling.temperature == 0


def test_figures(client: httpx.Client, told: Scripted) -> None:
    def value(name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(name)))

    before = (
        value("vllm:generation_tokens_total{"),
        value('vllm:request_success_total{engine="0",finished_reason="stop"'),
    )
    client.post(CHAT, json=chat())
    assert value("vllm:generation_tokens_total{") == before[0] + len(told.said)
    assert value('vllm:request_success_total{engine="0",finished_reason="stop"') == before[1] + 1
    for name, expected in {"kv_cache_usage_perc": 0.1, "prefix_cache_hits_total": 3, "num_requests_running": 0}.items():
        assert value(f"vllm:{name}{{") == expected
    for bound, count in {"0.25": 1, "0.5": 3, "2.0": 6, "+Inf": 7}.items():
        assert value(f'eve:prompt_stall_blocks_bucket{{engine="0",le="{bound}"') == count
    assert value("eve:prompt_stall_blocks_sum{") == 20.5
    for name in ("time_to_first_token_seconds", "e2e_request_latency_seconds", "inter_token_latency_seconds"):
        assert value(f"vllm:{name}_count{{") > 0
