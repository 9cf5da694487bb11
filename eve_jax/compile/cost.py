"""What a run costs: hours of chips by a compiled step's estimate, and of other chips by its FLOPs; money by prices."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from eve_jax.compile import topology
from eve_jax.errors import UserError
from eve_jax.process.checks import known_names, number
from eve_jax.train.flops import peak_flops

MFU = 0.4  # share of a chip's peak that useful FLOPs are taken to reach
CHIPS = {"v5e": "TPU v5 lite", "v6e": "TPU v6 lite", "H100": "NVIDIA H100"}


def read_prices(text: str) -> dict[str, float]:
    """Return the prices of an hour of a chip that `text` lists, "v5e=1.2,h100=2.5", by lower-case names.

    Raise UserError for a chip that is not known, and for what is no price.
    """
    known = dict.fromkeys([*topology.CHIPS, *(chip.lower() for chip in CHIPS)])
    found = {}
    for one in filter(None, text.split(",")):
        chip, _, price = one.lower().partition("=")
        known_names([chip], known, "chip in --prices")
        try:
            found[chip] = number(f"--prices: {chip}", float(price), "a price of at least 0", 0)
        except ValueError:
            raise UserError(f"--prices={text}: expected CHIP=PRICE of an hour with commas, such as v5e=1.2") from None
    return found


def run_lines(summary: Mapping[str, Any], steps: int, prices: Mapping[str, float]) -> Iterator[str]:
    """Yield lines about a run of `steps` steps as `eve_jax.compile.report.summarise` has one; none for 0 steps."""
    if not steps:
        return
    yield f"a run of {steps:,} steps, {steps * summary['tokens_per_step'] / 1e9:.3g} G tokens:"
    name = summary["topology"]
    if "estimate_seconds" in summary:
        seconds = steps * summary["estimate_seconds"]
        each = seconds * summary["chips"]
        money = _money(name.partition(":")[0], each, prices)
        yield f"  {_hours(seconds)} of {name} by the estimate with all parts, {_hours(each)} of one chip{money}"
    useful = steps * summary["useful_flops_per_chip"] * summary["chips"]
    for chip, kind in CHIPS.items():
        seconds = useful / (MFU * (peak_flops(kind) or math.nan))
        yield f"  {_hours(seconds)} of one {chip} at {MFU:.0%} of its peak{_money(chip.lower(), seconds, prices)}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.3g} hours"


def _money(chip: str, seconds: float, prices: Mapping[str, float]) -> str:
    return f", {seconds / 3600 * prices[chip]:,.0f} at {prices[chip]:g} an hour" if chip in prices else ""
