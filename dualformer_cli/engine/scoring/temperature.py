"""What logits are divided by so that scores are as likely as they say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_TEMPERATURES = np.exp(np.linspace(np.log(0.2), np.log(5.0), 401))


def fit_temperature(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    """Find what to divide logits by so that scores are as likely as they say: the best of 401 from 0.2 to 5.

    Args:
        scores: of one view each, shape (n, classes), rows of sum 1.
        labels: class numbers, shape (n,).
    """
    logs = np.log(np.clip(scores, 1e-30, None))
    losses = []
    for temperature in _TEMPERATURES:
        scaled = logs / temperature
        peak = scaled.max(axis=1)
        norms = peak + np.log(np.exp(scaled - peak[:, None]).sum(axis=1))
        losses.append(float((norms - scaled[np.arange(len(labels)), labels]).mean()))
    return float(_TEMPERATURES[int(np.argmin(losses))])


def tempered(scores: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    """Scores as they are once their logits are divided by a temperature."""
    powers = np.clip(scores, 1e-30, None) ** (1 / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
