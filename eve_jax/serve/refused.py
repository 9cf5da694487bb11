"""Fields that would change an answer and are not implemented: refused by name, unless their value changes nothing."""

from collections.abc import Mapping
from typing import Any

from eve_jax.serve.problem import Problem

NO_CONSTRAINTS = "answers cannot be constrained to a grammar here"

# Values that change nothing, of fields that are refused, and why they are.
NEUTRAL: tuple[Any, ...] = (False, 0, "", [], {})
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "tools": (([],), "tools are not supported"),
    "tool_choice": (("none",), "tools are not supported"),
    "functions": (([],), "functions are not supported"),
    "function_call": (("none",), "functions are not supported"),
    "response_format": (({"type": "text"},), NO_CONSTRAINTS),
    "structured_outputs": (NEUTRAL, NO_CONSTRAINTS),
    "guided_json": (NEUTRAL, NO_CONSTRAINTS),
    "guided_regex": (NEUTRAL, NO_CONSTRAINTS),
    "guided_choice": (NEUTRAL, NO_CONSTRAINTS),
    "guided_grammar": (NEUTRAL, NO_CONSTRAINTS),
    "audio": (({},), "audio is not supported"),
    "modalities": (([], ["text"]), "answers are text"),
    "files": (NEUTRAL, "files are not supported"),
    "web_search_options": (NEUTRAL, "there is no web search"),
    "documents": (NEUTRAL, "documents are not supported: write them into a message"),
    "chat_template": (NEUTRAL, "the template is the checkpoint's own"),
    "chat_template_kwargs": (NEUTRAL, "the template is the checkpoint's own and has no settings"),
    "mm_processor_kwargs": (NEUTRAL, "use fit and max_size for the image rule"),
    "use_beam_search": (NEUTRAL, "beam search is not supported"),
    "length_penalty": ((1,), "beam search is not supported"),
    "best_of": ((1,), "use n"),
    "echo": (NEUTRAL, "the prompt is not given back"),
    "suffix": (NEUTRAL, "text cannot be inserted"),
    "prompt_logprobs": (NEUTRAL, "log probabilities are those of the answer"),
    "prompt_embeds": (NEUTRAL, "prompts are texts or token ids"),
    "truncate_prompt_tokens": (NEUTRAL, "prompts are not truncated"),
    "allowed_token_ids": (NEUTRAL, "use logit_bias"),
    "bad_words": (NEUTRAL, "use logit_bias"),
    "logits_processors": (NEUTRAL, "use logit_bias"),
}


def check_refused(given: Mapping[str, Any]) -> None:
    """Raise Problem for the first field of a body that is refused."""
    for name, (neutral, why) in REFUSED.items():
        value = given.get(name)
        if value is not None and not any(_same(value, one) for one in neutral):
            raise Problem(f"{name}: {why}; leave it out", name)


def _same(value: Any, neutral: Any) -> bool:
    return bool(value == neutral) and (type(value) is type(neutral) or (is_number(value) and is_number(neutral)))


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)
