"""Weights to give away: small, complete, and as sure as they are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dualformer_cli import create_model, load_weights
from dualformer_cli.engine.scoring.metrics import calibration
from dualformer_cli.errors import DualFormerError
from dualformer_cli.tasks.export import export_weights, fit_temperature, tempered

PRESET = "camera-motion"


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


def test_exported_weights_load_and_divide_the_logits(tmp_path: Path) -> None:
    model = create_model(PRESET).eval()
    state = {**model.state_dict(), "motion_heads.0.linear.weight": torch.zeros(8, 96)}
    torch.save({"model": state}, tmp_path / "best.pt")
    size = export_weights(tmp_path / "best.pt", tmp_path / "out.safetensors", temperature=2.0)
    assert size == (tmp_path / "out.safetensors").stat().st_size < 6_000_000
    assert all(tensor.dtype == torch.float16 for tensor in load_file(tmp_path / "out.safetensors").values())
    fresh = create_model(PRESET).eval()
    load_weights(fresh, tmp_path / "out.safetensors")
    clips = torch.randn(1, 3, 16, 96, 96)
    with torch.no_grad():
        np.testing.assert_allclose(fresh(clips), model(clips) / 2, atol=2e-3)


def test_only_safetensors_are_written(tmp_path: Path) -> None:
    with pytest.raises(DualFormerError, match=r"\.safetensors file, got .*out\.pt"):
        export_weights(tmp_path / "best.pt", tmp_path / "out.pt", temperature=1.0)
