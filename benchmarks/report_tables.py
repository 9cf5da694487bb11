"""Tables of README.md from results: what each function gets is a result of `benchmarks.report` with its machine."""

from collections.abc import Callable, Sequence
from typing import Any

GIB = 2**30


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _about(result: dict[str, Any]) -> str:
    """When and on what it was measured."""
    about, load = result["machine"], result["load"]
    where = f"{result['began'][:10]}, {about['cores']} cores of {about['processor']}"
    return f"{where}, load {load[0]:g} before and {load[1]:g} after, commit {result['commit']}:\n\n"


WAYS = {
    "pillow": "packed uint8 rows by Pillow alone",
    "ours": "**packed uint8 rows (eve_jax)**",
    "ours_simplejpeg": "the same with the extra `jpeg`",
    "ours_simplejpeg_draft": "the same with `config.data.draft`, not exact",
    "torch": "the usual PyTorch way: Pillow, `CLIPImageProcessor`, float32 pixels, padding collate in batches of 8",
}


def images(result: dict[str, Any]) -> str:
    """Return images a second and core by each way, with the ratio to PyTorch's."""
    sizes = result["figures"]["images_per_core_s"]
    rows = []
    for way, title in WAYS.items():
        cells = [(of[way], of[way] / of["torch"]) if way in of else None for of in sizes.values()]
        rows.append([title, *("" if cell is None else f"{cell[0]:.1f} ({cell[1]:.2f})" for cell in cells)])
    return _about(result) + _table(["images a second and core (over PyTorch's)", *sizes], rows)


def train_memory(result: dict[str, Any]) -> str:
    """Return what training processes held, next to their programs' account."""
    rows = [
        [
            name,
            f"{of['parameters'] / 1e6:.0f} M",
            f"{of['row_tokens']:,}",
            f"{of['account_bytes'] / GIB:.2f}",
            f"{of['peak_resident_bytes'] / GIB:.2f}",
            f"**{of['peak_resident_bytes'] / of['account_bytes']:.2f}**",
            f"{of['tokens_per_cpu_s']:.1f}",
        ]
        for name, of in result["figures"].items()
    ]
    sizes = ["XLA's account, GiB", "peak resident, GiB", "ratio"]
    head = ["model", "parameters", "slots of the row", *sizes, "tokens a CPU second"]
    return _about(result) + _table(head, rows)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {"images": images, "train_memory": train_memory}
