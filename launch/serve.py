"""Serve a checkpoint over HTTP as the OpenAI API has it, with a page at /:

    python -m launch.serve --checkpoint=runs/demo/stage3 --port=8000

Takes a stage's folder, an import or a Hugging Face folder. /health answers 200 once every program is compiled. SIGTERM
or Ctrl-C lets running answers end. docs/serving.md has the endpoints, the fields of requests and the limits.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from eve_jax.batch import MOST_ROWS
from eve_jax.process.fetched import fetch
from eve_jax.process.places import shown
from launch._flags import as_flag, define_model, define_path, run

if TYPE_CHECKING:
    from eve_jax.infer.scheduler import SchedulerSettings
    from eve_jax.serve.settings import ServeSettings

CHECKPOINT_IS = "folder of a stage (at a step: FOLDER@STEP), an import, a Hugging Face folder, or ORG/NAME of the hub"
CHECKPOINT = define_path("checkpoint", None, CHECKPOINT_IS, remote=fetch)
HOST = flags.DEFINE_string("host", "127.0.0.1", "address to listen at; 0.0.0.0: all of this machine's")
PORT = flags.DEFINE_integer("port", 8000, "port to listen at", lower_bound=0, upper_bound=65535)
NAMES = flags.DEFINE_list("served_model_name", [], "names of the model in requests; default: the folder's name")
KEYS = flags.DEFINE_multi_string(
    "api_key", [], "key that requests need; may be given several times; the variable EVE_API_KEYS has further ones"
)
DOMAINS = flags.DEFINE_list("media_domains", [], "hosts whose images are fetched by URL; default: data URIs only")
ORIGINS = flags.DEFINE_list("cors_origins", [], "sites whose pages may use this server, such as https://a.org")
HOSTS = flags.DEFINE_list(
    "allowed_hosts",
    [],
    "names by which requests may call this server, such as that of a proxy; default: localhost and --host where it "
    "listens at a loopback address without a key, else any",
)
ROOT = flags.DEFINE_string("root_path", "", "what a proxy has before the server's paths, such as /eve")
CERTIFICATE = define_path("ssl_certfile", "", "PEM file of a certificate with its chain: https in place of http")
KEY = define_path("ssl_keyfile", "", "PEM file of its key, without a password; default: in --ssl_certfile")
SLOTS = flags.DEFINE_integer("slots", 8, "requests that are answered at a time", 1, MOST_ROWS)
CONTEXT = flags.DEFINE_integer(
    "context", 4096, "tokens of a prompt with its answer, at most the model's", lower_bound=2
)
CHUNK = flags.DEFINE_integer("chunk", 256, "tokens of prompts read between two blocks of decoding", lower_bound=16)
PREFER = flags.DEFINE_enum(
    "prefer", "latency", ["latency", "throughput"], "bounded waits within answers, or more tokens a second"
)
QUEUE = flags.DEFINE_integer("queue", 64, "requests that may wait; more are answered 503", lower_bound=0)
PREFIX = flags.DEFINE_integer("prefix_mib", 256, "memory of the device for earlier prompts, in MiB", lower_bound=0)
MAX_TOKENS = flags.DEFINE_integer("max_tokens", 1024, "longest answer of requests that give none", lower_bound=1)
TEMPERATURE = flags.DEFINE_float(
    "temperature", 1.0, "of requests that give none (as the OpenAI API); 0: greedy", lower_bound=0.0, upper_bound=2.0
)
MAX_IMAGES = flags.DEFINE_integer("max_images", 32, "images of a request", lower_bound=1)
MAX_PIXELS = flags.DEFINE_integer("max_pixels", 64_000_000, "pixels of an image file", lower_bound=1)
MAX_BODY = flags.DEFINE_integer("max_body_mib", 64, "size of a request in MiB", lower_bound=1)
DRAIN = flags.DEFINE_integer(
    "drain_time", 0, "seconds for answers to end after SIGTERM; 0: all they need", lower_bound=0
)
MODEL = define_model()  # how the checkpoint is opened
QUIET = flags.DEFINE_bool("quiet", False, "print no line for each request")
flags.mark_flag_as_required("checkpoint")


def main() -> None:
    from eve_jax.errors import UserError, install, name_fields
    from eve_jax.process.hub import refuse_empty

    refuse_empty(CHECKPOINT.value or "")
    with name_fields(as_flag):  # before anything is imported that takes long
        settings = serve_settings()
    if KEY.value and not CERTIFICATE.value:
        raise UserError("--ssl_keyfile is the key of a certificate: give --ssl_certfile as well")
    try:
        from eve_jax.serve import app, process
        from eve_jax.serve.model import Served
        from eve_jax.serve.settings import named
    except ModuleNotFoundError as error:
        raise UserError(f"the server needs {error.name}: {install('serve')}") from error
    from eve_jax.infer.api import EVE
    from eve_jax.infer.scheduler import Scheduler
    from eve_jax.process.setup import setup

    with name_fields(as_flag):
        slots = scheduler_settings()
    tls = process.Tls(CERTIFICATE.value, KEY.value or "") if CERTIFICATE.value else None
    if tls:
        tls.check()
    listener = process.listening(HOST.value or "", PORT.value or 0)  # before the checkpoint is read, which takes long
    settings = named(settings, listener.getsockname()[0], HOST.value or "")
    setup(computes=True)
    say(f"reading the checkpoint {shown(CHECKPOINT.value or '')} ...")
    with name_fields(as_flag):
        eve = EVE.from_pretrained(CHECKPOINT.value or "", **MODEL())
        served = Served(eve, settings, slots.context)
        if least := served.short_of():
            say(f"warning: --context={served.context}: a chat's prompt has at least {least} tokens, all are refused")
        scheduler = Scheduler(eve.engine, replace(slots, context=served.context))
        process.serve(app.build(served, scheduler), listener, settings.header_time, DRAIN.value or 0, tls)


def serve_settings() -> "ServeSettings":
    """What the flags say about requests."""
    from eve_jax.process.hub import hub_name
    from eve_jax.serve.settings import MIB, ServeSettings, keys_of

    hub = hub_name(CHECKPOINT.value or "")
    names = NAMES.value or [Path(hub.id if hub else CHECKPOINT.value or "").resolve().name or "eve"]
    return ServeSettings(
        names=tuple(names),
        api_keys=(*KEYS.value, *keys_of(os.environ.get("EVE_API_KEYS", ""))),
        media_domains=tuple(name.lower() for name in DOMAINS.value or ()),
        origins=tuple(site.lower() for site in ORIGINS.value or ()),
        root_path=ROOT.value or "",
        hosts=tuple(name.lower().strip("[]") for name in HOSTS.value or ()),
        max_tokens=MAX_TOKENS.value or 0,
        temperature=TEMPERATURE.value or 0.0,
        max_images=MAX_IMAGES.value or 0,
        max_pixels=MAX_PIXELS.value or 0,
        max_body=(MAX_BODY.value or 0) * MIB,
        max_held=max(8, MAX_BODY.value or 0) * 8 * MIB,
        quiet=bool(QUIET.value),
    )


def scheduler_settings() -> "SchedulerSettings":
    """What the flags say about the scheduler."""
    from eve_jax.infer.scheduler import SchedulerSettings

    return SchedulerSettings(
        slots=SLOTS.value or 0,
        context=CONTEXT.value or 0,
        chunk=CHUNK.value or 0,
        queue=QUEUE.value or 0,
        prefix_bytes=(PREFIX.value or 0) * 2**20,
        prefer="throughput" if PREFER.value == "throughput" else "latency",
    )


def say(text: str) -> None:
    """Print for people."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run(main)
