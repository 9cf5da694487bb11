"""The ASGI application: routes behind the guard, warm-up at the start, the end of running answers at the stop."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from eve_jax.serve.api import Api, State
from eve_jax.serve.guard import Guard
from eve_jax.serve.images import ImageReader
from eve_jax.serve.metrics import Metrics
from eve_jax.serve.model import Served
from eve_jax.serve.openapi import description
from eve_jax.serve.page import Page
from eve_jax.serve.problem import Problem
from eve_jax.serve.runner import Scheduling

TELLING = 5.0  # seconds between two lines about the start
OPEN = ("/health", "/metrics", "/openapi.json")  # next to the page's files: no key is needed


class Application(NamedTuple):
    """An ASGI application, and whether it takes questions."""

    app: ASGIApp
    state: State

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def build(served: Served, scheduler: Scheduling, reader: ImageReader | None = None) -> Application:
    """Return the application, which takes questions once `scheduler` has warmed up."""
    settings, state = served.settings, State()
    reader = reader or ImageReader(settings)
    metrics = Metrics(served.name, scheduler, reader.cache)
    api = Api(served, scheduler, metrics, reader, state)
    page, described = Page(), description(settings.root_path)

    async def openapi(request: Request) -> Response:
        return JSONResponse(described)

    posts: dict[str, Any] = {
        "/v1/chat/completions": api.chat,
        "/v1/completions": api.completions,
        "/v1/images/grid": api.grid,
        "/tokenize": api.tokenize,
    }
    gets: dict[str, Any] = {
        "/v1/models": api.models,
        "/v1/models/{name:path}": api.one_model,
        "/health": api.health,
        "/metrics": api.figures,
        "/openapi.json": openapi,
        **dict.fromkeys(page.files, page),
    }
    routes = [Route(path, _plain(end), methods=["POST"]) for path, end in posts.items()]
    routes += [Route(path, _plain(end), methods=["GET"]) for path, end in gets.items()]
    router = _Router(routes, default=_not_found, redirect_slashes=False, lifespan=_lifespan(scheduler, state))
    known = {*posts, *gets}
    app: ASGIApp = Guard(
        router,
        settings,
        metrics,
        is_open=lambda path: path in OPEN or path in page.files,
        handler=lambda path: path if path in known else "/v1/models" if path.startswith("/v1/models/") else "other",
    )
    if settings.origins:
        app = CORSMiddleware(
            app, allow_origins=list(settings.origins), allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    return Application(app, state)


class _Router(Router):
    """Raises HTTPException for a method that a path does not have, as it does inside of an application."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("app", self)
        await super().__call__(scope, receive, send)


def _plain(endpoint: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """Return a function of what may be an object that is called: Starlette takes the latter for an application."""

    async def call(request: Request) -> Any:
        return await endpoint(request)

    return call


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        raise Problem("there is no such path here", status=404)


def _lifespan(scheduler: Scheduling, state: State) -> Callable[[Any], Any]:
    told = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() > told + TELLING or done == total:
            told = time.monotonic()
            state.say(f"compiling: {done} of {total} programs")

    def begin() -> None:
        try:
            scheduler.warm_up(progress)
            state.compiled()
            scheduler.start()
            state.ready = True
            state.say("ready")
        except BaseException as error:
            state.failure = error
            state.failed()

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        threading.Thread(target=begin, name="eve-warm-up", daemon=True).start()
        yield
        state.stopping = True
        if state.ready:
            await asyncio.to_thread(scheduler.close, True)

    return lifespan
