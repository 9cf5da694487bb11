"""The endpoints: each reads its body, makes prompts and requests of it, and answers in the form that OpenAI's has."""

import asyncio
import re
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from eve_jax.data.image.rule import ImageRule
from eve_jax.data.text.encode import IMAGE_ID
from eve_jax.errors import UserError, amount
from eve_jax.infer.image_cache import Patches
from eve_jax.infer.prompt import Prompt
from eve_jax.infer.requests import Request
from eve_jax.infer.sampling import Sampling
from eve_jax.serve import fields
from eve_jax.serve.fields import Answering, ChatBody, CompletionBody, GridBody, TokenizeBody
from eve_jax.serve.images import Fits, ImageReader
from eve_jax.serve.messages import Conversation, ImageRef, read_messages
from eve_jax.serve.metrics import Metrics
from eve_jax.serve.model import Served, grid_facts
from eve_jax.serve.problem import Problem, busy, stopping
from eve_jax.serve.render import CompletionForm, Form, merged, usage
from eve_jax.serve.runner import Running, Scheduling
from eve_jax.serve.settings import ServeSettings
from eve_jax.serve.streams import Answers, Choice, EventStream, unless_gone

T = TypeVar("T")
Kind = TypeVar("Kind", bound=fields.Body)
LARGE = 65_536  # bytes of a body from which on it is parsed in a thread
FIELD = re.compile(r"\w+(?=[:=])")  # at the begin of a message: what it is about
BEFORE = 16  # tokens before an answer that its text may depend on


class State:
    """Whether questions are taken: once everything is compiled, until the server stops.

    compiled: called once everything is; failure: why the start failed, which `failed` is called for; say: prints for
    people.
    """

    def __init__(self) -> None:
        self.ready, self.stopping = False, False
        self.failure: BaseException | None = None
        self.failed: Callable[[], None] = lambda: None
        self.compiled: Callable[[], None] = lambda: None
        self.say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)

    def check(self) -> None:
        """Raise Problem when questions are not taken."""
        if self.stopping:
            raise stopping()
        if not self.ready:
            raise busy("the server is starting: it compiles its programs", 10)


