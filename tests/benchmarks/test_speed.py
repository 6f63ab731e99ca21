"""The benchmark's own workings, on models that compute in no time: what it says, skips and refuses."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
MODULES = ("speed", "model", "operations", "timing", "published_baseline")
CPU = torch.device("cpu")


class Quick(nn.Module):
    """Logits (b, 400) from the mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 400)

    def forward(self, clips: Tensor) -> Tensor:
        return self.linear(clips.mean(dim=(2, 3, 4)))

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Take what our model takes."""


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script, with quick models in place of the real ones, and small clips."""
    monkeypatch.syspath_prepend(str(HERE))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    script = importlib.import_module("speed")
    model = sys.modules["model"]
    quick = Quick()
    for name in ("published", "ours"):
        monkeypatch.setattr(model, name, lambda size, device: quick.eval())
    monkeypatch.setattr(model, "random_clips", lambda batch_size, device: torch.ones(batch_size, 3, 32, 8, 8))
    others = {name: (Quick, frames, views) for name, (_, frames, views) in model.OTHERS.items()}
    monkeypatch.setattr(model, "OTHERS", others)
    yield script
    for name in MODULES:
        sys.modules.pop(name, None)


def rows(speed: ModuleType, kind: str, precision: str = "fp32", batch_size: int = 1, **options: Any) -> list[Any]:
    limits = {"rounds": 3, "deadline": sys.modules["timing"].Deadline(), **options}
    return list(sys.modules["model"].measure(kind, "tiny", precision, batch_size, CPU, **limits))


def test_a_forward_pass_is_compared_with_the_published_model_in_its_precision_and_in_fp32(speed: ModuleType) -> None:
    found = {row["contender"]: row for row in rows(speed, "forward", "bf16", 2)}
    assert list(found) == ["published", "ours", "mvit_v2_s", "swin3d_t", "published, fp32"]
    assert found["published"]["speedup"] == {"median": 1, "p20": 1, "p80": 1}
    assert found["published, fp32"]["speedup_over_fp32"]["median"] == 1
    assert found["ours"]["difference"] < 2e-2
    assert "speedup" not in found["swin3d_t"]  # another model, another clip
    for row in found.values():
        assert (row["rounds"], row["batch_size"], row["precision"]) == (3, 2, "bf16")
        assert row["clips_per_second"] == pytest.approx(2000 / row["median_ms"])


def test_a_training_step_moves_the_weights_of_copies_only(speed: ModuleType) -> None:
    before = sys.modules["model"].published("tiny", CPU).linear.weight.clone()
    found = [row["contender"] for row in rows(speed, "training")]
    assert found == ["published", "ours", "ours, checkpointed", "mvit_v2_s", "swin3d_t"]
    assert torch.equal(sys.modules["model"].published("tiny", CPU).linear.weight, before)


