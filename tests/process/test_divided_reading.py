"""Several processes read the weights of a folder together, each its part, and have what one process reads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eve_jax.checkpoint import streaming
from eve_jax.hf.safetensors_io import open_tensors
from eve_jax.weights.import_export import import_checkpoint
from tests.process.processes import ROOT, free_port
from tests.weights.folders import plain, write_hf

SLACK = 1.25  # of what each process reads whole: headers, biases, norms


def read(folder: Path, mesh: str, count: int, devices: int, workdir: Path) -> list[dict]:
    """Return what each of `count` processes printed."""
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.process.divided_reading", str(folder), mesh, str(workdir)]
    where = f"localhost:{free_port()}"
    running = [
        subprocess.Popen([*command, where, str(count), str(i)], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
        for i in range(count)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0] * count
    return [json.loads(text.splitlines()[-1]) for text in outputs]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A Hugging Face folder and its import, of matrices of some 100 KB a layer, and the bytes of its weights."""
    folder = tmp_path_factory.mktemp("weights")
    _, config = plain("qwen2")
    config |= {"hidden_size": 256, "intermediate_size": 512, "vocab_size": 640}
    heads, kv = config["num_attention_heads"] * config["head_dim"], config["num_key_value_heads"] * config["head_dim"]
    rng = np.random.default_rng(0)
    tensors = {}

    def add(name: str, *shape: int) -> None:
        tensors[name] = rng.normal(size=shape).astype(np.float32)

    add("model.embed_tokens.weight", 640, 256)
    add("lm_head.weight", 640, 256)
    add("model.norm.weight", 256)
    for at in (f"model.layers.{i}." for i in range(config["num_hidden_layers"])):
        for name, out in (("q", heads), ("k", kv), ("v", kv)):
            add(f"{at}self_attn.{name}_proj.weight", out, 256)
            add(f"{at}self_attn.{name}_proj.bias", out)
        add(f"{at}self_attn.o_proj.weight", 256, heads)
        for name, shape in (("gate", (512, 256)), ("up", (512, 256)), ("down", (256, 512))):
            add(f"{at}mlp.{name}_proj.weight", *shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            add(f"{at}{name}.weight", 256)
    theirs = write_hf(folder / "hf", tensors, config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "CHUNK_BYTES", 1 << 14)
        ours = import_checkpoint(str(theirs), folder / "ours", quiet=True)
    total = sum(info.nbytes for info in open_tensors(theirs).values())
    return theirs, ours, total


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hf", "ours"])
def test_each_process_reads_its_part(folders, kind, tmp_path):
    folder, total = folders[kind == "ours"], folders[2]
    (alone,) = read(folder, "fsdp:-1", 1, 1, tmp_path)
    assert alone["read"] > total
    for count, devices, mesh in ((2, 1, "fsdp:-1"), (4, 1, "fsdp:2,tensor:2"), (2, 2, "data:2,fsdp:2")):
        several = read(folder, mesh, count, devices, tmp_path)
        assert [one["fingerprints"] for one in several] == [alone["fingerprints"]] * count
        if mesh.startswith("data") and kind == "ours":
            continue  # each replica reads its own
        fresh = alone["read"] - total  # what was made anew is read by nobody, what is small by all
        assert max(one["read"] for one in several) < SLACK * (total / count + fresh), (count, several)
    if kind == "ours":
        assert sum(one["checked"] for one in several) < SLACK * alone["checked"]
