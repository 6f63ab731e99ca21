"""What Python users call: videos from files and memory, models that know what they are, no torch before it is due."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch

import dualformer_cli
from dualformer_cli import create_model, evaluate, gradcam, load_weights, predict, train
from dualformer_cli.documents.evaluate import Evaluation
from dualformer_cli.documents.predict import Predictions
from dualformer_cli.documents.train import StepRow
from dualformer_cli.errors import DualFormerError
from dualformer_cli.model.dualformer import DualFormer
from dualformer_cli.tasks import python
from dualformer_cli.tasks.evaluate import EvaluateRequest
from dualformer_cli.tasks.gradcam import GradcamRequest
from dualformer_cli.tasks.predict import PredictRequest
from dualformer_cli.tasks.session import ModelRequest
from dualformer_cli.tasks.train import TrainRequest

Frames = npt.NDArray[np.uint8]


@pytest.fixture
def clip(clip_drawer: Callable[..., Path], tmp_path: Path) -> Path:
    return clip_drawer(tmp_path / "clip.mp4")


@pytest.fixture
def frames(clip: Path) -> Frames:
    with av.open(str(clip)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


@pytest.fixture
def model(mini_preset: Path, mini_weights: Path) -> DualFormer:
    found = create_model(mini_preset)
    load_weights(found, mini_weights)
    return found


def test_names_are_listed_and_none_of_them_loads_torch() -> None:
    code = (
        "import sys, dualformer_cli as d\n"
        "names = {'create_model', 'evaluate', 'gradcam', 'load_weights', 'predict', 'train'}\n"
        "assert names <= set(dir(d)) and names <= set(d.__all__), dir(d)\n"
        "from dualformer_cli import predict, create_model\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'predikt'"):
        dualformer_cli.predikt  # noqa: B018


def test_frames_in_memory_are_classified_like_their_file(clip: Path, frames: Frames, model: DualFormer) -> None:
    """PyAV's RGB is what the reader makes too, so that all ways give the same digits."""
    (wanted,) = predict(clip, model=model).results
    assert wanted.status == "ok", wanted.error
    for video in (frames, iter(frames), [frames], (frame for frame in frames), torch.from_numpy(frames)):
        document = predict(video, fps=25, model=model)
        assert isinstance(document, Predictions)
        (found,) = document.results
        assert found.predictions == wanted.predictions
        assert (found.num_frames, found.fps, found.duration_seconds) == (40, 25, pytest.approx(1.6))
    assert document.facts.weights == "in memory"


@pytest.mark.parametrize("antialias", [False, True])
def test_frames_in_memory_are_shrunk_and_cut_as_those_of_their_file(
    antialias: bool, clip_drawer: Callable[..., Path], model: DualFormer, tmp_path: Path
) -> None:
    clip = clip_drawer(tmp_path / "large.mp4", size=(240, 160))
    with av.open(str(clip)) as file:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    settings = {"data.test.short_side": 80, "data.antialias": antialias}
    wanted, *found = (
        predict(each, model=model, views=(2, 3), settings=settings).results[0]
        for each in (clip, frames, iter(frames))  # frames of an iterator are made small before they are asked for
    )
    assert wanted.views == 6
    assert [each.predictions for each in found] == [wanted.predictions] * 2


