"""The sentences and forms of prompts that benchmarks share."""

from collections.abc import Iterable
from string import ascii_uppercase

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."


def option_lines(options: Iterable[object]) -> str:
    """Return `A. first`, `B. second`, ..., a line each, without a newline at the end."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False))


def choice_question(question: str, options: Iterable[object], instruction: str = LETTER) -> str:
    """Return the question, its options and the instruction, a line each."""
    return f"{question}\n{option_lines(options)}\n{instruction}"
