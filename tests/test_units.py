"""Every number is spelled in one way, and a limit never rounds past the value that missed it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_tune import units


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (units.percent(0.0214), "2%"),
        (units.percent(0.0214, 1), "2.1%"),
        (units.gigabytes(4_231_000_000), "4.2 GB"),
        (units.megabytes(42_400_000), "42 MB"),
        (units.seconds(12.34), "12.3 s"),
        (units.frame_rate(29.97), "29.97 fps"),
        (units.frame_rate(30.0), "30 fps"),
        (units.count(1, "token"), "1 token"),
        (units.count(1024, "token"), "1,024 tokens"),
        (units.count(0, "entry", "entries"), "0 entries"),
        (units.difference(0.0000123), "1.2e-05"),
        (units.with_interval(0.8, 0.7, 0.9), "0.800 [0.700, 0.900]"),
        (units.p_value(0.0314), "p = 0.031"),
        (units.p_value(0.0004), "p < 0.001"),
    ],
)
def test_spelling(written: str, expected: str) -> None:
    assert written == expected


def test_a_limit_keeps_clear_of_the_value_that_missed_it() -> None:
    assert units.missed(1.04e9, 1.0e9, units.gigabytes) == ("1.04 GB", "1.00 GB")
    assert units.missed(24e9, 23.28e9, units.gigabytes) == ("24.0 GB", "23.3 GB")
    assert units.missed(1.02e-4, 1e-4, units.difference) == ("1.02e-04", "1.00e-04")
    assert units.missed(0.0503, 0.05, units.percent, 0) == ("5.03%", "5.00%")


@given(st.floats(1e3, 1e12), st.floats(1.0001, 3))
def test_order_survives_rounding(limit: float, factor: float) -> None:
    found, bound = units.missed(limit * factor, limit, units.gigabytes)
    assert float(found.removesuffix(" GB")) > float(bound.removesuffix(" GB"))