def test_a_timeline_of_frames_is_that_of_the_file(
    clip: Path, frames: Frames, model: DualFormer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualformer_cli.engine.engine.SEGMENTS_PER_READ", 3)
    (wanted,) = predict(str(clip), model=model, every_seconds=0.2).results
    for video in (frames, iter(frames)):
        (found,) = predict(video, fps=25, model=model, every_seconds=0.2).results
        assert found.segments == wanted.segments
        assert found.segments is not None
        assert found.segments[-1].end_seconds == pytest.approx(1.6)
    with pytest.raises(ValueError, match="needs their fps"):
        predict(frames, model=model, every_seconds=0.2)


def test_several_videos_come_one_after_the_other(frames: Frames, model: DualFormer) -> None:
    started: list[int] = []

    def videos() -> Iterator[Frames]:
        for number in (40, 1, 20):
            started.append(number)
            yield frames[:number]

    results = predict(videos(), model=model, top_k=2).results
    assert started == [40, 1, 20]
    assert [(result.path, result.status, result.num_frames) for result in results] == [
        ("video 0", "ok", 40),
        ("video 1", "error", None),
        ("video 2", "ok", 20),
    ]
    assert results[1].error is not None
    assert results[1].error.startswith("has 1 frame; at least 2 are needed")
    assert len(results[0].predictions) == 2


@pytest.mark.parametrize("wrong", ["float", "grey", "empty"])
def test_frames_of_another_kind_are_refused(wrong: str, frames: Frames, model: DualFormer) -> None:
    video: Any = {"float": frames / 255, "grey": frames[..., :1], "empty": frames[:0]}[wrong]
    for given in (video, iter([video])):
        with pytest.raises(ValueError, match="has no frames" if wrong == "empty" else r"must be uint8 of shape \(H, W"):
            predict(given, model=model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 0}, "fps must be positive, got 0"),
        ({"fps": -1}, "fps must be positive, got -1"),
        ({"fps": float("nan")}, "fps must be positive, got nan"),
        ({"top_k": 0}, "top_k must be a whole number from 1, got 0"),
        ({"top_k": 2.5}, "top_k must be a whole number from 1, got 2.5"),
        ({"min_score": 30}, "min_score must be from 0 to 1, got 30"),
        ({"fps": 25, "every_seconds": -1}, "every_seconds must be positive, got -1"),
        ({"views": "4x3"}, "views must be the numbers of clips and crops, as (4, 3); got '4x3'"),
        ({"settings": "data.min_frames=2"}, "settings must be keys with values"),
        ({"preset": "k400-tiny"}, "model says already which model runs; leave preset out"),
        ({"model": "camera-motion"}, "model must be one that create_model made, got str"),
        ({"model": torch.nn.Linear(2, 2)}, "model must be one that create_model made, got Linear"),
    ],
)
def test_an_option_out_of_its_range_is_refused(
    change: dict[str, Any], message: str, frames: Frames, model: DualFormer
) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        predict(frames, **{"model": model, **change})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create_model(None), "preset must be a name or a path, got None"),  # type: ignore[arg-type]
        (lambda: create_model("tiny", pretrained="no"), "pretrained must be True or False, got 'no'"),  # type: ignore[arg-type]
        (lambda: create_model("tiny", num_classes=True), "num_classes must be a number, got True"),
        (lambda: create_model("tiny", num_classes=10**30), "num_classes must be from 1 to 1,000,000, got 1"),
        (lambda: load_weights(3, "a.pt"), "model must be one that create_model made, got int"),  # type: ignore[arg-type]
        (lambda: load_weights(None, ["a"]), "source must be a name, a path or a state dict, got ['a']"),  # type: ignore[arg-type]
        (lambda: predict("a.mp4", fps="25"), "fps must be a number, got '25'"),  # type: ignore[arg-type]
        (lambda: predict("a.mp4", weights=b"w"), "weights must be a name or a path, got b'w'"),  # type: ignore[typeddict-item]
        (lambda: predict("a.mp4", views=torch.ones(2)), "views must be the numbers of clips and crops"),  # type: ignore[typeddict-item]
        (lambda: predict("a.mp4", offline=0), "offline must be True or False, got 0"),  # type: ignore[typeddict-item]
        (lambda: evaluate(["a.csv"]), "data must be a name or a path, got ['a.csv']"),  # type: ignore[arg-type]
        (lambda: evaluate("a.csv", dump="a\0b"), "dump must not be empty or hold a zero byte, got 'a\\x00b'"),
        (lambda: evaluate("a.csv", overwrite=torch.ones(2)), "overwrite must be True or False, got tensor([1., 1.])"),  # type: ignore[arg-type]
        (lambda: gradcam("a.mp4", layer=3), "layer must be text, got 3"),  # type: ignore[arg-type]
        (lambda: gradcam("a.mp4", class_=[1]), "class_ must be the name or the number of a class, got [1]"),  # type: ignore[arg-type]
        (lambda: train("a.csv", output=""), "output must not be empty or hold a zero byte, got ''"),
        (lambda: train("a.csv", log=[1]), "log must be names of trackers, got [1]"),  # type: ignore[list-item]
        (lambda: train("a.csv", on_event="print"), "on_event must be a function, got 'print'"),  # type: ignore[arg-type]
    ],
)
def test_an_argument_of_another_kind_is_named_before_anything_is_done(
    call: Callable[[], object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((TypeError, ValueError, DualFormerError)) as caught:
        call()
    assert message in str(caught.value)
    assert capsys.readouterr().out == ""


def test_inputs_of_another_kind_are_refused(frames: Frames, clip: Path, model: DualFormer) -> None:
    for wrong, got in ((5, "int"), (None, "NoneType"), (b"clip.mp4", "bytes")):
        with pytest.raises(TypeError, match=f"must be names of files, or frames in memory; got {got}"):
            predict(wrong, model=model)  # type: ignore[arg-type]
    for mixed in ([clip, frames], [frames, str(clip)]):
        with pytest.raises(TypeError, match="all names of files, or all frames in memory"):
            predict(mixed, model=model)
    with pytest.raises(ValueError, match=r"must be uint8 of shape \(T, H, W, 3\), got uint8 \(48, 64, 3\)"):
        predict(frames[0, :48, :64], model=model)
    with pytest.raises(ValueError, match="fps is said of frames in memory"):
        predict(clip, fps=25, model=model)
    assert len(predict(np.stack([frames, frames]), model=model).results) == 2


def test_a_misspelt_option_is_refused_and_settings_are_typed(frames: Frames, model: DualFormer) -> None:
    with pytest.raises(TypeError, match="unknown option 'modell'; known: model, preset"):
        predict(frames, modell=model)  # type: ignore[call-arg]
    settings = {"data.min_frames": 41, "data.mean": [1, 2, 3.5], "data.root": None}
    (result,) = predict(frames, model=model, settings=settings, views=(1, 3)).results
    assert result.error == ("has 40 frames; at least 41 are needed, or allow fewer with --set data.min_frames=1")
    assert predict(frames, model=model, views=(1, 3)).results[0].views == 3


def test_a_model_stays_as_it_was(frames: Frames, model: DualFormer) -> None:
    model.train()
    predict(frames, model=model, precision="bf16")
    assert model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_model_knows_what_it_is() -> None:
    model = create_model("camera-motion", pretrained=True, offline=True)
    assert (model.input_size, model.num_classes) == ((16, 96, 96), 10)
    assert (model.mean, model.std) == ((110, 110, 110), (58, 58, 58))
    assert model.class_names is not None
    assert model.class_names[:2] == ["static", "pan left"]
    assert not model.training
    other = create_model("camera-motion", num_classes=3, pretrained=True)
    assert (other.num_classes, other.class_names, other.classifier.out_features) == (3, None, 3)
    assert torch.equal(other.stages[0].patch_embed.proj.weight, model.stages[0].patch_embed.proj.weight)  # type: ignore[union-attr]
    assert other.config is not None
    assert "num_classes: 3" in other.config


def test_a_model_takes_the_class_names_of_the_weights_that_it_loads(mini_preset: Path, tmp_path: Path) -> None:
    model, names = create_model(mini_preset), ["e", "d", "c", "b", "a"]
    before = model.class_names
    assert before not in (None, names)
    torch.save({"model": model.state_dict()}, tmp_path / "nameless.pt")
    load_weights(model, tmp_path / "nameless.pt")
    assert model.class_names == before
    torch.save({"model": model.state_dict(), "class_names": names}, tmp_path / "named.pt")
    load_weights(model, tmp_path / "named.pt")
    assert model.class_names == names


def test_a_model_without_weights_says_so_once(mini_preset: Path, caplog: pytest.LogCaptureFixture) -> None:
    python._say_random.cache_clear()
    with caplog.at_level(logging.WARNING, "dualformer_cli"):
        create_model("camera-motion", pretrained=True)
        assert caplog.messages == []
        create_model(str(mini_preset))
        create_model(str(mini_preset))
    assert len(caplog.messages) == 1
    assert "random weights" in caplog.messages[0]


def test_lists_are_scored_and_maps_drawn(clip: Path, model: DualFormer, tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text("path,label\nclip.mp4,running\n")
    document = evaluate(tmp_path / "val.csv", model=model, dump=tmp_path / "val.jsonl")
    assert isinstance(document, Evaluation)
    assert document.summary.videos.scored == 1
    assert (tmp_path / "val.jsonl").exists()
    drawn = gradcam(clip, model=model, class_=3, out=tmp_path / "map.png")
    assert (drawn.class_.index, drawn.output) == (3, str(tmp_path / "map.png"))
    assert (tmp_path / "map.png").exists()


def test_every_argument_is_in_the_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []
    for name in ("predict.predict", "evaluate.evaluate", "train.train", "gradcam.gradcam"):
        monkeypatch.setattr(f"dualformer_cli.tasks.{name}", lambda request, **_: asked.append(request))
    options: Any = {
        "preset": tmp_path / "p.yaml",
        "settings": {"data.root": None, "data.mean": [1, 2, 3]},
        "device": "cpu",
        "precision": "bf16",
        "compile": True,
        "seed": 7,
        "views": (2, 3),
        "offline": True,
    }
    expected = ModelRequest(
        preset=str(tmp_path / "p.yaml"),
        overrides=("data.root=null", "data.mean=[1, 2, 3]"),
        device="cpu",
        precision="bf16",
        compile=True,
        seed=7,
        views=(2, 3),
        offline=True,
    )
    weights, of_weights = {**options, "weights": Path("w.pt")}, replace(expected, weights="w.pt")
    predict(["a.mp4", Path("b.mp4")], top_k=3, every_seconds=1.5, min_score=0.3, **weights)
    evaluate("list.csv", dump="d.jsonl", report="r.html", overwrite=True, **weights)
    train(
        "list.csv",
        "val.csv",
        output="run",
        resume=True,
        init_from="i.pt",
        teacher=Path("t.pt"),
        log=["wandb", "mlflow"],
        **options,
    )
    gradcam("a.mp4", layer="3/0", class_=3, out="o.mp4", npz="o.npz", overwrite=True, **weights)
    assert asked == [
        PredictRequest(model=of_weights, inputs=("a.mp4", "b.mp4"), top_k=3, every_seconds=1.5, min_score=0.3),
        EvaluateRequest(model=of_weights, data="list.csv", dump=Path("d.jsonl"), report=Path("r.html"), overwrite=True),
        TrainRequest(
            model=expected,
            training_list="list.csv",
            validation_list="val.csv",
            output=Path("run"),
            resume=True,
            init_from="i.pt",
            teacher="t.pt",
            log=("wandb", "mlflow"),
        ),
        GradcamRequest(
            model=of_weights,
            video="a.mp4",
            layer="3/0",
            class_="3",
            out=Path("o.mp4"),
            npz=Path("o.npz"),
            overwrite=True,
        ),
    ]


def test_training_tells_what_happens(
    mini_preset: Path, clip_drawer: Callable[..., Path], tmp_path: Path, model: DualFormer
) -> None:
    rows = [
        f"{clip_drawer(tmp_path / f'{n}.mp4', num_frames=12 + n)},{label}"
        for n, label in enumerate(["running", "jumping"])
    ]
    (tmp_path / "list.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    settings = {"train.epochs": 1, "train.batch_size": 2, "train.global_batch_size": 2, "train.log_every_steps": 1}
    lists = (tmp_path / "list.csv", tmp_path / "list.csv")
    events: list[object] = []
    options: Any = {
        "preset": str(mini_preset),
        "settings": {**settings, "runtime.num_workers": 1, "data.classes": None},
    }
    result = train(*lists, output=tmp_path / "run", on_event=events.append, **options)
    assert result is not None
    assert any(isinstance(event, StepRow) for event in events)
    trained = create_model(str(tmp_path / "run" / "checkpoints" / "last.pt"), pretrained=True)
    assert trained.class_names == ["jumping", "running"]
    for log, missing in (("wand", r"'wand' is no tracker"), (["tensorboard", "m"], r"'m' is no tracker")):
        with pytest.raises(DualFormerError, match=missing):
            train(*lists, output=tmp_path / "other", log=log, **options)
    with pytest.raises(ValueError, match="train makes its own model"):
        train(*lists, output=tmp_path / "other", model=model)
    with pytest.raises(DualFormerError, match="there is no recipe: name a preset"):
        train(*lists, output=tmp_path / "other")
    with pytest.raises(DualFormerError, match=r"is a file of weights: take them with create_model\(.*pretrained=True"):
        create_model(tmp_path / "run" / "checkpoints" / "last.pt")
