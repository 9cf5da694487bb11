"""Tables about runs: steps, compiled stages, kills, saves, many hosts."""

from typing import Any

from benchmarks.report_format import GIB, Result, about, megabytes, table


def train_step(result: Result) -> str:
    """Return seconds of a step by each way, with the ratio to ours and to single weights."""
    figures = result["figures"]
    seconds, tokens = figures["seconds"], figures["tokens"]
    rows = [
        [
            f"`{name}`",
            f"{of:.2f}",
            f"{tokens / of:,.0f}",
            f"{of / seconds['split']:.2f}",
            f"{of / seconds['dense']:.2f}",
        ]
        for name, of in seconds.items()
    ]
    head = ["", "seconds a step, median", "useful tokens/s", "over `split`", "over `dense`"]
    within = {"split_over_dense": "`split` over `dense`", "masked_over_dense": "`masked` over `dense`"}
    within |= {"speedup_over_torch": "`pytorch` over `split`"}
    ratios = ", ".join(f"{title} **{figures[key]:.2f}**" for key, title in within.items() if key in figures)
    return (
        f"{about(result)}{table(head, rows)}\n\nMedians of the ratios within a round, of {figures['pairs']}: {ratios}."
    )


def _stage(name: str, of: dict[str, Any]) -> list[str]:
    if "error" in of:
        return [name, of["error"], *[""] * 6]
    shape, moved = of["row_shape"], sum(kind["bytes"] for kind in of["collectives"].values())
    mfu = [f"{of[key]:.0%}" for key in ("roofline_mfu", "compiler_estimate_mfu") if key in of]
    return [
        f"{name} ({of['topology']})",
        ", ".join(f"{axis} {size}" for axis, size in of["mesh"].items() if size > 1) or "1 chip",
        f"{of['micro_batches']} x {of['rows']} x {shape['patches'] + shape['specials'] + shape['text']:,}",
        f"{of['hbm_peak_bytes'] / GIB:.1f} of {of['hbm_bytes'] / GIB:.2f}",
        f"{of['model_flops_per_chip'] / 1e12:,.0f}, {of['hlo_flops_per_chip'] / 1e12:,.0f}",
        f"{of['hlo_over_formula']:.3f}",
        f"{moved / GIB:,.1f}",
        ", ".join(mfu),
    ]


def aot(result: Result) -> str:
    """Return memory, FLOPs and bounds of compiled stages."""
    head = ["", "mesh", "micro-batches x rows x slots", "GiB a chip", "TFLOPs a chip: model, in HLO", "HLO / formula"]
    rows = [_stage(name, of) for name, of in result["figures"]["stages"].items()]
    return about(result) + table([*head, "GiB moved", "MFU"], rows)


def kills(result: Result) -> str:
    """Return where runs were when signals ended them, and how many ended like one that was not."""
    figures = result["figures"]
    places = sorted({place for of in figures["ended_in"].values() for place in of})
    rows = [[name, *(of.get(place, 0) for place in places)] for name, of in figures["ended_in"].items()]
    whole = f"the undisturbed run, of {figures['undisturbed_seconds']:.1f} s"
    said = f"{figures['equal']} of {figures['runs']} ended like {whole}."
    return f"{about(result)}{said}\n\n{table(['ended while in', *places], rows)}"


def saving_stall(result: Result) -> str:
    """Return how long saves held up training."""
    saves = enumerate(result["figures"]["saves"], 1)
    rows = [
        [n, f"{of['held_up_s']:.3f} s", f"{of['written_s']:.2f} s", f"{of['held_up_s'] / of['written_s']:.1%}"]
        for n, of in saves
    ]
    return about(result) + table(["save", "held up", "until written", "share"], rows)


def saving_memory(result: Result) -> str:
    """Return resident memory along a run."""
    seen = result["figures"]["resident_mb"]
    return about(result) + table(["step", *seen], [["resident, MB", *(f"{mb:,.0f}" for mb in seen.values())]])


def hosts(result: Result) -> str:
    """Return what each of several hosts asks of the shared folder, by phase."""
    rows = []
    for count, phases in result["figures"].items():
        start, save, resume = phases["start"], phases["save"], phases["resume"]
        own = save["process 0"]
        rows.append(
            [
                count,
                *_asked(start["process 0"], "read_bytes"),
                f"{megabytes(own['written_bytes'])}, {megabytes(own['read_bytes'])}",
                _requests(own),
                _requests(save["others"]) if int(count) > 1 else "",
                f"{own['seconds']:.1f}",
                *_asked(resume["process 0"], "read_bytes"),
            ]
        )
    head = ["hosts", "start: MB read a host", "requests", "s", "save: MB written, read back", "process 0: requests"]
    return about(result) + table([*head, "others", "s", "resume: MB read", "requests", "s"], rows)


def _requests(of: dict[str, Any]) -> int:
    return of["asked"] + of["reads"] + of["writes"]


def _asked(of: dict[str, Any], moved: str) -> tuple[str, int, str]:
    return megabytes(of[moved]), _requests(of), f"{of['seconds']:.1f}"