def test_another_model_than_the_published_one_fails(speed: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Quick()
    monkeypatch.setattr(sys.modules["model"], "ours", lambda size, device: other.eval())
    notes = {row["contender"]: row.get("note") for row in rows(speed, "forward")}
    assert notes["ours"] == "failed: not the published model's logits"
    assert notes["published"] is None


def test_what_breaks_is_a_row_that_says_why(speed: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(size: str, device: torch.device) -> nn.Module:
        raise ValueError("no | such\nmodel")

    monkeypatch.setattr(sys.modules["model"], "ours", broken)
    assert [row["note"] for row in rows(speed, "forward")] == ["failed: ValueError: no / such"]


def test_what_does_not_fit_into_time_or_memory_is_skipped_and_said(
    speed: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing, model = sys.modules["timing"], sys.modules["model"]
    assert [row["note"] for row in rows(speed, "forward", deadline=timing.Deadline(0))] == ["skipped: no time left"]
    monkeypatch.setattr(model, "seconds_of", lambda function, device: (function(), 100.0)[1])
    (row,) = rows(speed, "forward", deadline=timing.Deadline(60))
    assert row["note"] == "skipped: a round takes about 400 s, which are not left"
    monkeypatch.setattr(model, "peak_mib", lambda function, device: 1000.0)
    monkeypatch.setattr(timing, "free_mib", lambda: 9000.0)
    notes = [row.get("note") for row in rows(speed, "forward", batch_size=8)]
    assert notes[:4] == ["skipped: needs about 8,000 MiB, 9,000 are free"] * 4


def test_time_that_a_part_saves_goes_to_the_later_ones(speed: ModuleType) -> None:
    timing = sys.modules["timing"]
    shares, parts = {"a": 1, "b": 2, "c": 1}, ["a", "b", "c"]
    assert timing.share_of("a", shares, parts, 400).seconds_left() == pytest.approx(100, abs=1)
    assert timing.share_of("b", shares, parts, 390).seconds_left() == pytest.approx(260, abs=1)
    assert timing.share_of("c", shares, parts, 380).seconds_left() == pytest.approx(380, abs=1)
    assert timing.Deadline(10).rounds(20, 1.0) in (8, 9)
    assert timing.Deadline().rounds(20, 1e9) == 20
    assert math.isinf(timing.Deadline().seconds_left())


def test_contenders_take_turns(speed: ModuleType) -> None:
    order: list[str] = []
    runs = {name: lambda name=name: (order.append(name), 1.0)[1] for name in "ab"}
    assert sys.modules["timing"].paired_rounds(runs, 3) == {"a": [1.0] * 3, "b": [1.0] * 3}
    assert "".join(order) == "abbaab"


def test_a_video_has_the_views_of_each_model(speed: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = sys.modules["model"], []
    monkeypatch.setattr(model, "create_model", lambda name: Quick())
    monkeypatch.setattr(
        model, "Scorer", lambda *_, **__: SimpleNamespace(score=lambda views: seen.append(views.shape[:2]))
    )
    monkeypatch.setattr(model, "_score", lambda network, views, device, dtype: seen.append(views.shape[:2]))
    found = list(model.measure_video("fp32", CPU, rounds=1, deadline=sys.modules["timing"].Deadline()))
    assert [(row["contender"], row["views"]) for row in found] == [("k400-tiny", 4), ("mvit_v2_s", 5), ("swin3d_t", 12)]
    assert seen[:3] == [(4, 32), (5, 16), (12, 32)]
    assert found[0]["our_speedup"]["median"] == 1


def test_scores_of_a_video_are_the_mean_over_its_views(speed: ModuleType) -> None:
    views = np.random.default_rng(0).integers(0, 256, (3, 4, 8, 8, 3), dtype=np.uint8)
    model, network = sys.modules["model"], Quick().eval()
    each = [model._score(network, views[i : i + 1], CPU, torch.float32) for i in range(3)]
    torch.testing.assert_close(model._score(network, views, CPU, torch.float32), torch.stack(each).mean(0))


@pytest.mark.parametrize("is_wrong", [False, True])
def test_the_script_prints_tables_writes_json_and_fails_if_anything_did(
    is_wrong: bool,
    speed: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if is_wrong:
        monkeypatch.setattr(sys.modules["model"], "FP32_TOLERANCE", -1.0)
    output = tmp_path / "speed.json"
    options = ["--parts", "forward", "training", "--device", "cpu", "--size", "tiny", "--precision", "fp32"]
    options += ["--batch-size", "1", "--rounds", "2", "--json", str(output)]
    monkeypatch.setattr(sys, "argv", ["speed.py", *options])
    assert speed.main() == int(is_wrong)
    printed = capsys.readouterr().out
    assert "### forward" in printed
    assert "| forward | tiny | fp32 | 1 | ours |" in printed
    document = json.loads(output.read_text())
    assert list(document["parts"]) == ["forward", "training"]
    assert document["machine"]["torch"] == torch.__version__
    assert {len(line.split("|")) for line in printed.splitlines() if line.startswith("| ")} == {15}


def test_kernels_are_checked_on_every_stage_that_has_them(speed: ModuleType) -> None:
    operations = sys.modules["operations"]
    found = [(case.operation, case.stage) for case in operations.cases(["tiny"], [0, 3])]
    names = ["window_attention", "depthwise_conv3d", "add_layer_norm", "bias_gelu", "pyramid_pool"]
    assert found == [*[(name, 0) for name in (*names, "frame_patches")], *[(name, 3) for name in names[:-1]]]
    arguments = {"rounds": 1, "compiled": False, "deadline": sys.modules["timing"].Deadline()}
    for case in operations.cases(["tiny"], [3]):
        measured = list(operations.measure(case, "fp32", 1, CPU, **arguments))
        kinds = [(row["contender"], row["direction"]) for row in measured]
        assert kinds == [("eager", "forward"), ("eager", "training")]
        assert all(row["error"] < 1e-5 and row["median_ms"] > 0 for row in measured)


def test_frames_are_cut_into_patches_of_the_asked_type_forward_alone(speed: ModuleType) -> None:
    operations = sys.modules["operations"]
    (case,) = (case for case in operations.cases(["tiny"], [0]) if case.operation == "frame_patches")
    (row,) = operations.measure(
        case, "bf16", 1, CPU, rounds=1, compiled=False, deadline=sys.modules["timing"].Deadline()
    )
    assert (row["contender"], row["direction"]) == ("eager", "forward")
    assert 2**-11 < row["error"] < 2**-8, "against float64, which bfloat16 rounds"
    bytes_moved = 32 * 224 * 224 * 3 * (1 + 2) + 6 * 4  # grey levels, patches, mean and std
    assert row["gigabytes_per_second"] * row["median_ms"] * 1e6 == pytest.approx(bytes_moved)
