"""What processes tell each other, with threads in the place of processes and a dict in that of the service."""

import json
import threading
import time

import pytest

from eve_jax.data.rows.bad_records import BadRecords
from eve_jax.errors import UserError
from eve_jax.process import connect
from eve_jax.process.peers import Peers, StopAgreement
from eve_jax.train.shared_bad_records import bad_records
from eve_jax.train.shared_data import same_everywhere, share_folder


class Store:
    """The key-value store of the coordination service."""

    def __init__(self):
        self.values: dict[str, str] = {}

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
        assert allow_overwrite or key not in self.values
        self.values[key] = value

    def key_value_dir_get(self, prefix: str) -> list[tuple[str, str]]:
        return [(key, value) for key, value in list(self.values.items()) if key.startswith(prefix)]

    def key_value_delete(self, key: str) -> None:
        self.values.pop(key, None)


@pytest.fixture
def three():
    store = Store()
    peers = [Peers(store, index, 3) for index in range(3)]
    yield peers
    for one in peers:
        one.close()


def distributed_run(*calls):
    """Run the calls at once, as processes do; returns their results or exceptions."""
    results: list = [None] * len(calls)

    def run(number: int) -> None:
        try:
            results[number] = calls[number]()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def test_gather(three):
    for turn in ("a", "b"):
        found = distributed_run(*(lambda p=p, t=turn: p.gather("x", f"{t}{p.index}") for p in three))
        assert found == [[f"{turn}0", f"{turn}1", f"{turn}2"]] * 3


def test_values_that_differ_are_named(three):
    assert distributed_run(*(lambda p=p: same_everywhere(p, "records", "same") for p in three)) == [None] * 3
    errors = distributed_run(*(lambda p=p: same_everywhere(p, "records", str(p.index == 2)) for p in three))
    assert all(isinstance(e, UserError) and "process 2 has other records than process 0" in str(e) for e in errors)


def test_a_folder_that_not_all_see_is_refused(three, tmp_path):
    shared = tmp_path / "work" / "stage1"
    assert distributed_run(*(lambda p=p: share_folder(shared, p) for p in three)) == [None] * 3
    own = [shared, tmp_path / "elsewhere", shared]
    errors = distributed_run(*(lambda p=p: share_folder(own[p.index], p) for p in three))
    assert all("process 1 does not see process 0's files" in str(e) for e in errors)
    assert list(shared.iterdir()) == []


@pytest.mark.parametrize("asked", [0, 2])
def test_all_stop_after_the_same_step(three, asked):
    """Processes of different speed, of which none may wait for the others before a stop is asked for."""
    steps = 400
    lockstep = threading.Barrier(3)  # a step ends when all have begun it, as on the devices

    def train(peers: Peers) -> int:
        with StopAgreement(peers, "stage3", 0, steps) as agreement:
            for done in range(1, steps + 1):
                lockstep.wait(20)
                time.sleep(0.01 * (peers.index == 1))
                if agreement.after(done, peers.index == asked and done >= 7) or done == steps:
                    return done
        raise AssertionError

    stops = distributed_run(*(lambda p=p: train(p) for p in three))
    assert len(set(stops)) == 1
    assert 7 <= stops[0] < steps
    assert all(p.agreed_to_stop for p in three)


def test_no_stop_is_agreed_on_when_none_is_asked_for(three):
    def train(peers: Peers) -> bool:
        with StopAgreement(peers, "stage3", 5, 20) as agreement:
            return any(agreement.after(done, False) for done in range(6, 21))

    assert distributed_run(*(lambda p=p: train(p) for p in three)) == [False] * 3


def test_the_process_that_does_something_for_all_asks_nobody(three, monkeypatch):
    """The others wait for its end alone, so questions to them would never be answered."""
    found = []
    for one in three[1:] + three[:1]:
        monkeypatch.setattr(connect, "_peers", one)
        monkeypatch.setattr(one, "gather", lambda name: found.append(name))
        with connect.by_process_0("report") as mine:
            assert mine == (one.index == 0) and connect.peers() is None
        assert connect.peers() is one
        with pytest.raises(UserError), connect.by_process_0("report"):
            raise UserError("as it is")
        assert connect.peers() is one
    assert found == ["report"] * 3


def test_without_peers_the_own_request_counts():
    with StopAgreement(None, "stage3", 0, 5) as agreement:
        assert [agreement.after(1, False), agreement.after(2, True)] == [False, True]


def waited_for(condition):
    limit = time.monotonic() + 30
    while not condition() and time.monotonic() < limit:
        time.sleep(0.02)
    return condition()


def test_records_that_break_on_other_hosts_are_listed_by_process_0(three, tmp_path):
    lists = [bad_records(tmp_path, 2, p) for p in three]
    lists[1].report("a.jsonl:1", "one", "one.png", "broken")
    lists[0].report("a.jsonl:2", "two", "", "broken")
    lists[2].report("a.jsonl:1", "one", "one.png", "broken")  # a record once, whoever finds it
    assert waited_for(lambda: lists[0].count == 2 and not three[0].client.key_value_dir_get("eve_jax/notices/bad/"))
    lines = [json.loads(line) for line in lists[0].path.read_text().splitlines()]
    assert sorted(line["id"] for line in lines) == ["one", "two"]
    assert BadRecords(tmp_path, 2).count == 2
    lists[2].report("a.jsonl:3", "three", "", "broken")

    def stopped() -> bool:
        try:
            three[0].check()
        except UserError as error:
            return "max_bad=2" in str(error)
        return False

    assert waited_for(stopped)
