"""The table of docs/backbones.md: python -m benchmarks.backbones [--only=qwen3] [--noslices] [--rows=table.md]

Every base LLM by name with its parameters in each stage (EVEv2's vision weights from stage 2.1 on) and the smallest v5e
slice that holds stage 3, where everything trains, with a row of the longest sample on each chip and a tenth of the
memory to spare, weights sharded over all of its chips. A slice takes some minutes of the processor, so the small LLMs
come first, slices that have no room for the state, the layers' inputs and one gathered layer are left out, and LLMs
whose arrays and layers are alike share one. Finished rows are kept in the file --rows and are not made again; with
--noslices, which takes a second, the others have none. Needs the extra `tpu` for the slices, and no TPU.
"""

import math
from pathlib import Path

from absl import flags

from benchmarks import rows
from benchmarks.child import child
from configs.stage3 import get_config
from eve_jax.batch import ROW_MULTIPLE
from eve_jax.compile.report import SPARE
from eve_jax.compile.topology import CHIPS, SLICES
from eve_jax.config.stages import stage_factors, trained_groups
from eve_jax.model.config import VARIANTS, ModelConfig
from eve_jax.model.eve import abstract_params, declared
from eve_jax.model.llms import LLMS
from eve_jax.sharding import FSDP_CAPS
from launch._flags import run

ONLY = flags.DEFINE_string("only", "", "only the LLMs whose name contains this")
SLICED = flags.DEFINE_bool("slices", True, "find the smallest slices, which compiles")
JSON = flags.DEFINE_bool("json", False, "print the rows as a line of JSON last", allow_override=True)
ROWS = flags.DEFINE_string("rows", "", "file that keeps finished rows")
STAGES = {"stage1": ("1", "dense"), "stage2_1": ("2.1", "dac"), "stage3": ("3", "dac")}  # number, variant
STATE_BYTES = 16  # of a parameter that trains: its weight, two moments and the sum of its gradients in float32
CONSTANTS = ("rope_theta", "local_rope_theta", "rope_type", "rope_scaling", "rms_norm_eps")  # which take no memory
ASKED = ("--search", "--json", "--config.compile.options=")  # without options it compiles in a half or a third
OWN = ("demo", "tiny")  # sizes of no public LLM
HEAD = "| base | `llm=` | LLM | stage 1 | stage 2.1 | stage 3 | smallest v5e slice for stage 3 |"
FAMILIES = {
    "qwen2.5": "Qwen2.5",
    "qwen3": "Qwen3",
    "llama": "LLaMA-3",
    "mistral": "Mistral v0.3",
    "smollm2": "SmolLM2",
    "smollm3": "SmolLM3",
    "olmo2": "OLMo 2",
    "gemma3": "Gemma 3",
    "gemma4": "Gemma 4",
    "vicuna": "Vicuna",
    "sail": "SAIL",
}


def parameters(llm: str, stage: str, variant: str) -> tuple[int, int]:
    """Parameters of the model in a stage: all of them, and those that train."""
    cfg = ModelConfig.from_dict({**LLMS[llm], "variant": variant})
    groups, sizes = (
        trained_groups(stage_factors(stage)),
        {n: math.prod(s.shape) for n, s in abstract_params(cfg).items()},
    )
    trains = sum(size for name, size in sizes.items() if declared(cfg)[name].group in groups)
    return sum(sizes.values()), trains


def llm_alone(llm: str) -> int:
    """Parameters of the LLM itself."""
    cfg = ModelConfig.from_dict({**LLMS[llm], "parts": VARIANTS["dense"]})
    return sum(math.prod(s.shape) for n, s in abstract_params(cfg).items() if declared(cfg)[n].group == "text")


def slice_of(llm: str) -> str:
    """The smallest slice of stage 3, and the share of its memory that the step takes."""
    slots = -(-get_config(f"llm={llm}").data.max_tokens // ROW_MULTIPLE) * ROW_MULTIPLE
    patch = 2 * ModelConfig.from_dict({**LLMS[llm], "variant": STAGES["stage3"][1]}).sub_patch
    for shape in SLICES["v5e"]:
        chips = math.prod(map(int, shape.split("x")))
        if least(llm, slots, chips) > (1 - SPARE) * CHIPS["v5e"].hbm:
            continue  # nothing to compile for
        work = [f"--rows={chips}", f"--row_tokens={slots}", f"--config.data.patch={patch}"]
        if chips > dict(FSDP_CAPS)["TPU v5e"]:  # over which launch.compile shards where no mesh is given
            work.append(f"--mesh=fsdp:{chips}")
        found = child("launch.compile", f"--config=stage3:llm={llm}", f"--topologies=v5e:{shape}", *ASKED, *work)
        if "error" not in found:
            return f"{found['topology']} ({found['hbm_peak_bytes'] / found['hbm_bytes']:.0%})"
        if not found["last"].endswith("of the HBM"):
            raise SystemExit(f"{found['error']}, after: {found['last'] or 'nothing'}")
    return "none"


def least(llm: str, slots: int, chips: int) -> float:
    """About the least bytes of a chip that a step of stage 3 takes: its part of the state, the inputs of the layers of
    a row of `slots` tokens, from which each is computed again, and one layer's gathered weights, both in bfloat16.

    The slices that were compiled for the table take 15 to 33% of a chip's memory more.
    """
    cfg = ModelConfig.from_dict({**LLMS[llm], "variant": STAGES["stage3"][1]})
    inputs = 2 * cfg.num_layers * slots * cfg.hidden_size
    outside = cfg.vocab_size * cfg.hidden_size * (1 if cfg.tie_embeddings else 2)
    whole, _ = parameters(llm, *STAGES["stage3"])
    return STATE_BYTES * whole / chips + inputs + 2 * (whole - outside) / cfg.num_layers


def billions(count: int) -> str:
    """A number of parameters."""
    return f"{count / 1e9:.3g} G"


def alike(llm: str) -> tuple[object, ...]:
    """What the memory of a step follows from."""
    return tuple((name, value) for name, value in LLMS[llm].items() if name not in CONSTANTS)


def row(llm: str, found: str) -> str:
    """A line of the table, with the slice that was found."""
    family = next(title for start, title in FAMILIES.items() if llm.startswith(start))
    cells = [family, f"`{llm}`", billions(llm_alone(llm))]
    for number, variant in STAGES.values():
        whole, trains = parameters(llm, number, variant)
        cells.append(billions(whole) if trains == whole else f"{billions(whole)}, {billions(trains)} train")
    cells.append(found)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    file = Path(ROWS.value) if ROWS.value else None
    names = [name for name in LLMS if not name.startswith(OWN)]
    lines = rows.read(file, names)
    slices = {alike(name): line.split("|")[-2].strip() for name, line in lines.items()}
    wanted = [name for name in names if ONLY.value in name]

    def measured(llm: str) -> str:
        if alike(llm) not in slices:
            slices[alike(llm)] = slice_of(llm)
        return row(llm, slices[alike(llm)])

    if SLICED.value:
        rows.add(lines, sorted(wanted, key=llm_alone), measured, file)
    rows.show(HEAD, [lines.get(llm) or row(llm, "") for llm in wanted], JSON.value)


if __name__ == "__main__":
    run(main)
