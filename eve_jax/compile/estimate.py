"""How long a compiled step would take: at the least, and by the compiler's own cycles with what these leave out."""

from typing import Any

from eve_jax.compile.build import Built
from eve_jax.compile.topology import Chip

KERNEL_RATE = 0.5  # of the peak, that attention kernels reach: of public figures, 40% to 60%


def roofline(chip: Chip, summary: dict[str, Any], built: list[Built]) -> dict[str, Any]:
    """Return seconds that a step takes at the least: computation, memory and links each at their peak, all at once."""
    seconds = {
        "compute": summary["hlo_flops_per_chip"] / chip.flops,
        "hbm": summary["hbm_bytes_moved"] / chip.bandwidth,
        **on_links(chip, summary["collective_bytes_received"], summary["collective_bytes_from_other_nodes"]),
    }
    bound = max(seconds, key=lambda k: seconds[k])
    return {
        "roofline_seconds": seconds,
        "roofline_bound": bound,
        "roofline_step_seconds": seconds[bound],
        "roofline_mfu": summary["useful_flops_per_chip"] / chip.flops / seconds[bound],
    }


def on_links(chip: Chip, received: float, far: float) -> dict[str, float]:
    """Return seconds that each kind of link takes for `received` bytes, of which `far` come from other nodes."""
    if not chip.network:
        return {"ici": received / chip.links}
    return {"nvlink": (received - far) / chip.links, "network": far / chip.network}


def by_cycles(chip: Chip, summary: dict[str, Any], built: list[Built]) -> dict[str, Any]:
    """Return the compiler's own estimate, of what has cycles, and attention at its peak; nothing without cycles."""
    cycles = sum(b.program.times * b.counts.cycles for b in built)
    if not chip.clock:
        return {}
    estimated = cycles / chip.clock + summary["attention_kernel_flops_per_chip"] / chip.flops
    return {
        "compiler_estimate_seconds": estimated,
        "compiler_estimate_mfu": summary["useful_flops_per_chip"] / chip.flops / estimated,
        **estimate(chip, summary, built),
    }


def estimate(chip: Chip, summary: dict[str, Any], built: list[Built]) -> dict[str, Any]:
    """Return seconds of a step by part, one after the other: what the compiler has cycles for, and has none for."""
    parts = {
        "cycles": sum(b.program.times * b.counts.cycles for b in built) / chip.clock,
        "attention": summary["attention_kernel_flops_per_chip"] / chip.flops / KERNEL_RATE,
        "gathers": sum(b.program.times * b.counts.uncounted for b in built) / chip.bandwidth,
        "waiting": sum(b.program.times * b.counts.waited_for for b in built) / chip.links,
    }
    seconds = sum(parts.values())
    mfu = summary["useful_flops_per_chip"] / chip.flops / seconds
    return {"estimate_parts": parts, "estimate_seconds": seconds, "estimate_mfu": mfu}
