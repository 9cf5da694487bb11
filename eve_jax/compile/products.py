"""What the products found in a compiled program belong to, by the names of the parts of the model in it."""

from eve_jax.compile.count import Counts
from eve_jax.model.blocked import SCOPE
from eve_jax.model.encoder_embed import TOWER
from eve_jax.model.rotary import SCOPE as ROTARY


def attention_flops(counts: Counts, within: str = "") -> float:
    """Return FLOPs of attention that is no custom kernel; within: of the part of the program that has this name."""
    own = [p for p in counts.products if ROTARY not in p.op_name and within in p.op_name]
    return sum(p.flops * p.times for p in own if p.batched or SCOPE in p.op_name)


def tower_flops(counts: Counts) -> float:
    """Return FLOPs of the attention of a vision encoder."""
    return attention_flops(counts, TOWER)


def rotary_flops(counts: Counts) -> float:
    """Return FLOPs of the products by which the halves of heads change places on TPUs."""
    return sum(p.flops * p.times for p in counts.products if ROTARY in p.op_name)
