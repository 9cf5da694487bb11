"""Settings of an evaluation that have no effect on any of its tasks: they are refused, not ignored."""

from collections.abc import Callable, Collection, Sequence

from eve_jax.eval.chosen import Chosen
from eve_jax.eval.own import OwnQuestions


def _asks(one: Chosen) -> bool:
    return one.text is None


def _is_own(one: Chosen) -> bool:
    return isinstance(one.task, OwnQuestions)


def _is_benchmark(one: Chosen) -> bool:
    return _asks(one) and not _is_own(one)


def _is_judged(one: Chosen) -> bool:
    return one.task.needs_judge


# Which tasks a group of settings has an effect on, and what messages call those tasks.
EFFECTS: tuple[tuple[tuple[str, ...], Callable[[Chosen], bool], str], ...] = (
    (("limit", "rows", "threads", "fit", "max_size", "template"), _asks, "benchmarks and .jsonl files of questions"),
    (("data",), _is_benchmark, "benchmarks"),
    (("metric", "images"), _is_own, ".jsonl files of questions of your own"),
    (("judge", "judge_model"), _is_judged, "tasks that need a judge (mmvet, llavabench, protocol lmms_judge)"),
)


def without_effect(given: Collection[str], chosen: Sequence[Chosen]) -> list[str]:
    """Return a message for each of the settings `given` that has no effect on any of the tasks `chosen`."""
    names = ", ".join(one.task.name for one in chosen)
    return [
        f"--{name} applies to {what}, not to {names}: leave it out"
        for settings, applies, what in EFFECTS
        for name in settings
        if name in given and not any(map(applies, chosen))
    ]
