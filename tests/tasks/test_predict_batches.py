"""A model inside a data pipeline says what `predict` says."""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualformer_cli.tasks.predict import PredictRequest, predict
from dualformer_cli.tasks.predict_batches import BatchPredictor
from dualformer_cli.tasks.session import ModelRequest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def model(mini_preset: Path, mini_weights: Path) -> ModelRequest:
    return ModelRequest(preset=str(mini_preset), weights=str(mini_weights), device="cpu")


@pytest.fixture
def paths(tmp_path: Path, clip_drawer: Callable[..., Path]) -> list[str]:
    """Three clips and a file that is none."""
    (tmp_path / "d.mp4").write_bytes(b"no video")
    clips = [clip_drawer(tmp_path / f"{name}.mp4", num_frames=20 + ord(name) % 7) for name in "abc"]
    return [*map(str, clips), str(tmp_path / "d.mp4")]


@pytest.fixture
def expected(model: ModelRequest, paths: list[str]) -> list[tuple[str, str, float, str]]:
    """Path, label, score and error of each, from `predict`."""
    document = predict(PredictRequest(model=model, inputs=tuple(paths)))
    best = [(each, each.predictions[0] if each.predictions else None) for each in document.results]  # type: ignore[union-attr]
    return [(each.path, top.label if top else "", top.score if top else -1.0, each.error or "") for each, top in best]


def rows(batch: Any) -> list[tuple[str, str, float, str]]:
    return [
        (path, label, -1.0 if math.isnan(score) else score, error)
        for path, label, score, error in zip(
            batch["path"], batch["label"], map(float, batch["score"]), batch["error"], strict=True
        )
    ]


def test_batch_after_batch_gets_the_labels_of_predict(
    model: ModelRequest, paths: list[str], expected: list[tuple[str, str, float, str]]
) -> None:
    predictor = BatchPredictor(model)
    try:
        found = []
        for part in (paths[:1], paths[1:], []):
            done = predictor({"path": np.array(part, dtype=object), "more": np.arange(len(part))})
            assert list(done) == ["path", "more", "label", "score", "error"]
            assert done["more"].tolist() == list(range(len(part)))
            found += rows(done)
        assert found == expected
        assert found[3][1:3] == ("", -1.0)
    finally:
        predictor.close()
    other = BatchPredictor(model, column="file")
    assert other({"file": np.array(paths[:1])})["label"].tolist() == [expected[0][1]]
    other.close()


@pytest.fixture
def local_ray() -> Iterator[Any]:
    pytest.importorskip("ray.data", reason="Ray is not installed: pip install dualformer[ray]")
    import ray

    inherited = ":".join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        configure_logging=False,
        runtime_env={"env_vars": {"PYTHONPATH": inherited, "OMP_NUM_THREADS": "1"}},
    )
    yield ray
    ray.shutdown()


def test_a_local_ray_gets_the_labels_of_predict(
    model: ModelRequest, paths: list[str], expected: list[tuple[str, str, float, str]], local_ray: Any
) -> None:
    videos = local_ray.data.from_items([{"path": path} for path in paths])
    arguments = {"fn_constructor_kwargs": {"model": model}, "batch_size": 2, "concurrency": 1}
    done = videos.map_batches(BatchPredictor, **arguments).take_all()
    columns = {name: [row[name] for row in done] for name in done[0]}
    assert sorted(rows(columns)) == sorted(expected)


def test_the_page_gives_the_class_what_it_takes() -> None:
    page = (REPOSITORY / "dualformer_cli" / "docs" / "predict-many.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    compile(block, "predict-many.md", "exec")
    named = re.search(r"BatchPredictor,\s+fn_constructor_kwargs=(\{.*?\}),", block)
    assert named is not None
    inspect.signature(BatchPredictor).bind(**eval(named[1], {"ModelRequest": ModelRequest}))
