"""Quantized weights: what is quantized and how, answers and losses of them, one tensor in memory at a time."""

import tracemalloc
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax import EVE
from eve_jax.errors import UserError
from eve_jax.infer.engine import Engine
from eve_jax.infer.parameters import loaded
from eve_jax.infer.score_files import score_files
from eve_jax.model import quantized
from eve_jax.model.eve import quantizable
from eve_jax.weights.open import Checkpoint, open_checkpoint
from tests.data.synthetic import write_records
from tests.infer.host_share import Counting
from tests.infer.test_generate import prompts
from tests.weights import folders

pytest.importorskip("qwix")
WEIGHTS = ("int8", "int4")


def dequantized(value):
    """A quantized weight as an array, by the definition."""
    rows = value.qvalue.shape[-2] // value.scale.shape[-2]
    scale = np.repeat(np.asarray(value.scale, np.float32), rows, axis=-2)  # of a table [Q, 1]
    return np.asarray(value.qvalue.astype(jnp.int8), np.float32) * scale


@pytest.mark.parametrize(
    ("weights", "rows", "groups", "most"), [("int8", 192, 1, 127), ("int4", 192, 3, 7), ("int4", 256, 2, 7)]
)
def test_values_and_scales(weights, rows, groups, most):
    """By the largest magnitude of a column, or of a group of 128 rows of it as far as they divide the rows."""
    matrix = np.random.default_rng(0).normal(size=(rows, 48)).astype(np.float32)
    found = quantized.quantize(jnp.asarray(matrix), weights)
    assert found.qvalue.dtype == weights and found.scale.shape == (groups, 48)
    assert found.scale.shape == quantized.scale_shape(matrix.shape, weights)
    assert (found.qvalue.dtype, found.scale.dtype) == quantized.dtypes(weights)
    values = np.asarray(found.qvalue.astype(jnp.int8), np.int32).reshape(groups, -1, 48)
    assert (np.abs(values).max(axis=1) >= most).all()
    step = np.repeat(np.asarray(found.scale, np.float32), rows // groups, axis=0)
    assert np.abs(dequantized(found) - matrix).max() <= (0.51 * step).max()


@pytest.mark.parametrize("tokens", [1, 70])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_products(weights, tokens):
    matrix, x = (
        np.random.default_rng(n).normal(size=s).astype(np.float32) for n, s in ((0, (256, 48)), (1, (tokens, 256)))
    )
    weight = quantized.quantize(jnp.asarray(matrix), weights)
    known = x @ dequantized(weight)
    np.testing.assert_allclose(quantized.multiply(jnp.asarray(x), weight), known, rtol=0, atol=2e-4)
    fine = quantized.refined(weight, 96)
    assert fine.scale.shape[0] == (1 if weights == "int8" else 8)
    np.testing.assert_allclose(quantized.multiply(jnp.asarray(x), fine), known, rtol=0, atol=2e-4)
    half = quantized.multiply(jnp.asarray(x, jnp.bfloat16), weight)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), known, rtol=0, atol=1.0)


@pytest.mark.parametrize("rows", [256, 96, 7])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_products_by_blocks_of_rows(weights, rows, monkeypatch):
    """Several blocks, also in a group that shares a scale; 7 rows are too few for one. Gradients are the product's."""
    monkeypatch.setattr(quantized, "BLOCK_BYTES", 4 * 48 * 16)
    matrix, x = (np.random.default_rng(n).normal(size=s) for n, s in ((0, (rows, 48)), (1, (2, 3, rows))))
    weight = quantized.quantize(jnp.asarray(matrix), weights)
    assert quantized._block_rows(weight) == (0 if rows == 7 else 16)
    written = jnp.asarray(dequantized(weight))

    def total(multiply, x):
        return jnp.sum(jnp.sin(multiply(x)))

    for dtype, far in ((jnp.float32, 2e-4), (jnp.bfloat16, 0.2)):
        given = jnp.asarray(x, dtype)
        known = given.astype(jnp.float32) @ written
        found = quantized.multiply(given, weight)
        assert found.dtype == dtype and found.shape == (2, 3, 48)
        np.testing.assert_allclose(found.astype(jnp.float32), known, rtol=0, atol=far)
    given = jnp.asarray(x, jnp.float32)
    own, known = (
        jax.grad(partial(total, f))(given) for f in (lambda x: quantized.multiply(x, weight), written.__rmatmul__)
    )
    np.testing.assert_allclose(own, known, rtol=0, atol=2e-4)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_few_tokens_write_no_whole_weight_in_float32(weights):
    weight = quantized.quantize(jnp.ones((1024, 1024)), weights)
    program = jax.jit(quantized.multiply).lower(jnp.ones((1, 1024)), weight).compile()
    memory = program.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 1024 * 1024 * 4 / 2


