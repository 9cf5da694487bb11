"""Tables of README.md from results: what each function gets is a result of `benchmarks.report` with its machine."""

from collections.abc import Callable

from benchmarks.report_answers import decode, decode_weights, evaluating, serve, startup
from benchmarks.report_data import data, data_scale, images, train_memory
from benchmarks.report_format import Result
from benchmarks.report_runs import aot, hosts, kills, saving_memory, saving_stall, train_step

TABLES: dict[str, Callable[[Result], str]] = {
    "images": images,
    "data": data,
    "data_scale": data_scale,
    "train_memory": train_memory,
    "train_step": train_step,
    "aot": aot,
    "aot_sizes": aot,
    "kills": kills,
    "saving_stall": saving_stall,
    "saving_memory": saving_memory,
    "hosts": hosts,
    "decode": decode,
    "decode_weights": decode_weights,
    "startup": startup,
    "eval": evaluating,
    "serve": serve,
}
