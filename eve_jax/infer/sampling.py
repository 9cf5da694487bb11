"""Settings of how a token is chosen, and the same as arrays of a compiled program (`eve_jax.infer.choosing`)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from eve_jax.errors import Argument, FieldError, UserError
from eve_jax.process.checks import number, unexpected, whole

SINGLE = np.finfo(np.float32)
TINY, HUGE = float(SINGLE.tiny), float(SINGLE.max)  # processors take anything below TINY as 0
MOST_BIASES = 300  # entries of logit_bias
Values = np.ndarray | jax.Array
NO_TOKEN = -1  # fills up lists of token ids


class Rules(NamedTuple):
    """Sampling settings of R rows as arrays; every field [R], biases [R, N] of which `NO_TOKEN` is no token."""

    temperature: Values  # float32, 0: greedy
    top_p: Values  # float32, 1: all
    top_k: Values  # int32, 0: all
    min_p: Values  # float32
    seed: Values  # uint32
    presence: Values  # float32
    frequency: Values  # float32
    repetition: Values  # float32, 1: none
    bias_ids: Values  # int32
    bias: Values  # float32


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: by logits that `logit_bias` and penalties have changed, greedily when `temperature` is 0,
    else drawn from softmax(logits / temperature) as far as min_p, top_k and top_p, in this order, keep it.

    top_p < 1 keeps the nucleus: the most probable tokens whose probabilities add up to top_p (Holtzman et al., arXiv
    1904.09751). top_k > 0 keeps the top_k most probable tokens, min_p > 0 those of at least min_p times the largest
    probability (arXiv 2407.01082). Tokens as probable as the last that is kept stay, too.

    logit_bias adds a number of -100 to 100 to the logits of token ids: (id, bias) pairs or a mapping.
    repetition_penalty r divides positive logits of text tokens of prompt and answer by r and multiplies negative ones
    (Keskar et al., arXiv 1909.05858); then frequency_penalty times a token's count in the answer is taken from its
    logit, and presence_penalty once if it is there (both -2 to 2, as the OpenAI API has them).

    Towards a temperature of 0 the drawn token tends to the greedy one, towards infinity to any token alike; a top_p
    towards 0 keeps the most probable token.

    Which token is drawn depends on `seed` and the token's position in its own sequence alone, so a prompt gets the same
    answer alone and in any batch. Raises UserError for values out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        penalty = "a number of -2 to 2"
        checked = {
            "temperature": number(Argument("temperature"), self.temperature, "0 (greedy) or a number above 0", 0),
            "top_p": number(Argument("top_p"), self.top_p, "more than 0 and at most 1", math.ulp(0.0), 1),
            "seed": whole(Argument("seed"), self.seed, f"a whole number of 0 to {2**32 - 1}", 0, 2**32 - 1),
            "top_k": whole(Argument("top_k"), self.top_k, "0 (all) or a number of tokens", 0, 2**31 - 1),
            "min_p": number(Argument("min_p"), self.min_p, "a number of 0 to 1", 0, 1),
            "presence_penalty": number(Argument("presence_penalty"), self.presence_penalty, penalty, -2, 2),
            "frequency_penalty": number(Argument("frequency_penalty"), self.frequency_penalty, penalty, -2, 2),
            "repetition_penalty": number(
                Argument("repetition_penalty"), self.repetition_penalty, "a number of 0.01 to 100", 0.01, 100
            ),
            "logit_bias": _checked_bias(self.logit_bias),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        kept = {"top_p": self.top_p < 1, "top_k": self.top_k > 0, "min_p": self.min_p > 0}
        for name, used in kept.items():
            if used and self.temperature == 0:
                needs = f"={getattr(self, name)} needs a temperature above 0; without one the answer is greedy"
                raise FieldError(Argument(name), needs)

    @property
    def penalized(self) -> bool:
        """Whether tokens before change the logits."""
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1)

    @property
    def drawn(self) -> bool:
        """Whether tokens are drawn; a temperature that processors take as 0 is greedy."""
        return self.temperature >= TINY

    def arrays(self) -> Rules | None:
        """What `choose` takes: arrays of one row that stands for all; None for greedy on the model's own logits."""
        plain = not self.drawn and not self.penalized and not self.logit_bias
        return None if plain else rules([self], -(-len(self.logit_bias) // 16) * 16)

    def check_vocabulary(self, size: int) -> None:
        """Raises UserError when `logit_bias` names a token that a vocabulary of `size` does not have."""
        for token, _ in self.logit_bias:
            if token >= size:
                raise UserError(f"logit_bias: token {token} is not one of the model's {size}")


def rules(samplings: Sequence[Sampling], biases: int = MOST_BIASES) -> Rules:
    """Return `samplings`, one a row, as arrays with room for so many `biases`."""
    ids = np.full((len(samplings), biases), NO_TOKEN, np.int32)
    bias = np.zeros(ids.shape, np.float32)
    for row, sampling in enumerate(samplings):
        for place, (token, value) in enumerate(sampling.logit_bias):
            ids[row, place], bias[row, place] = token, value

    def column(values: Iterable[Any], dtype: type) -> np.ndarray:
        return np.array(list(values), dtype)

    return Rules(
        column((min(s.temperature, HUGE) if s.drawn else 0 for s in samplings), np.float32),
        column((max(s.top_p, TINY) for s in samplings), np.float32),
        column((s.top_k for s in samplings), np.int32),
        column((s.min_p for s in samplings), np.float32),
        column((s.seed for s in samplings), np.uint32),
        column((s.presence_penalty for s in samplings), np.float32),
        column((s.frequency_penalty for s in samplings), np.float32),
        column((s.repetition_penalty for s in samplings), np.float32),
        ids,
        bias,
    )


def _checked_bias(given: Any) -> tuple[tuple[int, float], ...]:
    """Return `given` as pairs of a token id and a bias, in the order of ids."""
    expected = f"at most {MOST_BIASES} pairs of a token id and a number of -100 to 100"
    pairs = list(given.items()) if isinstance(given, Mapping) else given
    if not isinstance(pairs, list | tuple) or len(pairs) > MOST_BIASES:
        raise unexpected("logit_bias", given, expected)
    found: dict[int, float] = {}
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise unexpected("logit_bias", given, expected)
        token = whole("logit_bias", pair[0], f"{expected}; this is no token id", 0, 2**31 - 1)
        if token in found:
            raise UserError(f"logit_bias: token {token} is given twice")
        found[token] = number("logit_bias", pair[1], f"{expected}; this is no such number", -100, 100)
    return tuple(sorted(found.items()))


GREEDY = Sampling()
