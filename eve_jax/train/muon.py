"""Muon for the matrices of the layers, another rule for everything else.

Muon (Jordan et al. 2024) moves a matrix along its momentum made orthogonal by five steps of Newton and Schulz, here
times 0.2 sqrt(longer side), so that the updates are as large as AdamW's and its learning rate and weight decay hold for
both (Liu et al. 2025, arXiv:2502.16982). A matrix is that of one layer, with all heads of a projection together, as it
is stored in PyTorch.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from eve_jax.config.optim import MOMENTUM, OptimConfig
from eve_jax.model.eve import Params

RMS = 0.2  # root mean square of AdamW's updates, in learning rates
STEPS = 5
SIDES = MuonDimensionNumbers(-2, -1)  # of a matrix; axes before them, such as that of layers, are of many matrices


class Split(NamedTuple):
    """States of the rule for the matrices and of that for all others."""

    matrices: Any
    others: Any


def muon(optim: OptimConfig, lr: optax.Schedule) -> optax.GradientTransformation:
    """Return Muon with Nesterov's momentum and decoupled weight decay, for parameters [..., D, F]."""
    momentum = MOMENTUM if optim.momentum is None else optim.momentum
    chain = [
        scale_by_muon(
            ns_steps=STEPS,
            beta=momentum,
            weight_dimension_numbers=lambda updates: dict.fromkeys(updates, SIDES),
        ),
        optax.stateless(lambda updates, _: jax.tree.map(lambda u: RMS * max(u.shape[-2:]) ** 0.5 * u, updates)),
    ]
    if optim.weight_decay:
        chain.append(optax.add_decayed_weights(optim.weight_decay))
    return optax.chain(*chain, optax.scale_by_learning_rate(lr))


def split(
    matrices: optax.GradientTransformation, others: optax.GradientTransformation, names: Collection[str]
) -> optax.GradientTransformation:
    """Return the rule that is `matrices` for those of the parameters `names` that train, and `others` for the rest."""

    def parts(tree: Params) -> tuple[Params, Params]:
        return {n: v for n, v in tree.items() if n in names}, {n: v for n, v in tree.items() if n not in names}

    def init(params: Params) -> Split:
        mine, rest = parts(params)
        return Split(matrices.init(mine), others.init(rest))

    def update(updates: Params, state: Split, params: Params) -> tuple[Params, Split]:
        (mine, rest), (of_mine, of_rest) = parts(updates), parts(params)
        mine, first = matrices.update(mine, state.matrices, of_mine)
        rest, second = others.update(rest, state.others, of_rest)
        return {n: mine[n] if n in mine else rest[n] for n in updates}, Split(first, second)

    return optax.GradientTransformation(init, update)
