"""Tasks by name: `get("mme", "lmms")`. Modules are imported when their task is asked for."""

import difflib
import importlib

from eve_jax.errors import UserError
from eve_jax.eval.task import Task

MODULES = {
    "mmmu": "mmmu",
    "mmbench_en": "mmbench",
    "mmbench_cn": "mmbench",
    "seed": "seed",
    "mmvet": "mmvet",
    "mme": "mme",
    "pope": "pope",
    "pope_adv": "pope",
    "pope_pop": "pope",
    "pope_random": "pope",
    "gqa": "gqa",
    "scienceqa": "scienceqa",
    "textvqa": "textvqa",
    "chartqa": "chartqa",
    "ai2d": "ai2d",
    "realworldqa": "realworldqa",
    "ocrbench": "ocrbench",
    "vqav2": "vqav2",
    "vizwiz": "vizwiz",
    "llavabench": "llavabench",
    "qbench": "qbench",
}
ALIASES = {
    "mmmu_val": "mmmu",
    "mmbench": "mmbench_en",
    "mmbench_en_dev": "mmbench_en",
    "mmbench_en_dev_static": "mmbench_en",
    "mmbench_cn_dev": "mmbench_cn",
    "seedbench": "seed",
    "seed_bench": "seed",
    "seed_image": "seed",
    "mm_vet": "mmvet",
    "pope_adversarial": "pope_adv",
    "pope_popular": "pope_pop",
    "gqa_testdev": "gqa",
    "sqa": "scienceqa",
    "scienceqa_img": "scienceqa",
    "textvqa_val": "textvqa",
    "rwqa": "realworldqa",
    "vqav2_val": "vqav2",
    "vizwiz_vqa": "vizwiz",
    "vizwiz_vqa_val": "vizwiz",
    "llava_bench": "llavabench",
    "llava_in_the_wild": "llavabench",
    "q_bench": "qbench",
    "qbench_dev": "qbench",
}


def benchmark_of(name: str) -> str:
    """Return the benchmark that `name`, in any case and with `-` or `_`, stands for. Raises UserError."""
    key = name.strip().lower().replace("-", "_")
    key = ALIASES.get(key, key)
    if key not in MODULES:
        near = difflib.get_close_matches(key, [*MODULES, *ALIASES], 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"unknown task {name!r}{hint} (known: {', '.join(MODULES)}, or a .jsonl file of questions)")
    return key


def protocols(name: str) -> list[str]:
    """Return the protocols of a benchmark. Raises UserError for an unknown one."""
    return list(_tasks(benchmark_of(name)))


def get(name: str, protocol: str) -> Task:
    """Return the task of a benchmark under a protocol. Raises UserError, which names what is known.

    `lmms` is an alias of `lmms_static` for MMBench, which has no protocol of the plain name.
    """
    benchmark = benchmark_of(name)
    tasks = _tasks(benchmark)
    if protocol == "lmms" and protocol not in tasks:
        protocol = "lmms_static"
    if protocol not in tasks:
        raise UserError(f"task {benchmark} has no protocol {protocol!r}; it has {', '.join(tasks)}")
    return tasks[protocol]


def _tasks(benchmark: str) -> dict[str, Task]:
    module = importlib.import_module(f"eve_jax.eval.tasks.{MODULES[benchmark]}")
    return {task.protocol: task for task in module.TASKS if task.benchmark == benchmark}
