"""How long a run still takes."""

from __future__ import annotations

import pytest

from dualformer_cli.engine.training import run_log
from dualformer_cli.engine.training.run_log import Pace


def test_the_time_left_follows_the_pace_since_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step took 9 seconds, of which 8 were the start; then 1 each, and a validation of 5 after the third."""
    now = iter([100.0, 101.0, 107.0])
    monkeypatch.setattr(run_log, "perf_counter", lambda: next(now))
    pace = Pace(10)
    assert pace.seconds_left(4, took=9.0) == 54.0
    assert pace.seconds_left(5, took=0.5) == 5.0
    assert pace.seconds_left(6, took=1.0) == 4 * 3.5
