"""Inference compiled for machines that are not there: `launch.compile --config=serve`."""

import json

import jax
import pytest

from configs import serve as page
from eve_jax.compile import serve
from eve_jax.compile.abstract import nbytes
from eve_jax.config.stage import Config
from eve_jax.model.eve import head_name
from eve_jax.model.quantized import is_quantized
from eve_jax.sharding import make_mesh
from tests.launcher import launch

SERVE = ["--config=serve:llm=tiny", "--config.data.max_size=128", "--config.serve.context=256", "--json"]


def config() -> Config:
    values = page.get_config("llm=tiny").to_dict()
    del values["serve"]
    return Config.from_values(values)


def test_the_model_that_is_compiled_is_that_of_the_engine():
    """Parameters in bfloat16, or matrices of layers at half a byte or one and the head at one; the cache of a row."""
    pytest.importorskip("qwix")
    mesh = make_mesh("", jax.devices()[:1])
    whole, int8, int4 = (serve.abstract_model(config(), weights, mesh) for weights in ("", "int8", "int4"))
    numbers = sum(v.size for v in whole.params.values())
    assert nbytes([whole.params]) == 2 * numbers
    head = head_name(whole.cfg)
    assert is_quantized(int4.params[head]) and int4.params[head].qvalue.dtype == "int8"
    matrices = [name for name, value in int4.params.items() if is_quantized(value) and name != head]
    inside = sum(whole.params[name].size for name in matrices)
    scales = sum(int4.params[name].scale.size for name in matrices)
    assert 100_000 < inside < numbers
    vocabulary, width = whole.params[head].shape
    table, rest = (vocabulary * width, 4 * vocabulary), 2 * (numbers - inside - vocabulary * width)
    assert nbytes([int4.params]) == rest + sum(table) + inside / 2 + 2 * scales
    columns = sum(int8.params[name].scale.size for name in matrices)
    assert nbytes([int8.params]) == rest + sum(table) + inside + 4 * columns
    cfg = whole.cfg
    assert nbytes(whole.cache(3, 256)) == 3 * 2 * cfg.num_layers * cfg.num_kv_heads * cfg.head_dim * 256 * 2


def test_tiny_model_on_eight_devices():
    """Two key/value heads on eight devices: four copies of each."""
    pytest.importorskip("qwix")
    done = launch("launch.compile", *SERVE, "--topology=cpu:8", "--config.serve.weights=int4", "--config.serve.rows=4")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["mesh"] == {"data": 1, "fsdp": 1, "tensor": 8} and found["fits"]
    assert (found["weights"], found["rows"], found["context"]) == ("int4", 4, 256)
    assert found["cache_bytes_per_row"] == 2 * 2 * 1 * 16 * 256 * 2  # layers, keys and values, a head of 16, bfloat16
    assert found["decode_bytes"] > 4 * found["cache_bytes_per_row"]
    assert "4 rows of 256 tokens" in done.stdout


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--topology=cpu:2", "--rows=2"], "--rows is for training"),
        ([], "which machine"),
        (["--topology=cpu:2", "--config.serve.weights=int2"], "config.serve.weights='int2'"),
        (["--topology=cpu:2", "--config.serve.context=1"], "config.serve.context=1"),
    ],
)
def test_bad_flags_are_one_line(flags, words):
    done = launch("launch.compile", *SERVE, *flags)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
