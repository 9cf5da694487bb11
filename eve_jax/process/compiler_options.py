"""Options of XLA's compiler for the programs of a training step (docs/compile.md#compiler-options).

`config.compile.options` names them, `name=value` with commas; `auto` among them stands for those in DEFAULTS of the
kind of chip. Which there are changes with the compiler: one that it does not know is left out, with a line.
"""

import re
from typing import NamedTuple

import jax
from jax.sharding import SingleDeviceSharding

from eve_jax.errors import Field, FieldError

AUTO = "auto"
FIELD = Field("compile.options")
# Windowed einsums divide products into pieces that pass from chip to chip; inner memory is what a fusion may use.
DEFAULTS: dict[str, dict[str, str]] = {
    "TPU v5 lite": {
        "xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000",
        "xla_tpu_scoped_vmem_limit_kib": "65536",
    },
    "TPU v6 lite": {
        "xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000",
        "xla_tpu_scoped_vmem_limit_kib": "98304",
    },
}
# Of the program that updates the weights, next to those: on CPUs all weights' moments would be unpacked at once.
OF_UPDATES: dict[str, dict[str, str]] = {"cpu": {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}}
_NAME = re.compile(r"\w+", re.ASCII)
_UNKNOWN = re.compile(r"No such compile option: '([^']+)'")


class Options(NamedTuple):
    """What the compiler of a device takes, by name, and the names of those that it does not know."""

    taken: dict[str, str]
    unknown: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return a line for the log of those taken, in the form of the field, and one of those left out."""
        taken = ",".join(f"{name}={value}" for name, value in self.taken.items())
        left_out = f"compiler options left out, which this compiler does not know: {', '.join(self.unknown)}"
        return [f"config.compile.options={taken}"] * bool(taken) + [left_out] * bool(self.unknown)


def parse_options(text: str) -> dict[str, str]:
    """Return what `config.compile.options` names, in order, `auto` as a name without a value. Raises FieldError."""
    found: dict[str, str] = {}
    for item in filter(None, map(str.strip, text.split(","))):
        name, equals, value = item.partition("=")
        if item != AUTO and not (equals and value and name != AUTO and _NAME.fullmatch(name)):
            raise FieldError(
                FIELD, f"={text!r}: {item!r} is neither {AUTO} nor NAME=VALUE, with commas between several"
            )
        if name in found:
            raise FieldError(FIELD, f"={text!r}: {name} comes twice")
        found[name] = value
    return found


def options_for(text: str, device: jax.Device, update: bool = False) -> Options:
    """Return the options of `config.compile.options` for programs on `device`, which may be one of a topology.

    update: for the program that updates the weights. A value given by name comes before that of `auto`. Raises
    FieldError for a value that the compiler refuses.
    """
    given = parse_options(text)
    kind = device.device_kind
    own = DEFAULTS.get(kind, {}) | (OF_UPDATES.get(kind, {}) if update else {})
    defaults = own if AUTO in given else {}
    wanted = defaults | {name: value for name, value in given.items() if name != AUTO}
    unknown: list[str] = []
    while wanted:
        probe = jax.ShapeDtypeStruct((), "float32", sharding=SingleDeviceSharding(device))
        try:
            jax.jit(lambda x: x + 1).lower(probe).compile(compiler_options={**wanted})
            break
        except jax.errors.JaxRuntimeError as error:
            named = _UNKNOWN.search(str(error))
            if named is None or named[1] not in wanted:
                raise FieldError(FIELD, f"={text!r}: {str(error).splitlines()[0]}") from error
            unknown.append(named[1])
            del wanted[named[1]]
    return Options(wanted, tuple(unknown))
