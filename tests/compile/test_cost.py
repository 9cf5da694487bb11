"""What a run costs, by a compiled step's figures."""

import pytest

from eve_jax.compile.cost import read_prices, run_lines
from eve_jax.errors import UserError

SUMMARY = {
    "topology": "v5e:2x2",
    "chips": 4,
    "tokens_per_step": 250_000,
    "estimate_seconds": 1.8,
    "useful_flops_per_chip": 197e12,
}


def test_hours_and_money_of_a_run() -> None:
    lines = list(run_lines(SUMMARY, 2000, read_prices("v5e=1.5,H100=2")))
    assert lines == [
        "a run of 2,000 steps, 0.5 G tokens:",
        "  1 hours of v5e:2x2 by the estimate with all parts, 4 hours of one chip, 6 at 1.5 an hour",
        "  5.56 hours of one v5e at 40% of its peak, 8 at 1.5 an hour",
        "  1.19 hours of one v6e at 40% of its peak",
        "  1.11 hours of one H100 at 40% of its peak, 2 at 2 an hour",
    ]
    assert list(run_lines(SUMMARY, 0, {})) == []
    assert len(list(run_lines({k: v for k, v in SUMMARY.items() if k != "estimate_seconds"}, 1, {}))) == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [("v5x=1", "unknown chip in --prices 'v5x'"), ("v5e", "expected CHIP=PRICE"), ("v5e=-1", "a price of at least 0")],
)
def test_prices_that_are_none(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_prices(text)
