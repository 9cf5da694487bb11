"""Counting in HLO text: small programs compiled here, and lines as the TPU compiler writes them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from eve_jax.compile.count import count
from eve_jax.compile.hlo import executions, parse


def optimised(function: Callable, *shapes: tuple[int, ...]) -> str:
    arguments = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    return jax.jit(function).lower(*arguments).compile().as_text() or ""


def test_nested_loops_multiply():
    def function(x, weights):
        def layer(x, w):
            return jax.lax.fori_loop(0, 5, lambda _, y: jnp.tanh(y @ w), x), None

        return jax.lax.scan(layer, x, weights)[0]

    counts = count(optimised(function, (32, 48), (7, 48, 48)))
    assert counts.flops == 7 * 5 * 2 * 32 * 48 * 48
    assert counts.unknown == []
    assert counts.collectives == []


def test_batched_product_and_its_gradients():
    def function(a, b):
        return jnp.einsum("BTH,BSH->BTS", jnp.sin(a), jnp.sin(b)).sum()

    counts = count(optimised(jax.grad(lambda a, b: function(a, b) ** 2, (0, 1)), (4, 16, 24), (4, 8, 24)))
    assert counts.flops == 3 * 2 * 4 * 16 * 8 * 24


@pytest.mark.parametrize(
    ("size", "stride", "padding"), [((16, 20), 1, "SAME"), ((17, 20), 2, "VALID"), ((9, 9), 3, "SAME")]
)
def test_convolution_counts_only_what_meets_the_input(size, stride, padding):
    def function(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding)

    text = optimised(function, (2, 3, *size), (5, 3, 3, 3))
    image, kernel = jnp.ones((1, 1, *size)), jnp.ones((1, 1, 3, 3))
    products = int(function(image, kernel).sum())  # a one for each position of the window that meets an element
    assert count(text).flops == 2 * 2 * 3 * 5 * products


def test_memory_traffic_of_a_slice_is_the_slice():
    def function(stack, index):
        return jax.lax.dynamic_index_in_dim(stack, index.astype(jnp.int32)[0], keepdims=False) * 2

    traffic = count(optimised(function, (64, 128, 128), (1,))).hbm
    assert 2 * 128 * 128 * 4 <= traffic < 4 * 128 * 128 * 4


# A loop as the TPU compiler leaves it: no known trip count, the bound in the state, a convolution for a product,
# an all-gather that shows up in two fusions of the schedule, a reduce-scatter in disguise.
TPU = """HloModule jit_step, is_scheduled=true

%gather.1 (p.1: bf16[64,512]) -> bf16[512,512] {
  %p.1 = bf16[64,512]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.1 = bf16[512,512]{1,0:T(8,128)(2,1)} all-gather(%p.1), channel_id=1, dimensions={0}
}

%gather_and_multiply (p.2: bf16[64,512], p.3: bf16[128,512], p.4: bf16[512,512]) -> bf16[128,512] {
  %p.2 = bf16[64,512]{1,0} parameter(0)
  %p.3 = bf16[128,512]{1,0} parameter(1)
  %p.4 = bf16[512,512]{1,0} parameter(2)
  %all-gather.2 = bf16[512,512]{1,0} all-gather(%p.2), channel_id=1, dimensions={0}
  ROOT %convolution.1 = bf16[128,512]{1,0} convolution(%p.3, %p.4), dim_labels=bf_io->bf, metadata={op_name="a/b"}
}

%all-reduce-scatter.1 (p.5: bf16[512,512]) -> bf16[64,512] {
  %p.5 = bf16[512,512]{1,0} parameter(0)
  %zero = s32[]{:T(128)} constant(0)
  %all-reduce.1 = bf16[512,512]{1,0} all-reduce(%p.5), channel_id=2, to_apply=%add
  ROOT %dynamic-slice.1 = bf16[64,512]{1,0} dynamic-slice(%all-reduce.1, %zero, %zero), dynamic_slice_sizes={64,512}
}

%body (s.1: (s32[], bf16[128,512], bf16[64,512], s32[])) -> (s32[], bf16[128,512], bf16[64,512], s32[]) {
  %s.1 = (s32[]{:T(128)}, bf16[128,512]{1,0}, bf16[64,512]{1,0}, s32[]{:T(128)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%s.1), index=0
  %copy.1 = s32[]{:T(128)S(6)} copy(%i.1)
  %two = s32[]{:T(128)} constant(2)
  %next = s32[]{:T(128)} add(%copy.1, %two)
  %x.1 = bf16[128,512]{1,0} get-tuple-element(%s.1), index=1
  %w.1 = bf16[64,512]{1,0} get-tuple-element(%s.1), index=2
  %n.1 = s32[]{:T(128)} get-tuple-element(%s.1), index=3
  %start = bf16[512,512]{1,0} fusion(%w.1), kind=kCustom, calls=%gather.1
  %y = bf16[128,512]{1,0:T(8,128)S(1)} fusion(%w.1, %x.1, %start), kind=kOutput, calls=%gather_and_multiply, metadata={
}}, backend_config={"window_config":{"estimated_cycles":"100"}}
  %g = bf16[64,512]{1,0} fusion(%start), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %t.1 = (s32[]{:T(128)}, bf16[128,512]{1,0}, bf16[64,512]{1,0}, s32[]{:T(128)}) tuple(%next, %y, %g, %n.1)
}

