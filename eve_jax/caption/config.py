"""The config of `launch.caption`: endpoints, prompt, what is sent of an image, checks. configs/caption.py has the
defaults and what the fields mean."""

import json
import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ml_collections import ConfigDict

from eve_jax.caption.prompts import parse_template
from eve_jax.curate.config import EngineConfig
from eve_jax.curate.experts.block import BlockLimits
from eve_jax.data.image.rule import PILLOW_PIXELS
from eve_jax.errors import Field, FieldError, UserError
from eve_jax.process.checks import is_address, unexpected
from eve_jax.process.paths import split_names
from eve_jax.process.section import Section, setting
from eve_jax.process.strict_json import without_repeats

REMEDY = "; begin with get_config of configs/caption.py, which has every field"
MOST = 2**31 - 1  # of a seed
KEYS = ("EVE_CAPTION_KEY", "OPENAI_API_KEY")  # of the environment


def key_of_environment() -> str:
    """Return the key of the endpoints, "" without."""
    return next((os.environ[name] for name in KEYS if os.environ.get(name)), "")


def read_urls(text: str) -> list[str]:
    """Return the URLs of `config.endpoint.url`, up to /v1. Raise FieldError for what is none."""
    urls = [url.rstrip("/").removesuffix("/chat/completions") for url in split_names(text)]
    for url in urls:
        if not is_address(url):
            raise unexpected(Field("endpoint.url"), text, "http://HOST:PORT/v1 or https://HOST/v1, comma separated")
        parts = urlsplit(url)
        if parts.username or parts.password or parts.query:
            raise FieldError(
                Field("endpoint.url"),
                f" names the host {parts.hostname} with a password or a query; URLs are written to logs: give the key "
                "as EVE_CAPTION_KEY in the environment",
            )
    if len(set(urls)) < len(urls):
        raise FieldError(Field("endpoint.url"), f"={text} names a URL twice; name it once")
    return urls


def read_body(text: str) -> dict[str, Any]:
    """Return the fields of `config.endpoint.body`, {} for "". Raise FieldError for what is not a JSON object."""
    if not text.strip():
        return {}
    try:
        found = json.loads(text, object_pairs_hook=without_repeats)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise unexpected(Field("endpoint.body"), text, 'a JSON object, such as {"top_k": 20}')
    taken = [name for name in ("messages", "model", "stream", "n") if name in found]
    if taken:
        raise FieldError(Field("endpoint.body"), f" has {taken[0]}, which is set by launch.caption: leave it out")
    return found


@dataclass(frozen=True, kw_only=True)
class AskingEngine(EngineConfig):
    """The section `engine`: who asks. workers: of Ray; without it one process asks, with many requests in flight."""

    def check(self) -> None:
        """Raise FieldError for what nothing reads."""
        super().check()
        if self.workers and self.runner != "ray":
            raise FieldError(Field("engine.workers"), f"={self.workers} is for ", Field("engine.runner"), "=ray")


@dataclass(frozen=True, kw_only=True)
class EndpointConfig(Section):
    """The section `endpoint`: where captions come from, and how they are asked for."""

    PATH = "endpoint."

    url: str = setting(reads=read_urls)
    model: str
    max_tokens: int = setting(low=1, high=1_000_000)
    temperature: float = setting(low=0, high=2)
    again_temperature: float = setting(low=0, high=2)
    seed: int = setting(low=0, high=MOST - 1)
    body: str = setting(reads=read_body)
    concurrency: int = setting(low=1, high=4096)
    start: int = setting(low=1, high=4096)
    timeout: float = setting(low=1, high=86_400)
    patience: float = setting(low=0, high=604_800)
    tries: int = setting(low=1, high=100)

    def check_given(self) -> None:
        """Raise UserError where no endpoint or no model is named."""
        for name, value in (("url", self.url.strip(", ")), ("model", self.model.strip())):
            if not value:
                what = "http://HOST:PORT/v1" if name == "url" else "the model as the endpoint calls it"
                raise FieldError(Field(f"endpoint.{name}"), f" is empty: name {what}")


@dataclass(frozen=True, kw_only=True)
class PromptConfig(Section):
    """The section `prompt`: what is asked, with variables, and the form of the answer."""

    PATH = "prompt."

    system: str = setting(reads=lambda text: parse_template(text, "prompt.system"))
    text: str = setting(reads=lambda text: parse_template(text, "prompt.text"))
    json: str

    def check(self) -> None:
        """Raise FieldError where nothing is asked."""
        if not self.text.strip():
            raise FieldError(Field("prompt.text"), " is empty: say what the caption has to be like")


@dataclass(frozen=True, kw_only=True)
class ImageConfig(Section):
    """The section `image`: what is sent of an image."""

    PATH = "image."

    max_side: int = setting(low=0, high=16_384)
    max_bytes: int = setting(low=10_000)
    quality: int = setting(low=1, high=100)
    max_pixels: int = setting(low=1, high=PILLOW_PIXELS)


@dataclass(frozen=True, kw_only=True)
class ExpertsConfig(Section):
    """The section `experts`: how much of what experts found in an image enters the prompt."""

    PATH = "experts."

    block: BlockLimits


@dataclass(frozen=True, kw_only=True)
class CheckConfig(Section):
    """The section `checks`: which captions are rejected."""

    PATH = "checks."

    min_words: int = setting(low=0)
    max_words: int = setting(low=1)
    finished: bool
    refusals: bool
    leaks: bool
    coordinates: bool
    repetition: float = setting(low=0, high=100)
    same: int = setting(low=0)
    ocr: float = setting(low=0, high=1)
    ocr_score: float = setting(low=0, high=1)
    classes: float = setting(low=0, high=1)
    classes_score: float = setting(low=0, high=1)
    first_bad: int = setting(low=0)

    def check(self) -> None:
        """Raise FieldError where no caption can be of the length that is asked for."""
        if self.min_words > self.max_words:
            raise FieldError(
                Field("checks.min_words"),
                f"={self.min_words} is more than ",
                Field("checks.max_words"),
                f"={self.max_words}",
            )


@dataclass(frozen=True, kw_only=True)
class WriteConfig(Section):
    """The section `write`: the records that are written."""

    PATH = "write."

    records_per_shard: int = setting(low=1, high=1_000_000)
    question: str


@dataclass(frozen=True, kw_only=True)
class CaptionConfig(Section):
    """The config of `launch.caption`."""

    name: str
    engine: AskingEngine
    endpoint: EndpointConfig
    prompt: PromptConfig
    image: ImageConfig
    experts: ExpertsConfig
    checks: CheckConfig
    write: WriteConfig

    @classmethod
    def of(cls, config: "ConfigDict | CaptionConfig") -> "CaptionConfig":
        """Return the config that configs/caption.py and overrides make. Raise UserError."""
        if isinstance(config, CaptionConfig):
            return config
        if "endpoint" not in config or "prompt" not in config:
            raise UserError(f"--config={config.get('name', '?')} is not for captions: use --config=caption")
        return cls.from_values(config.to_dict(), REMEDY)