class Api:
    """The endpoints of one server."""

    def __init__(self, served: Served, scheduler: Scheduling, metrics: Metrics, reader: ImageReader, state: State):
        self.served, self.scheduler, self.metrics, self.reader, self.state = served, scheduler, metrics, reader, state
        self.settings: ServeSettings = served.settings
        self.workers = ThreadPoolExecutor(self.settings.decoders, "eve-decode")
        self.fetchers = ThreadPoolExecutor(2 * self.settings.decoders, "eve-fetch")

    async def chat(self, request: HttpRequest) -> Any:
        """POST /v1/chat/completions."""
        self.state.check()
        body = await self._body(ChatBody, request)
        return await unless_gone(request.receive, self._chat(body, request))

    async def completions(self, request: HttpRequest) -> Any:
        """POST /v1/completions."""
        self.state.check()
        body = await self._body(CompletionBody, request)
        return await unless_gone(request.receive, self._completions(body, request))

    async def tokenize(self, request: HttpRequest) -> Response:
        """POST /tokenize."""
        body = await self._body(TokenizeBody, request)
        self.served.check(body.model)
        if (body.prompt is None) == (body.messages is None):
            raise Problem("give either prompt or messages", "prompt")
        if body.messages is not None:
            conversation = read_messages(body.messages)
            prompt = await unless_gone(request.receive, self._prompt(conversation, self.served.rule(body)))
        else:
            prompt = await self._threaded(self.served.text, body.prompt or "", body.add_special_tokens)
        tokens = prompt.ids.tolist()
        names = [self._token(token) for token in tokens] if body.return_token_strs else None
        limit = self.served.context
        return JSONResponse({"count": len(prompt), "max_model_len": limit, "tokens": tokens, "token_strs": names})

    async def models(self, request: HttpRequest) -> Response:
        """GET /v1/models."""
        return JSONResponse({"object": "list", "data": [self.served.facts(name) for name in self.settings.names]})

    async def one_model(self, request: HttpRequest) -> Response:
        """GET /v1/models/{id}."""
        name = request.path_params["name"]
        self.served.check(name)
        return JSONResponse(self.served.facts(name))

    async def grid(self, request: HttpRequest) -> Response:
        """POST /v1/images/grid."""
        body = await self._body(GridBody, request)
        self.served.check(body.model)
        self._check_sees()
        return JSONResponse(grid_facts(self.served.rule(body), self.served.layout, body.width, body.height))

    async def health(self, request: HttpRequest) -> Response:
        """GET /health."""
        self.state.check()
        return JSONResponse({"status": "ok"})

    async def figures(self, request: HttpRequest) -> Response:
        """GET /metrics."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _body(self, kind: type[Kind], request: HttpRequest) -> Kind:
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/json":
            raise Problem("the body must be JSON, sent with the header Content-Type: application/json", status=415)
        data = await request.body()
        if len(data) < LARGE:
            return fields.read(kind, fields.parse_json(data))
        return fields.read(kind, await self._threaded(fields.parse_json, data))

    async def _threaded(self, work: Callable[..., T], *args: Any) -> T:
        """The result of `work`, done by one of the threads that decode. Raises Problem for a UserError."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self.workers, partial(work, *args))
        except UserError as error:
            raise Problem(str(error)) from None

    def _check_sees(self) -> None:
        if not self.served.eve.sees:
            raise Problem("this model takes no images", "messages")

    async def _prompt(self, conversation: Conversation, rule: ImageRule) -> Prompt:
        """The prompt of a conversation, its images read at the same time."""
        refs, most = conversation.images, self.settings.max_images
        if len(refs) > most:
            raise Problem(
                f"{amount(len(refs), 'image')}: at most {amount(most, 'image')} may be given in a request", "image"
            )
        if refs:
            self._check_sees()
        fits = self.served.image_room()
        reading = [asyncio.ensure_future(self._image(ref, rule, fits)) for ref in refs]
        try:
            images = await asyncio.gather(*reading)
        finally:
            for one in reading:  # of no use once another cannot be read
                one.cancel()
        return await self._threaded(self.served.chat, conversation, images)

    async def _image(self, ref: ImageRef, rule: ImageRule, fits: Fits) -> Patches:
        if ref.url[:5].lower() == "data:":
            return await self._threaded(self.reader.read, ref, rule, fits)
        content = asyncio.get_running_loop().run_in_executor(self.fetchers, self.reader.content, ref)
        return await self._threaded(self.reader.sized, await content, ref, rule, fits)

    async def _chat(self, body: ChatBody, request: HttpRequest) -> Any:
        self._check(body)
        if (
            body.continue_final_message == body.add_generation_prompt
            and "add_generation_prompt" in body.model_fields_set
        ):
            raise Problem("add_generation_prompt is the opposite of continue_final_message", "add_generation_prompt")
        conversation = read_messages(body.messages, body.continue_final_message)
        prompt = await self._prompt(conversation, self.served.rule(body))
        prompts, strips = [prompt] * body.n, not conversation.begun
        body.messages = None  # images in base64, of no use while the answer is made
        ids = [prompt.ids.tolist()] * body.n if body.return_token_ids else []
        form = Form(self.served.name, self.served.eve.tokenizer, body.alternatives, ids)
        return await self._answer(body, request, form, prompts, strips)

    async def _completions(self, body: CompletionBody, request: HttpRequest) -> Any:
        self._check(body)
        made = [await self._threaded(self.served.text, given) for given in body.prompts]
        prompts = [prompt for prompt in made for _ in range(body.n)]
        ids = [prompt.ids.tolist() for prompt in prompts] if body.return_token_ids else []
        form = CompletionForm(self.served.name, self.served.eve.tokenizer, body.alternatives, ids)
        return await self._answer(body, request, form, prompts, strips=False)

    def _check(self, body: ChatBody | CompletionBody) -> None:
        self.served.check(body.model)
        body.check_together(self.served.temperature(body) == 0)

    async def _answer(
        self, body: ChatBody | CompletionBody, request: HttpRequest, form: Form, prompts: Sequence[Prompt], strips: bool
    ) -> Any:
        salt = f"{request.scope.get('salt', '')}:{body.cache_salt}"
        requests = [self._request(body, prompt, number % body.n, salt) for number, prompt in enumerate(prompts)]
        running = Running(self.scheduler, requests)
        decode = self.served.eve.tokenizer.decode
        befores = [None if strips else before_answer(prompt) for prompt in prompts]
        choices = [Choice(n, decode, body.stop, body.stop_token_ids, before) for n, before in enumerate(befores)]
        answers = Answers(running, choices, self.metrics)

        def used() -> dict[str, Any]:
            cached = sum(ticket.cached_tokens for ticket in running.tickets[:: body.n])
            return usage(sum(map(len, prompts[:: body.n])), answers.tokens, cached)

        try:
            await asyncio.to_thread(running.submit)
            if body.stream:
                return EventStream(self._events(body, form, answers, used), answers.close)
            pieces = [piece async for piece in answers.pieces()]
        except BaseException:
            answers.close()
            raise
        whole = [merged((p for p in pieces if p.index == index), index) for index in range(len(choices))]
        return JSONResponse(form.whole(whole, used()))

    def _request(self, body: ChatBody | CompletionBody, prompt: Prompt, number: int, salt: str) -> Request:
        """The request for one answer. Raises Problem."""
        eve, size = self.served.eve, self.served.eve.engine.cfg.vocab_size
        if any(token >= size for token in body.stop_token_ids):
            raise Problem(f"stop_token_ids: token ids are 0 to {size - 1}", "stop_token_ids")
        stops = (*([] if body.ignore_eos else eve.stop_ids), *body.stop_token_ids)
        most = self.served.room(prompt, body.max_tokens)
        try:
            sampling = self._sampling(body, number)
            sampling.check_vocabulary(size)
            chosen = tuple(dict.fromkeys(stops))
            return Request(prompt, most, sampling, chosen, body.min_tokens, body.alternatives, salt)
        except UserError as error:
            field = FIELD.match(str(error))
            raise Problem(str(error), field and field[0]) from None

    def _sampling(self, body: Answering, number: int) -> Sampling:
        """How the answer with this number is drawn; each has its own seed."""
        temperature = self.served.temperature(body)
        bias = {int(token): value for token, value in body.logit_bias.items()}
        rest: dict[str, Any] = {
            name: getattr(body, name) for name in ("presence_penalty", "frequency_penalty", "repetition_penalty")
        }
        if temperature:  # greedy answers have no use for the others
            seed = secrets.randbits(32) if body.seed is None else body.seed
            rest |= {"seed": (seed + number) % 2**32, "top_p": body.top_p, "min_p": body.min_p}
            rest |= {"top_k": max(body.top_k, 0), "temperature": temperature}
        return Sampling(**rest, logit_bias=tuple(bias.items()))

    async def _events(
        self, body: Answering, form: Form, answers: Answers, used: Callable[[], dict[str, Any]]
    ) -> AsyncIterator[dict[str, Any]]:
        for index in range(len(answers.choices)):
            if first := form.begin(index):
                yield first
        async for piece in answers.pieces():
            yield form.chunk(piece)
        if body.wants_usage:
            yield form.usage_chunk(used())

    def _token(self, token: int) -> str:
        return "<image>" if token == IMAGE_ID else self.served.eve.tokenizer.decode([token], skip_special=False)


def before_answer(prompt: Prompt) -> list[int]:
    """Return the last text tokens of a prompt, as many as the text of the next one may depend on."""
    ids = prompt.ids[-BEFORE:].tolist()
    return ids[len(ids) - ids[::-1].index(IMAGE_ID) :] if IMAGE_ID in ids else ids
