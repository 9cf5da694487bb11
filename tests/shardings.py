"""Where every parameter of the 7B models lies on two meshes:

python -m tests.shardings > tests/golden/shardings_7b.json      after an intended change of the rules
"""

import json

from jax.sharding import AbstractMesh

from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import abstract_params, logical_axes
from eve_jax.model.llms import llm_sizes
from eve_jax.sharding import AXES, parameter_sharding

MODELS = (("qwen2.5-7b", "dac"), ("qwen2.5-7b", "rep"))
MESHES = ((8, 32, 1), (4, 16, 4))  # v5e-256 (docs/design.md#sharding), and one with tensor parallelism


def shardings() -> dict[str, dict[str, list]]:
    """{"MODEL VARIANT on MESH": {parameter: [shape, mesh axis or axes of each dimension]}}."""
    out = {}
    for llm, variant in MODELS:
        cfg = ModelConfig.from_dict({**llm_sizes(llm), "variant": variant})
        axes = logical_axes(cfg)
        for sizes in MESHES:
            mesh = AbstractMesh(sizes, AXES)
            places = {}
            for name, value in sorted(abstract_params(cfg).items()):
                spec = parameter_sharding(mesh, axes[name], value.shape).spec
                places[name] = [
                    list(value.shape),
                    [a if a is None or isinstance(a, str) else "+".join(a) for a in spec],
                ]
            out[f"{llm} {variant} on {','.join(f'{a}:{n}' for a, n in zip(AXES, sizes, strict=True))}"] = places
    return out


if __name__ == "__main__":
    models = []
    for title, places in shardings().items():
        lines = (f"  {json.dumps(name)}: {json.dumps(place)}" for name, place in places.items())
        models.append(f" {json.dumps(title)}: {{\n" + ",\n".join(lines) + "\n }")
    print("{\n" + ",\n".join(models) + "\n}")