@pytest.mark.parametrize("block", [quantized.TABLE_BLOCK_BYTES, 4 * 48 * 16, 0])
@pytest.mark.parametrize(("rows", "shape"), [(320, (1,)), (37, (2, 3)), (37, (70,))])
def test_products_with_the_rows_of_a_table(rows, shape, block, monkeypatch):
    """In one block, in several with rows that are left, and in none; each within half a step of every weight."""
    monkeypatch.setattr(quantized, "TABLE_BLOCK_BYTES", block)
    table, x = (
        np.random.default_rng(n).normal(size=s).astype(np.float32) for n, s in ((0, (rows, 48)), (1, (*shape, 48)))
    )
    table[3] = 0  # as rows that no token has
    found = quantized.quantize(jnp.asarray(table), quantized.BY_ROW)
    assert found.scale.shape == (rows, 1) == quantized.scale_shape(table.shape, quantized.BY_ROW)
    assert (found.qvalue.dtype, found.scale.dtype) == ("int8", "float32")
    written = dequantized(found)
    np.testing.assert_array_equal(quantized.rows_of(found, jnp.float32), written)
    np.testing.assert_array_equal(quantized.rows_of(found, jnp.float32, jnp.array([[3, 5]])), written[[[3, 5]]])
    logits = quantized.compare(jnp.asarray(x), found)
    np.testing.assert_allclose(logits, x @ written.T, rtol=0, atol=1e-4)
    step = np.abs(table).max(axis=1) / 127
    assert (np.abs(logits - x @ table.T) <= 0.51 * step * np.abs(x).sum(axis=-1, keepdims=True) + 1e-4).all()
    assert quantized.compare(jnp.asarray(x, jnp.bfloat16), found).dtype == jnp.float32


def test_few_tokens_write_no_whole_table_in_float32():
    table = quantized.quantize(jnp.ones((4096, 256)), quantized.BY_ROW)
    memory = jax.jit(quantized.compare).lower(jnp.ones((1, 256)), table).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 4096 * 256 * 4 / 2


@pytest.mark.parametrize(("weights", "tied"), [("int8", False), ("int4", False), ("int8", True)])
def test_a_checkpoint_quantized_while_it_is_read(tmp_path, weights, tied):
    """The logits are those of the same model with the quantized weights written out."""
    checkpoint = open_checkpoint(folders.write_hf(tmp_path / "hf", *folders.golden(tied=tied)))
    cfg, params = loaded(checkpoint, weights=weights)
    plain = loaded(checkpoint)[1]
    names = {name for name, value in params.items() if quantized.is_quantized(value)}
    head, other = ("embed", "head") if tied else ("head", "embed")
    assert names == quantizable(cfg) | {head} and {"layers.mlp.vision.up", "layers.attn.o.text.kernel"} < names
    assert not names & {other, "norm.scale", "layers.attn.q.text.bias", "layers.input_norm.text.scale"}
    np.testing.assert_array_equal(
        dequantized(params[head]), dequantized(quantized.quantize(plain[head], quantized.BY_ROW))
    )
    for name in names - {head}:
        value = params[name]
        assert value.qvalue.dtype == weights and value.shape == plain[name].shape
        for layer in range(cfg.num_layers):
            known = quantized.quantize(plain[name][layer], weights)
            np.testing.assert_array_equal(dequantized(value)[layer], dequantized(known))
    written = {name: jnp.asarray(dequantized(v)) if name in names else v for name, v in params.items()}
    prompt = prompts()["image"]
    logits = []
    for weight in (params, written):
        engine = Engine(cfg, weight)
        session = engine.session()
        first = engine.prefill(session, [prompt])
        logits.append([first, engine.prefill(session, [prompts()["text"]])])
    for found, known in zip(*logits, strict=True):
        np.testing.assert_allclose(found, known, rtol=0, atol=1e-4)
    assert engine.generate([prompt], 6, []) == Engine(cfg, params).generate([prompt], 6, [])


@pytest.mark.usefixtures("collected_often")
def test_the_whole_weights_are_never_in_memory(tmp_path):
    """NumPy's arrays at a time: layers as int8 or int4 (a byte here), a table in float32, a layer of one matrix."""
    source = Counting()
    whole = sum(v.size * 4 for v in source.shapes.values())
    for weights in WEIGHTS:
        tracemalloc.start()
        _, params = loaded(Checkpoint(tmp_path, source.cfg, {}, source), weights=weights)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert whole > 50e6 and held < 0.4 * whole
        name = "layers.mlp.vision.down"
        for layer, matrix in enumerate(source.pieces(name)):
            known = quantized.quantize(jnp.asarray(matrix), weights)
            np.testing.assert_array_equal(params[name].qvalue[layer], known.qvalue)


def test_eve_with_quantized_weights(hf, eve, tmp_path):
    records = write_records(tmp_path, 5)
    small = EVE.from_pretrained(hf, fit="shrink", weights="int8")
    assert small.generate("Why?", max_new_tokens=4)
    found, known = (e.score(records, tmp_path / "images").loss for e in (small, eve))
    assert found != known and abs(found - known) < 0.05
    where = str(records), tmp_path / "images", tmp_path / "out"
    assert score_files(hf, *where, weights="int8", quiet=True).loss == pytest.approx(found, abs=1e-5)
    with pytest.raises(UserError, match="weights='int2': expected one of int8, int4"):
        EVE.from_pretrained(hf, weights="int2")
