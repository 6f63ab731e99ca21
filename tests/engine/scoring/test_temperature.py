"""The temperature that makes scores as likely as they say."""

from __future__ import annotations

import numpy as np
import pytest

from dualformer_cli.engine.scoring.metrics import calibration
from dualformer_cli.engine.scoring.temperature import fit_temperature, tempered


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_was_left_out_is_found(temperature: float) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (3000, 5))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (probs.cumsum(axis=1) > rng.random((3000, 1))).argmax(axis=1)
    found = fit_temperature(tempered(probs, 1 / temperature), labels)
    assert found == pytest.approx(temperature, rel=0.15)


def test_a_temperature_lowers_the_calibration_error_of_scores_that_are_too_sure() -> None:
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(4), 4000)
    labels = (probs.cumsum(axis=1) > rng.random((4000, 1))).argmax(axis=1)
    sure = tempered(probs, 0.4)
    mended = tempered(sure, fit_temperature(sure, labels))
    errors = [calibration(scores, labels).expected_calibration_error for scores in (sure, mended)]
    assert errors[1] < errors[0] / 3


def test_half_the_temperature_squares_the_odds() -> None:
    assert tempered(np.array([[0.2, 0.8]]), 0.5)[0].tolist() == pytest.approx([1 / 17, 16 / 17])
