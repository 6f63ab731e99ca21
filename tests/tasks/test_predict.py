"""What a request asks of the engine, for files, cameras and frames in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import dualformer_cli
from dualformer_cli.documents.predict import LiveClip, ModelFacts, ScoredLabel
from dualformer_cli.engine.parallel.ranks import Ranks
from dualformer_cli.engine.scoring.video_scores import Prediction, failure
from dualformer_cli.tasks import predict as task
from dualformer_cli.tasks import python
from dualformer_cli.tasks.predict import PredictRequest
from dualformer_cli.tasks.session import ModelRequest

CLIP = LiveClip(
    path="camera:0",
    start_seconds=0.0,
    end_seconds=1.0,
    predictions=(ScoredLabel(label="run", index=0, score=1.0),),
)


class Asked:
    """An engine that notes what it is asked for, and classifies nothing."""

    class_names = ("run", "jump")
    is_nameless = False
    config = SimpleNamespace(data=None)

    def __init__(self) -> None:
        self.options: dict[str, dict[str, Any]] = {}

    def describe(self) -> ModelFacts:
        return ModelFacts(preset="p", weights="w", weights_sha256=None, device="cpu", precision="fp32", views="1x1")

    def predict(self, paths: Iterable[str], pool: Any, **options: Any) -> Iterator[Prediction]:
        for path in paths:
            self.options[path] = options
            yield failure(path, "this is a test")

    def predict_live(self, name: str, *, on_clip: Any, **options: Any) -> Prediction:
        self.options[name] = options
        on_clip(CLIP)
        return failure(name, "this is a test")

    def predict_frames(self, frames: Any, *, name: str, **options: Any) -> Prediction:
        self.options[name] = options
        return failure(name, "this is a test")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asked:
    """The engine of every session."""
    asked = Asked()
    alone = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
    session = SimpleNamespace(ranks=alone, pool=None, fallback=None, load_engine=lambda *_, **__: asked)

    @contextmanager
    def opened(*_: Any, **__: Any) -> Iterator[Any]:
        yield session

    for module in (task, python):
        monkeypatch.setattr(module, "open_session", opened)
    monkeypatch.setattr("dualformer_cli.tasks.built_in_model.fall_back", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    return asked


def test_files_and_cameras_are_classified_as_the_request_says(engine: Asked) -> None:
    Path("a.mp4").touch()
    told: list[LiveClip] = []
    request = PredictRequest(
        model=ModelRequest(weights="random"),
        inputs=("a.mp4", "camera:0"),
        top_k=3,
        every_seconds=1.5,
        min_score=0.3,
        duration_seconds=9.0,
    )
    task.predict(request, on_clip=told.append)
    asked = {"top_k": 3, "every_seconds": 1.5, "min_score": 0.3}
    assert engine.options == {"a.mp4": asked, "camera:0": {**asked, "duration_seconds": 9.0}}
    assert told == [CLIP]


def test_a_camera_is_classified_every_two_seconds_if_nothing_is_said(engine: Asked) -> None:
    task.predict(PredictRequest(model=ModelRequest(weights="random"), inputs=("camera:0",)))
    asked = {"top_k": 5, "every_seconds": 2.0, "min_score": None, "duration_seconds": None}
    assert engine.options == {"camera:0": asked}


def test_frames_in_memory_are_classified_as_the_call_says(engine: Asked) -> None:
    video = np.zeros((2, 8, 8, 3), np.uint8)
    dualformer_cli.predict([video, video], fps=12.0, top_k=3, every_seconds=1.5, min_score=0.3, weights="random")
    asked = {"fps": 12.0, "top_k": 3, "every_seconds": 1.5, "min_score": 0.3}
    assert engine.options == {"video 0": asked, "video 1": asked}
