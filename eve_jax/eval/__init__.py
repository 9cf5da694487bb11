"""Benchmarks: prompts, scorers and data of each, and a model's scores on them; see docs/eval.md."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eve_jax.eval.run import evaluate

__all__ = ["evaluate"]


def __getattr__(name: str) -> Any:
    if name == "evaluate":  # on demand: it brings jax, without which recorded answers are scored
        from eve_jax.eval.run import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
