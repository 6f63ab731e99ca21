"""What is drawn onto a video of its result, and what the rows of its features are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prediction_documents import result, scored, segment

from dualformer_cli.config.schema import DataConfig
from dualformer_cli.documents.predict import FeatureRow
from dualformer_cli.tasks import prediction_outputs
from dualformer_cli.tasks.predict import PredictRequest
from dualformer_cli.tasks.prediction_outputs import PredictionOutputs, parts_of
from dualformer_cli.video.inputs import InputList


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of each video that would be drawn."""
    found: list[dict[str, Any]] = []

    def save(frames: Any, target: str, **options: Any) -> None:
        found.append({"num_frames": sum(1 for _ in frames), "target": target, **options})

    monkeypatch.setattr("dualformer_cli.outputs.annotated_video.save_annotated", save)
    return found


def test_each_moment_has_the_label_of_its_part_and_the_video_its_times_and_sound(
    clips: Any, drawn: list[dict[str, Any]]
) -> None:
    path = str(clips.path("h264_vfr.mp4"))
    parts = [segment(0, 1, "run", 0.9), segment(1, 1.6, "jump", 0.8)]
    prediction_outputs._annotate((result(path, segments=parts), "out.mp4", DataConfig(), None))
    (options,) = drawn
    captions: Callable[[float], Any] = options["captions"]
    assert [captions(seconds) for seconds in (0.0, 0.99, 1.0, 1.59, 9.0)] == [
        *[[("run", 0.9)]] * 2,
        *[[("jump", 0.8)]] * 3,
    ]
    assert (options["num_frames"], options["target"], options["sound_of"]) == (40, "out.mp4", path)
    ticks = np.cumsum([0] + [1 + i * i % 5 for i in range(39)])  # as the clip was rendered, of 1/90 s
    assert options["times"] == pytest.approx((ticks / 90).tolist(), abs=1e-3)


def test_a_video_that_says_too_little_is_called_unsure_and_a_folder_has_no_sound(
    clips: Any, drawn: list[dict[str, Any]], tmp_path: Path
) -> None:
    for number in range(3):
        Image.fromarray(clips.draw(number)).save(tmp_path / f"img_{number}.png")
    found = result(str(tmp_path), predictions=[scored("run", 0.2, 1), scored("jump", 0.1, 2)])
    for video in (found, replace(found, unsure_below=0.3)):
        prediction_outputs._annotate((video, "out.mp4", DataConfig(frame_rate=5.0), None))
    assert [options["captions"](0.0) for options in drawn] == [[("run", 0.2), ("jump", 0.1)], [("unsure", 0.2)]]
    assert [(options["fps"], options["sound_of"]) for options in drawn] == [(5.0, None)] * 2


def test_features_are_called_as_the_result_is(tmp_path: Path) -> None:
    """Which an address is not, whose file was fetched."""
    outputs = PredictionOutputs(PredictRequest(features=tmp_path / "f.npz"), InputList())
    row = FeatureRow(path="cache/1234.mp4", start_seconds=None, end_seconds=None, features=np.ones(2, np.float32))
    outputs.add(result("https://host/a.mp4"), [row])
    outputs.finish([result("https://host/a.mp4")])
    with np.load(tmp_path / "f.npz") as found:
        assert found["path"].tolist() == ["https://host/a.mp4"]


@pytest.mark.parametrize(
    "change", [{"top_k": 3}, {"every_seconds": 2.0}, {"min_score": 0.3}, {"features": Path("f.npz")}], ids=str
)
def test_results_of_other_options_are_not_gone_on_with(change: dict[str, Any]) -> None:
    request = PredictRequest(output=Path("run"))
    assert parts_of(request).settings == parts_of(replace(request, csv=Path("t.csv"))).settings
    assert parts_of(request).settings != parts_of(replace(request, **change)).settings
