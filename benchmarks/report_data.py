"""Tables about data: images, planning, many records, memory of training."""

from benchmarks.report_format import GIB, Result, about, megabytes, table

WAYS = {
    "pillow": "packed uint8 rows by Pillow alone",
    "ours": "**packed uint8 rows (eve_jax)**",
    "ours_simplejpeg": "the same with the extra `jpeg`",
    "ours_simplejpeg_draft": "the same with `config.data.draft`, not exact",
    "torch": "the usual PyTorch way: Pillow, `CLIPImageProcessor`, float32 pixels, padding collate in batches of 8",
}
STEPS = ("index", "measure", "plan", "open")


def images(result: Result) -> str:
    """Return images a second and core by each way, with the ratio to PyTorch's."""
    sizes = result["figures"]["images_per_core_s"]
    rows = []
    for way, title in WAYS.items():
        cells = [(of[way], of[way] / of["torch"]) if way in of else None for of in sizes.values()]
        rows.append([title, *("" if cell is None else f"{cell[0]:.1f} ({cell[1]:.2f})" for cell in cells)])
    return about(result) + table(["images a second and core (over PyTorch's)", *sizes], rows)


def data(result: Result) -> str:
    """Return fill and speed of planning by case; planning time, images by processes and memory where they are."""
    figures = result["figures"]
    naive, rates = figures["naive_fill"], figures["plan_records_per_s_by_case"]
    rows = [
        [
            name,
            f"**{fill:.1%}**",
            f"{naive[f'{name}/padded']:.1%}",
            f"{naive[f'{name}/grouped']:.1%}",
            f"{rates[name] / 1e6:.2f}",
        ]
        for name, fill in figures["fill"].items()
    ]
    parts = [table(["largest image", "fill", "padded", "grouped", "M records/s"], rows)]
    if seconds := figures.get("plan_seconds_by_records"):
        rows = [[f"{int(n):,}", f"{s:.2f}", f"{s / int(n) * 1e9:.0f}"] for n, s in seconds.items()]
        parts.append(table(["records", "seconds", "ns a record"], rows))
    for key, title in (("images_by_threads", "threads of one process"), ("images_by_workers", "worker processes")):
        if found := figures.get(key):
            rows = [
                [n, f"{of['images']:.0f}", f"{of['own_ms']:.2f}", f"{of['worker_ms']:.2f}"] for n, of in found.items()
            ]
            parts.append(table([title, "images a second", "ms of a core an image, training process", "workers"], rows))
    if memory := figures.get("memory"):
        kinds = ("anonymous", "mapped", "peak", "plan")
        rows = [[f"{int(n):,}", *(f"{megabytes(of[kind])} MB" for kind in kinds)] for n, of in memory.items()]
        parts.append(table(["records", "own memory", "pages of mapped files", "peak", "plan"], rows))
    return about(result) + "\n\n".join(parts)


def data_scale(result: Result) -> str:
    """Return seconds and memory of indexing, measuring, planning and opening by the number of records."""
    rows = []
    for name, of in result["figures"].items():
        if name == "resumed":
            continue
        cells = [f"{of[step]:,.1f} s ({of[f'{step}_peak'] / 1e6:,.0f} MB)" for step in STEPS]
        records = f"{int(name):,}" if name.isdigit() else f"{name}, by the line through both"
        rows.append([records, *cells, f"{of['workers_peak'] / 1e6:,.0f} MB", f"{of['read'] / of['size']:.2%}"])
    return about(result) + table(["records", *STEPS, "a measuring process", "again"], rows)


def train_memory(result: Result) -> str:
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
    return about(result) + table(head, rows)
