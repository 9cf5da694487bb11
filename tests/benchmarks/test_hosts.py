"""The simulation of many hosts: each asks the shared folder for its own part, and what all ask for does not grow."""

import pytest

from benchmarks import hosts

WHOLE = hosts.PROGRAMS * hosts.PROGRAM + 500_000  # bytes that every host reads: programs, records, plan


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    return hosts.simulate([2, 4], 0.0, 1e12, tmp_path_factory.mktemp("shared"))


def test_what_each_host_asks_for_is_its_own_part(figures):
    for who in ("process 0", "others"):
        for phase, fixed in (("start", WHOLE), ("save", 2_000), ("resume", WHOLE)):
            two, four = (figures[count][phase][who]["read_bytes"] for count in (2, 4))
            assert four < 0.5 * two + fixed, (phase, who)
            assert four < 0.75 * two, (phase, who)
        saved = [figures[count]["save"][who]["written_bytes"] for count in (2, 4)]
        assert saved[1] < 0.5 * saved[0] + 5_000
        assert all(figures[count]["save"][who]["read_bytes"] >= hosts.CHECKPOINT / count for count in (2, 4))


def test_nothing_grows(figures):
    assert hosts.grows(figures) == []
    assert figures[4]["start"]["others"]["written_bytes"] == 0, "process 0 measures and plans for all"
    more = figures | {8: figures[2] | {"start": {**figures[2]["start"], "others": figures[2]["start"]["process 0"]}}}
    assert "start, others: written_bytes" in " ".join(hosts.grows(more)), "the check sees what grows"
