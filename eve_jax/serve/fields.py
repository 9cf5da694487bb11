"""Bodies of requests: which fields are read, which are refused, and which do nothing.

A field that is null counts as absent. A field that nothing here names is ignored, as OpenAI's servers and vLLM do; one
that would change the answer and is not implemented is refused by name (`eve_jax.serve.refused`).
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from eve_jax.errors import UserError, shorten
from eve_jax.infer.sampling import MOST_BIASES
from eve_jax.infer.stopping import LONGEST_STOP, MOST_STOPS
from eve_jax.process.checks import encodable
from eve_jax.process.strict_json import without_repeats
from eve_jax.serve.message_schema import MESSAGES
from eve_jax.serve.problem import Problem
from eve_jax.serve.refused import check_refused, is_number

MOST_SEED = 2**63 - 1
MOST_DIGITS = 1000  # of a whole number: Python refuses to read more than some 4,000
MOST_CHOICES = 8
MOST_STOP_IDS = 32
MOST_PROMPTS = 16
MOST_ANSWERS = 32
STOP = {"type": "string", "minLength": 1, "maxLength": LONGEST_STOP}

Model = TypeVar("Model", bound="Body")


class Body(BaseModel):
    """A body of a request."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    model: str | None = Field(None, description="a name of GET /v1/models; absent: the first of them")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        return {k: v for k, v in given.items() if v is not None} if isinstance(given, dict) else given


class StreamOptions(BaseModel):
    """What a stream has in addition."""

    model_config = ConfigDict(strict=True, extra="ignore")
    include_usage: bool | None = False


def _listed(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


Stop = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]
Stops = Annotated[
    list[Stop],
    Field(max_length=MOST_STOPS),
    BeforeValidator(_listed),
    WithJsonSchema({"anyOf": [STOP, {"type": "array", "maxItems": MOST_STOPS, "items": STOP}]}),
]


class Answering(Body):
    """Fields that say how to answer, of chats and of completions."""

    max_tokens: int | None = Field(None, ge=1, description="longest answer in tokens; absent: the server's default")
    temperature: float | None = Field(None, ge=0, le=2, description="0: greedy; absent: the server's default")
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1, le=2**31 - 1, description="0 or -1: all tokens")
    min_p: float = Field(0.0, ge=0, le=1)
    seed: int | None = Field(None, ge=-MOST_SEED - 1, le=MOST_SEED, description="taken modulo 2^32")
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    repetition_penalty: float = Field(1.0, ge=0.01, le=100)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] = Field({}, max_length=MOST_BIASES)
    stop: Stops = []
    stop_token_ids: list[Annotated[int, Field(ge=0)]] = Field([], max_length=MOST_STOP_IDS)
    ignore_eos: bool = Field(False, description="answer up to max_tokens")
    min_tokens: int = Field(0, ge=0)
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    stream: bool = False
    stream_options: StreamOptions | None = None
    return_token_ids: bool = False
    cache_salt: str = Field("", max_length=256, description="requests of different salts share no cached prefix")

    @field_validator("logit_bias")
    @classmethod
    def _token_ids(cls, given: dict[str, float]) -> dict[str, float]:
        if not all(key.isascii() and key.isdecimal() and len(key) <= 9 for key in given):
            raise ValueError("expected token ids as keys")
        if len(set(map(int, given))) < len(given):
            raise ValueError("a token id is there twice, as 5 and 05")
        return given

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk of usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def check_together(self, greedy: bool) -> None:
        """Raise Problem for fields that do not go together; `greedy`: the temperature is 0."""
        if self.stream_options and not self.stream:
            raise Problem("stream_options needs stream: true", "stream_options")
        if self.n > 1 and greedy:
            raise Problem("n > 1 needs a temperature above 0: greedy answers are all the same", "n")
        most = self.max_tokens
        if most is not None and self.min_tokens > most:
            raise Problem(f"min_tokens={self.min_tokens} is more than max_tokens={most}", "min_tokens")


class ImageSizes(Body):
    """How images are resized."""

    fit: Literal["fill", "shrink"] | None = Field(None, description="absent: the model's")
    max_size: int | None = Field(None, description="side of the largest image area in pixels; absent: the model's")


