"""Meshes and parameter rules."""

import pytest

from eve_jax.errors import UserError
from eve_jax.model.config import LLMS, ModelConfig
from eve_jax.model.eve import abstract_params, logical_axes
from eve_jax.sharding import PARAMETER_RULES, make_mesh, parameter_sharding


def test_every_parameter_has_axes_with_rules():
    cfg = ModelConfig.from_dict(LLMS["tiny"])
    axes = logical_axes(cfg)
    mesh = make_mesh("fsdp:-1")
    for name, value in abstract_params(cfg).items():
        assert len(axes[name]) == len(value.shape)
        assert {a for a in axes[name] if a} <= PARAMETER_RULES.keys()
        parameter_sharding(mesh, axes[name], value.shape)


def test_two_dimensions_on_one_mesh_axis_are_refused():
    with pytest.raises(ValueError, match="twice"):
        parameter_sharding(make_mesh("fsdp:-1"), ("mlp", "heads"), (8, 8))


@pytest.mark.parametrize("spec", ["fsdp:3", "rows:1", "data:-1,fsdp:-1", "fsdp:0", "fsdp:x"])
def test_impossible_meshes(spec):
    with pytest.raises(UserError, match=r"config\.mesh"):
        make_mesh(spec)