%condition (s.2: (s32[], bf16[128,512], bf16[64,512], s32[])) -> pred[] {
  %s.2 = (s32[]{:T(128)}, bf16[128,512]{1,0}, bf16[64,512]{1,0}, s32[]{:T(128)}) parameter(0)
  %i.2 = s32[]{:T(128)} get-tuple-element(%s.2), index=0
  %n.2 = s32[]{:T(128)} get-tuple-element(%s.2), index=3
  ROOT %less = pred[]{:T(512)} compare(%i.2, %n.2), direction=LT
}

ENTRY %main (a: bf16[128,512], b: bf16[64,512]) -> bf16[128,512] {
  %a = bf16[128,512]{1,0} parameter(0)
  %b = bf16[64,512]{1,0} parameter(1)
  %from = s32[]{:T(128)} constant(0)
  %to = s32[]{:T(128)} constant(13)
  %t.2 = (s32[]{:T(128)}, bf16[128,512]{1,0}, bf16[64,512]{1,0}, s32[]{:T(128)}) tuple(%from, %a, %b, %to)
  %while.1 = (s32[], bf16[128,512]{1,0}, bf16[64,512]{1,0}, s32[]) while(%t.2), condition=%condition, body=%body
  ROOT %out = bf16[128,512]{1,0} get-tuple-element(%while.1), index=1
}
"""


def test_loop_of_the_tpu_compiler():
    counts = count(TPU)
    trips = 7  # 0, 2, ... 12
    assert counts.unknown == []
    assert counts.products == [(2 * 128 * 512 * 512, trips, "a/b", False)]
    assert counts.by_kind() == {
        "all-gather": {"count": trips, "bytes": trips * 2**19, "largest_bytes": 2**19},
        "reduce-scatter": {"count": trips, "bytes": trips * 2**19, "largest_bytes": 2**19},
    }
    assert counts.wire == trips * 2 * 7 / 8 * 2**19
    assert counts.cycles == trips * 100
    assert counts.waited_for == trips * 7 / 8 * 2**19, "the gather runs next to a product, the other does not"
    assert counts.uncounted < trips * 100, "of scalars"


def test_what_the_compiler_has_no_cycles_for():
    """A gather without an estimate costs what it moves; with one it is among the cycles."""
    estimate = ', backend_config={"window_config":{"estimated_cycles":"100"}}'
    text = """HloModule jit_step, is_scheduled=true

ENTRY %main (a: bf16[128,512], i: s32[64,1]) -> bf16[64,512] {
  %a = bf16[128,512]{1,0} parameter(0)
  %i = s32[64,1]{1,0} parameter(1)
  ROOT %g = bf16[64,512]{1,0} gather(%a, %i), offset_dims={1}, slice_sizes={1,512}ESTIMATE
}
"""
    counts = count(text.replace("ESTIMATE", ""))
    assert (counts.cycles, counts.uncounted) == (0, counts.hbm) == (0, 2 * 64 * 512 * 2)
    counts = count(text.replace("ESTIMATE", estimate))
    assert (counts.cycles, counts.uncounted) == (100, 0)


def test_loop_of_unknown_length_counts_once_and_is_named():
    counts = count(TPU.replace("constant(13)", "parameter(2)"))
    assert counts.unknown == ["while.1"]
    assert counts.products[0].times == 1


def test_fusions_belong_to_the_schedule_they_stand_in():
    runs = executions(parse(TPU))
    assert runs.inside["gather_and_multiply"] == "body"
    assert runs.inside["body"] == "body"


@pytest.mark.parametrize(
    ("labels", "left", "right", "out", "window", "flops"),
    [
        ("0bf_0io->0bf", (6, 8, 16), (6, 16, 4), (6, 8, 4), "size=6 stride=5 pad=5_5 lhs_dilate=6", None),
        ("bf_io->bf", (8, 16), (16, 4), (8, 4), "", 2 * 8 * 16 * 4),
        ("b0f_0io->b0f", (2, 10, 3), (3, 3, 5), (2, 8, 5), "size=3", 2 * 2 * 8 * 3 * 3 * 5),
        ("b0f_0io->b0f", (2, 10, 3), (3, 3, 5), (2, 10, 5), "size=3 pad=1_1", 2 * 2 * 28 * 3 * 5),
    ],
)
def test_forms_of_convolutions(labels, left, right, out, window, flops):
    def shape(dims: tuple[int, ...]) -> str:
        return f"f32[{','.join(map(str, dims))}]"

    attributes = f"window={{{window}}}, " if window else ""
    text = f"""HloModule m

ENTRY %main (a: {shape(left)}, b: {shape(right)}) -> {shape(out)} {{
  %a = {shape(left)} parameter(0)
  %b = {shape(right)} parameter(1)
  ROOT %c = {shape(out)} convolution(%a, %b), {attributes}dim_labels={labels}
}}
"""
    batched = 2 * 6 * 8 * 16 * 4  # six products of 8 x 16 with 16 x 4, as the TPU compiler writes them
    assert count(text).flops == (batched if flops is None else flops)
