"""The server in a thread of this process, for a model that is at hand: a process that holds an accelerator cannot have
a second one share it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import uvicorn

from eve_jax.infer.api import EVE
from eve_jax.infer.scheduler import Scheduler, SchedulerSettings
from eve_jax.serve import app, process
from eve_jax.serve.model import Served
from eve_jax.serve.settings import ServeSettings

LOOK = 0.05  # seconds between two looks at whether it is ready
DRAIN = 5.0  # seconds that running answers get at the end


@contextmanager
def served_here(eve: EVE, settings: ServeSettings, slots: SchedulerSettings) -> Iterator[str]:
    """Serve `eve` at a free port of 127.0.0.1 in the block, as `launch.serve` does; yield the API's address, up to /v1.

    Every program is compiled when the block begins. Raises what kept the model from being served.
    """
    served = Served(eve, settings, slots.context)
    application = app.build(served, Scheduler(eve.engine, replace(slots, context=served.context)))
    listener = process.listening("127.0.0.1", 0)
    server = process.Server(process.config(application, settings.header_time), DRAIN)
    state = application.state
    state.failed = lambda: setattr(server, "should_exit", True)
    state.say = lambda text: None
    thread = threading.Thread(target=uvicorn.Server.run, args=(server, [listener]), name="eve-server", daemon=True)
    thread.start()
    try:
        while not state.ready and thread.is_alive():
            time.sleep(LOOK)
        if state.failure is not None:
            raise state.failure
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
