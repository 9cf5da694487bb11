"""The figures that captioning is to hold, at full size: minutes, and times of a machine that does nothing else."""

import pytest

from benchmarks import curate_caption

pytestmark = pytest.mark.slow


def test_thirty_kills_leave_the_same_bytes_and_pay_twice_for_what_was_in_flight_alone() -> None:
    found = curate_caption.kills()
    assert found["holds"] and found["identical"] and found["kills"] == 30 and found["kills_while_asking"] >= 15, found


def test_an_endpoint_of_sixteen_places_with_errors_is_used_well() -> None:
    found = curate_caption.places()
    assert (
        found["holds"] and found["answered"] == 1 and found["extra_requests"] <= 0.05 and found["over_floor"] <= 1.3
    ), found


def test_an_outage_adds_little_more_than_it_takes() -> None:
    found = curate_caption.outage()
    assert found["holds"] and found["answered"] == 1 and found["added_seconds"] <= 18, found


def test_planted_faults() -> None:
    found = curate_caption.checks()
    assert min(found["repetition"], found["half_sentence"]) >= 0.95, found
    assert found["holds"] and found["refusal"] == found["leaked_prompt"] == 1 and found["good_rejected"] <= 0.01, found
