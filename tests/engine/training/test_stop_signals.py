"""Signals that end a run: the first one asks, a second Ctrl-C is obeyed at once, and nothing of it stays."""

from __future__ import annotations

import signal

import pytest

from dualformer_cli.engine.training.stop_signals import StopSignals
from dualformer_cli.system.signals import STOPPING


def test_the_first_interrupt_asks_and_the_second_ends_at_once() -> None:
    before = [signal.getsignal(number) for number in STOPPING]
    signals = StopSignals()
    with signals.caught():
        assert (signals.heard(), signals.of_any_rank()) == (False, None)
        signal.raise_signal(signal.SIGINT)
        assert (signals.heard(), signals.of_any_rank()) == (True, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)  # of which any number may come
        signal.raise_signal(signal.SIGTERM)
        assert signals.agree(is_due=True) == (signal.SIGTERM, True)
    assert [signal.getsignal(number) for number in STOPPING] == before
