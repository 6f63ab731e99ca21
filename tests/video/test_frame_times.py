"""Rates and durations from times that mislead, each worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from dualformer_cli.video.frame_times import rate_and_duration, rate_of_packets

NTSC = float(Fraction(30000, 1001))


def test_a_rate_that_times_in_milliseconds_only_come_near_is_the_containers() -> None:
    times = np.rint(np.arange(100) * 1001 / 30) / 1000  # the last is 3.303
    assert rate_and_duration(times, 0.033, NTSC) == (NTSC, pytest.approx(3.336))
    assert rate_and_duration(times, 0.033, 25.0) == (pytest.approx(100 / 3.336), pytest.approx(3.336))


@pytest.mark.parametrize(("stated", "believed"), [(0.0, 0.04), (0.01, 0.04), (0.05, 0.05), (60.0, 0.04)])
def test_a_last_frame_that_is_stated_to_last_much_longer_or_shorter_than_others_lasts_as_long(
    stated: float, believed: float
) -> None:
    rate, duration = rate_and_duration(np.arange(25) * 0.04, stated, None)
    assert duration == pytest.approx(0.96 + believed)
    assert rate == pytest.approx(25 / (0.96 + believed))


def test_two_packets_of_a_frame_are_fields() -> None:
    dts = np.arange(100) * 1800  # of a clock of 90 kHz: 50 a second
    assert rate_of_packets(dts, 1 / 90_000, 50, None) == pytest.approx(25)
    assert rate_of_packets(dts, 1 / 90_000, 98, None) == pytest.approx(50)
