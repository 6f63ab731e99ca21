"""Weights to give away: small, complete, and as sure as they are right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from dualformer_cli import create_model, load_weights
from dualformer_cli.app import app
from dualformer_cli.engine.scoring.dump import Dump
from dualformer_cli.engine.scoring.metrics import calibration
from dualformer_cli.engine.scoring.records import VideoRecord
from dualformer_cli.errors import DualFormerError
from dualformer_cli.outputs.runs import write_json_lines
from dualformer_cli.tasks.export import ExportRequest, export, export_weights, fit_temperature, tempered

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


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """Scores of one view that are too sure: seven of ten right at 0.9 each."""
    path = tmp_path / "val.jsonl"
    records = [
        VideoRecord(index, f"{index}.mp4", (int(index >= 7),), "scored", None, np.array([[0.9, 0.1]], np.float32))
        for index in range(10)
    ]
    facts: dict[str, str | int | None] = {}
    whole = Dump(records=records, class_names=["a", "b"], multi_label=False, num_clips=1, num_crops=1, facts=facts)
    write_json_lines(whole.rows(), path)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save({"model": create_model(PRESET).state_dict()}, tmp_path / "best.pt")
    return tmp_path / "best.pt"


def test_the_command_divides_by_the_temperature_of_the_dump(checkpoint: Path, dump: Path, tmp_path: Path) -> None:
    """Odds of 9 : 1 are 7 : 3 after a division of the logits by ln 9 / ln (7 / 3) = 2.593."""
    target = tmp_path / "out.safetensors"
    result = CliRunner().invoke(app, ["export", *map(str, (checkpoint, dump, target)), "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["temperature"] == pytest.approx(2.593, rel=0.01)
    assert (document["videos"], document["num_bytes"]) == (10, target.stat().st_size)
    assert document["calibration_error_before"] == pytest.approx(20, abs=0.01)
    assert document["calibration_error_after"] < 0.5
    whole = torch.load(checkpoint)["model"]["classifier.weight"]
    np.testing.assert_allclose(load_file(target)["classifier.weight"].float(), whole / 2.593, rtol=0.02, atol=1e-4)
    again = CliRunner().invoke(app, ["export", *map(str, (checkpoint, dump, target))])
    assert str(again.exception) == f"{str(target)!r} exists; name another file or replace it with --overwrite"


def test_an_export_is_refused_before_anything_is_read(checkpoint: Path, dump: Path, tmp_path: Path) -> None:
    with pytest.raises(DualFormerError, match=r"folder '.*nodir' does not exist; create it"):
        export(ExportRequest(checkpoint=tmp_path / "none.pt", dump=dump, output=tmp_path / "nodir" / "x.safetensors"))
    with pytest.raises(DualFormerError, match="it is one of the inputs"):
        export(ExportRequest(checkpoint=checkpoint, dump=dump, output=checkpoint, overwrite=True))


def test_a_dump_without_labels_has_no_temperature(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "val.jsonl"
    whole = Dump(records=[], class_names=["a"], multi_label=False, num_clips=1, num_crops=1, facts={})
    write_json_lines(whole.rows(), path)
    with pytest.raises(DualFormerError, match="has no scored video with one label"):
        export(ExportRequest(checkpoint=checkpoint, dump=path, output=tmp_path / "x.safetensors"))
