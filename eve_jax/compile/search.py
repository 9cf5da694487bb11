"""The largest micro-batch that a slice holds, and the smallest slice that a step fits."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from eve_jax.batch import ROW_MULTIPLE
from eve_jax.compile.abstract import Step, Work, abstract_step, nbytes, plan_work
from eve_jax.compile.build import Built, build
from eve_jax.compile.report import SPARE, fits, peak_bytes, summarise
from eve_jax.compile.topology import SLICES, Topology, check_name, open_topology
from eve_jax.config.stage import Config
from eve_jax.errors import UserError
from eve_jax.sharding import AXES, make_mesh, mesh_sizes

Options = dict[str, Any]  # mesh, shape, rows, row_tokens as given on the command line; "" or 0 = chosen
MOST_ROWS = 64  # on a chip


def plan(config: Config, topology: Topology, axes: Mapping[str, int], options: Options) -> Work:
    """The work of a step on a mesh of `axes`, with what the options say of it."""
    return plan_work(config, axes, topology.chip, options["shape"], options["rows"], options["row_tokens"])


def compile_step(config: Config, topology: Topology, options: Options) -> tuple[Step, list[Built]]:
    """Compiles the programs of a step."""
    mesh = make_mesh(options["mesh"], topology.devices)
    step = abstract_step(config, mesh, plan(config, topology, mesh.shape, options))
    return step, [
        build(program, f"{topology.name}, {_amount(step.work, mesh.size)}: {program.name}") for program in step.programs
    ]


def _amount(work: Work, chips: int) -> str:
    return f"{work.rows / chips:g} row(s) of {work.shape.length} a chip"


def largest_batch(config: Config, topology: Topology, options: Options) -> tuple[dict[str, Any] | None, list[str]]:
    """Summary of the largest micro-batch that leaves a tenth of the memory, and a line for each that was tried.

    Rows a chip, at most MOST_ROWS, grow by what the memory of the last two sizes lets expect; steps keep the config's
    slots. None when not even one row a chip holds. Raises UserError for virtual devices, which have no limit.
    """
    if topology.chip is None:
        raise UserError("--search requires a TPU topology: virtual devices have no limit of memory")
    mesh = make_mesh(options["mesh"], topology.devices)
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    limit = (1 - SPARE) * topology.chip.hbm
    tried: dict[int, float] = {}
    best: dict[str, Any] | None = None
    lines = []
    low, high, rows = 0, MOST_ROWS + 1, 1
    while low < rows < high:
        step, built = compile_step(config, topology, {**options, "rows": rows * shards})
        tried[rows] = peak_bytes(built)
        fit = fits(topology, built)
        lines.append(f"{_amount(step.work, mesh.size)}: {tried[rows] / topology.chip.hbm:.0%} of the HBM")
        if fit:
            low, best = rows, summarise(topology, step, built)
        else:
            high = rows
        rows = _next(tried, low, high, limit)
    return best, lines


def _next(tried: dict[int, float], low: int, high: int, limit: float) -> int:
    """Rows to try between `low`, which fits, and `high`, which does not, by a straight line through what was seen."""
    if low == 0:
        return 0
    below = [n for n in tried if n < low]
    if not below:
        return min(low + 1, high - 1)
    slope = max((tried[low] - tried[max(below)]) / (low - max(below)), 1.0)
    return min(max(int(low + (limit - tried[low]) / slope), low + 1), high - 1)


def smallest_slice(config: Config, names: list[str], options: Options) -> tuple[dict[str, Any] | None, list[str]]:
    """Summary of the first of `names` (in growing order) that holds the step with a tenth to spare, and lines on all.

    A step fits a slice when it holds the least work, a row of the longest sample on each chip; the summary is of the
    rows chosen without a search if it holds those, too. What `least_bytes` overfill is not compiled for. None when
    nothing holds.
    """
    lines: list[str] = []
    for name in names:
        topology = open_topology(name)
        mesh = make_mesh(options["mesh"], topology.devices)
        best = None
        for chosen in _works(config, topology, mesh.shape, options):
            summary, line = _try(config, topology, mesh, chosen)
            lines.append(f"{name}, {line}")
            if summary is None:
                break
            best = summary
        if best and summary is None:
            lines.append(f"for the largest micro-batch that fits: --topology={name} --search")
        if best:
            return best, lines
    return None, lines


def _try(config: Config, topology: Topology, mesh: Mesh, chosen: Options) -> tuple[dict[str, Any] | None, str]:
    """Summary of a step, None when it leaves less than a tenth of the memory, and a line on it."""
    step = abstract_step(config, mesh, plan(config, topology, mesh.shape, chosen))
    amount = _amount(step.work, mesh.size)
    least = least_bytes(step)
    if topology.chip and least > (1 - SPARE) * topology.chip.hbm:
        share = least / topology.chip.hbm
        return None, f"{amount}: weights, optimizer and layer inputs alone take {share:.0%} of the HBM"
    step, built = compile_step(config, topology, chosen)
    taken = f"{peak_bytes(built) / topology.chip.hbm:.0%} of the HBM" if topology.chip else "no limit of memory"
    return summarise(topology, step, built) if fits(topology, built) else None, f"{amount}: {taken}"


def _works(config: Config, topology: Topology, axes: Mapping[str, int], options: Options) -> list[Options]:
    """Options of the steps to try on a slice, the least work first."""
    if options["rows"]:
        return [options]
    shortest = -(-config.data.max_tokens // ROW_MULTIPLE) * ROW_MULTIPLE
    least = {**options, "rows": axes["data"] * axes["fsdp"], "row_tokens": options["row_tokens"] or shortest}
    works = [plan(config, topology, axes, o) for o in (least, options)]
    return [least, options] if works[0] != works[1] else [options]


def least_bytes(step: Step) -> float:
    """Bytes on a chip at the end of a forward pass at the least: the state and every layer's input."""
    shards = step.mesh.shape["data"] * step.mesh.shape["fsdp"]
    cfg, slots = step.cfg, step.work.rows / shards * step.work.shape.length
    inputs = cfg.num_layers * cfg.hidden_size * slots * jnp.dtype(cfg.dtype).itemsize
    return nbytes([step.state, step.frozen, step.sums]) + inputs


def remedy(names: list[str], options: Options) -> str:
    """What to do when nothing that was tried, the last of it on the slice `names[-1]`, has room for a step."""
    devices = open_topology(names[-1]).devices
    sharded = mesh_sizes(options["mesh"], devices)[AXES.index("fsdp")]
    if sharded < len(devices) and not options["mesh"]:
        over_all = f"--mesh=fsdp:-1 (weights over all chips of a slice, not over {sharded})"
        return f"more chips, {over_all}, or a smaller --row_tokens"
    return "more chips, or a smaller --row_tokens"


def slices(text: str) -> list[str]:
    """`v5e` or `v5e:4x4,v5e:8x8` as names of topologies; a generation stands for all its slices in growing order.

    Raises UserError when one of them is unknown, before anything is compiled.
    """
    names = []
    for item in filter(None, text.split(",")):
        names += [f"{item}:{shape}" for shape in SLICES[item]] if item in SLICES else [item]
    for name in names:
        check_name(name)
    return names
