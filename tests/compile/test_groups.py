"""Groups of collectives in all forms in which the compiler writes them, and what passes between nodes."""

import pytest

from eve_jax.compile.groups import far_share, groups
from eve_jax.compile.hlo import Instruction

NODES = [0] * 8 + [1] * 8


def collective(rest: str) -> Instruction:
    return Instruction("x", (), "all-gather", (), "", f", channel_id=1, {rest}, use_global_device_ids=true", False)


@pytest.mark.parametrize(
    ("rest", "wanted"),
    [
        ("replica_groups={{0,1},{2,3}}", [[0, 1], [2, 3]]),
        ("replica_groups={}", [[0, 1, 2, 3]]),
        ("replica_groups=[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=1,'c'=2], device_ids=([2,2]T(1,0)) {'c'}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=4] {'a':(1)2}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=4] {'a':(2)2}", [[0, 1], [2, 3]]),
        ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
    ],
)
def test_groups_of_every_form(rest, wanted):
    assert groups(collective(rest), 4) == wanted


@pytest.mark.parametrize(
    ("rest", "share"),
    [
        ("replica_groups=[2,8]<=[16]", 0),  # within nodes
        ("replica_groups=[1,16]<=[16]", 1 / 8),  # eight adapters a node
        ("replica_groups=[8,2]<=[2,8]T(1,0)", 1),  # one device of each node
        ("source_target_pairs={{0,1},{7,8}}", 1),
    ],
)
def test_share_that_comes_from_other_nodes(rest, share):
    assert far_share(collective(rest), NODES) == share
    assert far_share(collective(rest), []) == 0
