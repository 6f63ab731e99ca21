"""The options and output of `dualformer flops`."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dualformer_cli.app import app
from dualformer_cli.engine import complexity

SMALL_PRESET = """\
model:
  embed_dims: [32, 64]
  depths: [2, 2]
  num_heads: [1, 2]
  patch_sizes: [[2, 4, 4], [1, 2, 2]]
  num_classes: 10
data:
  clip: {num_frames: 16}
  crop_size: 56
"""
RUNNER = CliRunner(env={"COLUMNS": "100"})


@pytest.fixture
def preset(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL_PRESET)
    return str(path)


def test_json_has_the_promised_fields(preset: str) -> None:
    result = RUNNER.invoke(app, ["flops", preset, "--json"])
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert list(document) == [
        "model",
        "num_classes",
        "input",
        "views",
        "multiply_adds_per_view",
        "multiply_adds_per_video",
        "parameters_backbone",
        "parameters",
    ]
    assert (document["model"], document["num_classes"], document["input"]) == (preset, 10, [3, 16, 56, 56])
    assert document["multiply_adds_per_video"] == 4 * document["multiply_adds_per_view"]


def test_views_of_the_option_win_over_the_preset(preset: str) -> None:
    document = json.loads(RUNNER.invoke(app, ["flops", "--preset", preset, "--views", "10x3", "--json"]).stdout)
    assert document["views"] == 30
    assert document["multiply_adds_per_video"] == 30 * document["multiply_adds_per_view"]


def test_overrides_change_what_is_counted(preset: str) -> None:
    result = RUNNER.invoke(app, ["flops", preset, "--set", "model.num_classes=20", "--json"])
    document = json.loads(result.stdout)
    assert document["num_classes"] == 20
    assert document["parameters"] - document["parameters_backbone"] == 64 * 20 + 20


def test_the_table_lists_modules_on_request(preset: str) -> None:
    plain = RUNNER.invoke(app, ["flops", preset]).stdout
    detailed = RUNNER.invoke(app, ["flops", preset, "--by-module"]).stdout
    assert "per video (4 views)" in plain
    assert "stages.1.blocks.0.attention" not in plain
    assert "stages.1.blocks.0.attention" in detailed


def test_latency_is_measured_on_request(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complexity, "measure_latency", partial(complexity.measure_latency, measure_seconds=0))
    arguments = ["flops", preset, "--latency", "--device", "cpu", "--precision", "fp32", "--json"]
    latency = json.loads(RUNNER.invoke(app, arguments).stdout)["latency"]
    assert (latency["device"], latency["precision"], latency["batch_size"]) == ("cpu", "fp32", 1)
    assert latency["p20_ms"] <= latency["median_ms"] <= latency["p80_ms"]


def test_print_config_counts_nothing(preset: str) -> None:
    result = RUNNER.invoke(app, ["flops", preset, "--views", "2x3", "--print-config"])
    assert result.exit_code == 0
    assert "num_crops: 3  # from flag" in result.stdout
    assert "multiply" not in result.stdout


@pytest.mark.parametrize("views", ["4", "4x", "x3", "0x1", "4X3", "4x3x2", "-4x3"])
def test_views_of_another_form_are_a_usage_error(views: str, preset: str) -> None:
    result = RUNNER.invoke(app, ["flops", preset, f"--views={views}"])
    assert result.exit_code == 2
    assert f"'{views}' is not CLIPSxCROPS, such as 4x3" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["tiny", "--preset", "base"]])
def test_exactly_one_model_must_be_named(arguments: list[str]) -> None:
    result = RUNNER.invoke(app, ["flops", *arguments])
    assert result.exit_code == 2
    assert "name one model: a size, or a preset" in result.stderr


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dualformer_cli", "flops", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_real_process_prints_one_json_document_and_no_warnings(preset: str) -> None:
    process = run(preset, "--json")
    assert (process.returncode, process.stderr) == (0, "")
    assert json.loads(process.stdout)["views"] == 4


def test_a_misspelt_size_is_one_line_with_the_nearest_name() -> None:
    process = run("bas")
    assert process.returncode == 1
    assert process.stderr.startswith("dualformer: preset 'bas' not found; did you mean 'base'?")
    assert process.stderr.count("\n") == 1


def test_crops_that_do_not_exist_are_named() -> None:
    process = run("tiny", "--views", "4x2")
    assert process.returncode == 1
    assert "data.test.num_crops must be one of 1, 3, got 2" in process.stderr


def test_the_command_says_what_it_does_before_it_does_it(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(complexity, "describe", stop)
    assert RUNNER.invoke(app, ["flops", preset]).stderr.startswith("counting multiply-adds\n")
    timed = RUNNER.invoke(app, ["flops", preset, "--latency"]).stderr
    assert timed.startswith("counting multiply-adds, then timing forward passes\n")
