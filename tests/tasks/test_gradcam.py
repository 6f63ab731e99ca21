"""What a request asks of the maps, of their test by deletion, and of what draws them."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dualformer_cli.config.load import load_config
from dualformer_cli.engine.explain.gradcam import Layer
from dualformer_cli.engine.explain.heat_over_time import Timeline
from dualformer_cli.outputs.heatmap import Style
from dualformer_cli.tasks import gradcam as task
from dualformer_cli.tasks.gradcam import GradcamRequest
from dualformer_cli.tasks.session import ModelRequest

REQUEST = GradcamRequest(
    model=ModelRequest(),
    video="a.mp4",
    score="probability",
    deletion=True,
    out=Path("out.mp4"),
    fps=5.0,
    alpha=0.25,
    colormap="turbo",
    side_by_side=True,
    font=Path("f.ttf"),
)
SCORES = np.array([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]])
"""Of two clips and three classes."""


@pytest.fixture
def engine(mini_preset: Path) -> Any:
    """A model whose settings are none of the usual ones."""
    settings = ["data.test.short_side=80", "data.validation.short_side=96", "data.mean=[1,2,3]", "runtime.seed=7"]
    settings += ["data.decoder=pyav", "data.frame_rate=12", "data.frame_name=f_{:03}.jpg"]
    config = load_config(str(mini_preset), overrides=settings, environ={}).config
    return SimpleNamespace(config=config, preset="p", scorer=SimpleNamespace(score=lambda clips: (SCORES, None)))


@pytest.fixture
def found() -> Any:
    return SimpleNamespace(grid=np.ones((2, 1, 1, 1), np.float32), class_index=2, label="run", score=0.5)


def test_the_maps_and_their_test_are_of_the_class_and_as_the_configuration_says(
    engine: Any, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def explain(engine: Any, clips: Any, layer: Layer, *, on_pass: Any, **options: Any) -> Any:
        asked["explain"] = (layer, options)
        return found

    def delete(score: Any, clips: Any, heat: Any, *, on_scored: Any, **options: Any) -> str:
        asked["delete"] = (score(clips).tolist(), heat is found.grid, options)
        return "curves"

    monkeypatch.setattr("dualformer_cli.engine.explain.gradcam.explain", explain)
    monkeypatch.setattr("dualformer_cli.engine.explain.deletion.delete", delete)
    views: Any = SimpleNamespace(clips=np.zeros((2, 8, 64, 64, 3), np.uint8))
    watching: Any = lambda total: nullcontext(lambda: None)  # noqa: E731
    assert task._explain(REQUEST, engine, views, Layer(3, 0), 2, watching) == (found, "curves")
    assert asked["explain"] == (Layer(3, 0), {"class_index": 2, "score": "probability"})
    assert asked["delete"] == ([0.7, 0.4], True, {"colour": (1, 2, 3), "seed": 7})


@pytest.mark.parametrize(("concatenate", "name"), [(False, "merge_views"), (True, "concatenate_views")])
def test_views_are_laid_onto_the_frames_that_the_test_has(
    concatenate: bool, name: str, engine: Any, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked(Exception):  # noqa: N818
        """The short side of the frames."""

    def lay(explanation: Any, views: Any, short_side: int) -> Any:
        raise Asked(short_side)

    monkeypatch.setattr("dualformer_cli.engine.explain.gradcam.read_video", lambda *_: None)
    monkeypatch.setattr(task, "_explain", lambda *_: (found, None))
    monkeypatch.setattr(f"dualformer_cli.engine.explain.heat_over_time.{name}", lay)
    request = GradcamRequest(model=ModelRequest(), video="a.mp4", concatenate=concatenate)
    session: Any = SimpleNamespace(pool=None)
    unwatched: Any = None
    with pytest.raises(Asked, match=r"^80$"):
        task._explain_and_write(request, session, engine, Layer(3, 0), None, unwatched, lambda document: None)


def test_the_drawing_is_as_the_request_and_the_configuration_say(
    engine: Any, found: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn: list[Any] = []

    def call(function: Any, drawing: Any) -> Any:
        drawn.append(drawing)
        Path(drawing.target).touch()
        return SimpleNamespace(result=lambda: None)

    timeline = Timeline(
        frames=np.array([4, 6]),
        heatmaps=np.array([[[0.0]], [[1.0]]], np.float32),
        boxes=np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.float64),
        curve=np.array([0, 1], np.float32),
        breaks=(),
    )
    views: Any = SimpleNamespace(info=SimpleNamespace(fps=25.0))
    session: Any = SimpleNamespace(pool=SimpleNamespace(call=call))
    task._draw(REQUEST, session, engine, views, found, timeline, Layer(3, 0))
    (drawing,) = drawn
    assert (drawing.video, drawing.decoder, drawing.frame_rate, drawing.frame_name) == (
        *("a.mp4", "pyav"),
        *(12.0, "f_{:03}.jpg"),
    )
    assert (drawing.fps, drawing.font) == (5.0, "f.ttf")
    assert drawing.style == Style(alpha=0.25, colormap="turbo", side_by_side=True)
    assert (drawing.heatmaps.heat.ravel().tolist(), drawing.heatmaps.numbers.tolist()) == ([0, 255], [4, 6])
    assert (drawing.heatmaps.fps, drawing.heatmaps.title) == (25.0, "run, score 50.0%")
    assert Path("out.mp4").exists()
