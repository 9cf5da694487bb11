"""Compile a stage, or inference, for a machine that is not there: memory, FLOPs, collectives, the least time of a step.

    python -m launch.compile --config=stage3 --topology=v5e:16x16 [--mesh=data:8,fsdp:32] [--rows=N] [--row_tokens=N]
    python -m launch.compile --config=stage3 --topology=v5p:2x2x1 --search           the largest micro-batch that fits
    python -m launch.compile --config=stage3 --topologies=v5e --search               the smallest slice that holds it

    python -m launch.compile --config=fig5:llm=qwen2.5-1.5b --stage=dac_0_sft --topology=v5e:2x4      of a recipe

    python -m launch.compile --config=serve:llm=qwen2.5-7b --topology=v5e:2x4      inference: rows and tokens a second

Topologies are v4, v5e, v5p and v6e slices, for which the TPU compiler is there (the extra `tpu`) and no TPU; h100:8,
h200:8, a100-80:8, b200:8 and several such nodes, h100:8x4, with JAX's CUDA plugin (the extra `cuda`) and no GPU; and
cpu:N, virtual devices. No data is needed: row shapes follow from the config.
"""

import json
import os
import sys

from absl import flags
from ml_collections import ConfigDict

from eve_jax.data.text.templates import OWN
from eve_jax.process import fetched
from launch._configs import define_config, stage_named
from launch._flags import define_path, run

CONFIG = define_config()
flags.declare_key_flag("config")
STAGE = flags.DEFINE_string("stage", "", "which stage of a recipe")
TOPOLOGY = flags.DEFINE_string("topology", "", "GENERATION:SLICE such as v5e:16x16, v5p:4x4x4; h100:8x4; or cpu:N")
TOPOLOGIES = flags.DEFINE_string("topologies", "", "with --search: a generation or card, or slices in growing order")
MESH = flags.DEFINE_string("mesh", "", "data:I,fsdp:J,tensor:K; default as for training: docs/tpu.md")
ROWS = flags.DEFINE_integer("rows", 0, "rows of a micro-batch, all chips together; 0 = chosen", lower_bound=0)
ROW_TOKENS = flags.DEFINE_integer("row_tokens", 0, "slots of a row; 0 = the config's", lower_bound=0)
SHAPE = flags.DEFINE_enum("shape", "mixed", ["mixed", "vision", "text"], "which row shape of the default menu")
JSON = flags.DEFINE_bool("json", False, "print the figures as one line of JSON, last")
EARLIER = "a file with an earlier report (--json > FILE) to compare this one with"
AGAINST = define_path("against", "", EARLIER, remote=fetched.fetch)
STEPS = flags.DEFINE_integer("steps", 0, "of a run, whose hours of chips are printed; 0 = the config's", lower_bound=0)
PRICES = flags.DEFINE_string("prices", "", "of an hour of a chip, v5e=1.2,H100=2.5: what the run costs")
SEARCH = flags.DEFINE_bool("search", False, "find the largest micro-batch or, with --topologies, the smallest slice")
flags.mark_flags_as_required(["config"])