class ChatBody(Answering, ImageSizes):
    """POST /v1/chat/completions."""

    messages: Any = Field(None, json_schema_extra=MESSAGES)
    max_completion_tokens: int | None = Field(None, ge=1, description="counts before max_tokens")
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=20)
    continue_final_message: bool = False
    add_generation_prompt: bool = True

    @model_validator(mode="after")
    def _one_limit(self) -> "ChatBody":
        if self.max_completion_tokens is not None:
            self.max_tokens = self.max_completion_tokens
        return self

    def check_together(self, greedy: bool) -> None:
        """Raise Problem for fields that do not go together."""
        super().check_together(greedy)
        if self.top_logprobs and not self.logprobs:
            raise Problem("top_logprobs needs logprobs: true", "top_logprobs")

    @property
    def alternatives(self) -> int:
        """How many alternatives each token has in the answer, -1 for no log probabilities."""
        return self.top_logprobs if self.logprobs else -1


TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
IDS: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}


class CompletionBody(Answering):
    """POST /v1/completions."""

    prompt: Any = Field(
        None,
        description="a text, token ids, or a list of either, taken as they are: no template",
        json_schema_extra={
            "anyOf": [TEXT, IDS, {"type": "array", "maxItems": MOST_PROMPTS, "items": {"anyOf": [TEXT, IDS]}}]
        },
    )
    logprobs: int | None = Field(None, ge=0, le=20)

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts as a list. Raises Problem for what is none, an empty one and for too many."""
        given = self.prompt
        found = given if isinstance(given, list) and given and not is_number(given[0]) else [given]
        if len(found) > MOST_PROMPTS:
            raise Problem(f"{len(found)} prompts: at most {MOST_PROMPTS} in a request", "prompt")
        if len(found) * self.n > MOST_ANSWERS:
            raise Problem(f"{len(found)} prompts of n={self.n}: at most {MOST_ANSWERS} answers in a request", "n")
        for prompt in found:
            if not isinstance(prompt, str) and not (isinstance(prompt, list) and all(map(_is_token, prompt))):
                raise Problem("prompt: expected a text, a list of token ids, or a list of either", "prompt")
            if not prompt:
                raise Problem("the prompt is empty", "prompt")
        return found

    @property
    def alternatives(self) -> int:
        """How many alternatives each token has in the answer, -1 for no log probabilities."""
        return -1 if self.logprobs is None else self.logprobs


class TokenizeBody(ImageSizes):
    """POST /tokenize: a text as it is, or the prompt of messages."""

    prompt: str | None = None
    messages: Any = Field(None, json_schema_extra=MESSAGES)
    add_special_tokens: bool = True
    return_token_strs: bool = False


class GridBody(ImageSizes):
    """POST /v1/images/grid: the grid of patches of an image of `width` x `height` pixels."""

    width: int = Field(ge=1, le=1_000_000)
    height: int = Field(ge=1, le=1_000_000)


def parse_json(data: bytes) -> Any:
    """Return the JSON value of a body.

    Raises Problem where it is none, also for NaN, half characters, deep nesting, and two values of one name; in words
    of this server, since those of Python's exceptions speak of Python.
    """
    try:
        text = data.decode()
        found = json.loads(
            text, parse_constant=_no_constant, parse_int=_whole_number, object_pairs_hook=without_repeats
        )
        if "\\u" in text:  # may be half of a surrogate pair
            encodable("body", json.dumps(found, ensure_ascii=False))
        return found
    except UnicodeDecodeError as error:
        why = f"byte {error.start + 1:,} begins no character of UTF-8"
    except json.JSONDecodeError as error:
        mark = ", a byte order mark" if text.startswith("\ufeff") else ""
        why = f"line {error.lineno:,}, column {error.colno:,}{mark}"
    except RecursionError:
        why = "its values are nested too deeply"
    except (UserError, ValueError) as error:  # of the functions here
        why = shorten(str(error), 200)
    raise Problem(f"the body is not valid JSON in UTF-8 ({why})")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _whole_number(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number has {len(digits):,} characters, at most {MOST_DIGITS:,} are read")
    return int(digits)


def read(kind: type[Model], given: Any) -> Model:
    """Return a checked body. Raises Problem naming the field that is wrong."""
    if not isinstance(given, Mapping):
        raise Problem("the body is not a JSON object")
    check_refused(given)
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        text = str(first["msg"]).removeprefix("Value error, ")
        raise Problem(f"{where or 'body'}: {text}", str(first["loc"][0]) if first["loc"] else None) from None


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