def main() -> None:
    os.environ["JAX_PLATFORMS"] = "cpu"  # nothing is computed here, least of all on an accelerator of this machine
    import jax

    from eve_jax.compile.against import read_report, show_against
    from eve_jax.compile.cost import read_prices, run_lines
    from eve_jax.compile.report import show, summarise
    from eve_jax.compile.search import compile_step, largest_batch, remedy, slices, smallest_slice
    from eve_jax.compile.topology import open_topology
    from eve_jax.config.stage import Config
    from eve_jax.errors import UserError
    from eve_jax.process.setup import setup

    setup()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # the compiler's warnings would not come again
    if "serve" in CONFIG.value:
        if STAGE.value:
            raise UserError("--stage is of a recipe: leave it out")
        serve()
        return
    config = Config.of(without_data(stage_named(CONFIG.value, STAGE.value or "")))
    earlier = read_report(AGAINST.value) if AGAINST.value else None
    prices = read_prices(PRICES.value or "")
    options = {
        "mesh": MESH.value or config.mesh,
        "rows": ROWS.value,
        "row_tokens": ROW_TOKENS.value,
        "shape": SHAPE.value,
    }
    names = slices(TOPOLOGIES.value or "")
    if not names and not TOPOLOGY.value:
        raise UserError("for which machine? Give --topology=v5e:16x16, say, or --topologies=v5e --search (see --help)")
    if names and (TOPOLOGY.value or not SEARCH.value):
        raise UserError(
            "--topologies goes with --search and without --topology: it is for the smallest slice that holds"
        )
    if SEARCH.value and not names and ROWS.value:
        raise UserError(f"--rows={ROWS.value}: the search for the largest micro-batch chooses the rows itself")
    lines: list[str] = []
    if names:
        summary, lines = smallest_slice(config, names, options)
    elif SEARCH.value:
        summary, lines = largest_batch(config, open_topology(TOPOLOGY.value or ""), options)
    else:
        topology = open_topology(TOPOLOGY.value or "")
        step, built = compile_step(config, topology, options)
        summary = summarise(topology, step, built)
    for line in lines:
        print(line, flush=True)
    if summary is None:
        instead = remedy(names or [TOPOLOGY.value or ""], options)
        raise UserError(f"nothing that was tried holds {config.name}: {instead}")
    summary["config"] = config.name
    if STAGE.value:
        summary["overrides"] = summary["overrides"].replace("--config.", f"--config.stages.{STAGE.value}.")
    show(summary)
    for line in run_lines(summary, STEPS.value or config.train.steps, prices):
        print(line, flush=True)
    if earlier:
        show_against(earlier, summary)
    if JSON.value:
        print(json.dumps(summary), flush=True)
    if not summary["fits"]:
        sys.exit(1)


def without_data(config: ConfigDict) -> ConfigDict:
    """Return the config without records: none are read, and those of a hub need not be found.

    A stage of a recipe loses the folders of weights and tokenizer, too, which a program does not follow from.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.data.records = config.eval.records = ""
        if "order" in CONFIG.value:
            config.init = ""
            if config.data.template != OWN:
                config.data.tokenizer = ""
    return config


def serve() -> None:
    """Compile inference: the config `serve`."""
    from eve_jax.compile.serve import ServeSection, compile_serving
    from eve_jax.compile.serve_report import show
    from eve_jax.compile.topology import open_topology
    from eve_jax.config.stage import Config
    from eve_jax.errors import UserError
    from eve_jax.sharding import make_mesh

    of_training = (TOPOLOGIES, ROWS, ROW_TOKENS, SHAPE, SEARCH, AGAINST, STEPS, PRICES)
    given = [f"--{flag.name}" for flag in of_training if flag.present]
    if given:
        raise UserError(f"{given[0]} is for training: of inference the config says it, --config.serve.rows=N and so on")
    if not TOPOLOGY.value:
        raise UserError("for which machine? Give --topology=v5e:2x4, say (see --help)")
    values = CONFIG.value.copy_and_resolve_references()
    section = ServeSection.from_values(values.serve.to_dict())
    config = Config.of(ConfigDict({name: value for name, value in values.items() if name != "serve"}))
    topology = open_topology(TOPOLOGY.value)
    mesh = make_mesh(MESH.value or config.mesh, topology.devices)
    summary = compile_serving(config, section, topology, mesh)
    show(summary)
    if JSON.value:
        print(json.dumps(summary), flush=True)
    if not summary["fits"]:
        sys.exit(1)


def interruptible() -> None:
    """A compiler at work can only be left behind: the process ends without waiting for its thread."""
    from eve_jax.errors import name_fields

    prefix = f"config.stages.{STAGE.value}." if STAGE.value else "config."
    try:
        with name_fields(lambda field: "--mesh" if field == "mesh" and MESH.value else f"{prefix}{field}"):
            main()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr, flush=True)
        os._exit(130)


if __name__ == "__main__":
    run(interruptible)
