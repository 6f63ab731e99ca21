"""Every option of a command is in the request that its task gets."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from dualformer_cli.app import app
from dualformer_cli.tasks.evaluate import EvaluateRequest
from dualformer_cli.tasks.export import ExportRequest
from dualformer_cli.tasks.flops import FlopsRequest
from dualformer_cli.tasks.gradcam import GradcamRequest
from dualformer_cli.tasks.predict import PredictRequest
from dualformer_cli.tasks.prepare import PrepareRequest
from dualformer_cli.tasks.render import RenderRequest
from dualformer_cli.tasks.session import ModelRequest
from dualformer_cli.tasks.show_tokens import ShowTokensRequest
from dualformer_cli.tasks.train import TrainRequest
from dualformer_cli.tasks.write_token_labels import WriteLabelsRequest

WORDS = {
    "preset": "--preset k400-tiny",
    "weights": "--weights w.pth",
    "overrides": "--set data.min_frames=1 --set data.root=there",
    "device": "--device cpu",
    "precision": "--precision bf16",
    "compile": "--compile",
    "seed": "--seed 7",
    "views": "--views 2x3",
    "offline": "--offline",
}
"""How a command is told about its model, by the field of the request."""
WHOLE = ModelRequest(
    preset="k400-tiny",
    weights="w.pth",
    overrides=("data.min_frames=1", "data.root=there"),
    device="cpu",
    precision="bf16",
    compile=True,
    seed=7,
    views=(2, 3),
    offline=True,
)


def of_model(*names: str) -> tuple[str, ModelRequest]:
    """Return options about the model, and what they ask for."""
    words = " ".join(WORDS[name] for name in names)
    return words, ModelRequest(**{name: getattr(WHOLE, name) for name in names})


ALL, ALL_MODEL = of_model(*WORDS)
TRAINED, TRAINED_MODEL = of_model(*(name for name in WORDS if name not in ("weights", "views")))
DRAWN, DRAWN_MODEL = of_model(*(name for name in WORDS if name != "compile"))
SCORED, SCORED_MODEL = of_model(*(name for name in WORDS if name != "seed"))
COUNTED, COUNTED_MODEL = of_model("preset", "overrides", "device", "precision", "views")
WRITTEN, WRITTEN_MODEL = of_model("preset", "weights", "overrides", "offline")
SHOWN, SHOWN_MODEL = of_model("preset", "weights", "overrides", "device", "precision", "offline")
LABELLED, LABELLED_MODEL = of_model("preset", "overrides", "device", "precision", "offline")

CASES: dict[str, list[tuple[str, str, Any]]] = {
    "predict.predict": [
        (
            f"predict {ALL} a.mp4 b.mp4 --top-k 3 --every 1.5 --min-score 30 --output run --retry-failed --csv t.csv "
            "--srt s/ --vtt v/ --segments g.csv --save m.mp4 --font f.ttf --features x.npz --report r.html "
            "--duration 9 --overwrite",
            "",
            PredictRequest(
                model=ALL_MODEL,
                inputs=("a.mp4", "b.mp4"),
                top_k=3,
                min_score=0.3,
                every_seconds=1.5,
                duration_seconds=9.0,
                output=Path("run"),
                retry_failed=True,
                csv=Path("t.csv"),
                subtitles={"srt": Path("s"), "vtt": Path("v")},
                segments=Path("g.csv"),
                save=Path("m.mp4"),
                font=Path("f.ttf"),
                features=Path("x.npz"),
                report=Path("r.html"),
                overwrite=True,
            ),
        )
    ],
    "evaluate.evaluate": [
        (
            f"eval {SCORED} --data list.csv --dump d.jsonl --compare old.jsonl --report r.html --resume --overwrite",
            "from_dump",
            EvaluateRequest(
                model=SCORED_MODEL,
                data="list.csv",
                dump=Path("d.jsonl"),
                compare=Path("old.jsonl"),
                report=Path("r.html"),
                resume=True,
                overwrite=True,
            ),
        ),
        (
            "eval --from-dump old.jsonl",
            "model data dump compare report resume overwrite",
            EvaluateRequest(from_dump=Path("old.jsonl")),
        ),
    ],
    "train.train": [
        (
            f"train {TRAINED} --data list.csv --data val.csv --output run --resume --change train.lr=1 "
            "--change train.epochs=2 --init-from i.pt --teacher t.pt --log wandb,mlflow",
            "pretrained_2d token_labels",
            TrainRequest(
                model=TRAINED_MODEL,
                training_list="list.csv",
                validation_list="val.csv",
                output=Path("run"),
                resume=True,
                changes=("train.lr=1", "train.epochs=2"),
                init_from="i.pt",
                teacher="t.pt",
                log=("wandb", "mlflow"),
            ),
        ),
        (
            "train --preset k400-tiny --pretrained-2d timm --token-labels labels",
            "training_list validation_list output resume changes init_from teacher log",
            TrainRequest(model=ModelRequest(preset="k400-tiny"), pretrained_2d="timm", token_labels="labels"),
        ),
    ],
    "gradcam.gradcam": [
        (
            f"gradcam a.mp4 {DRAWN} --layer 3/0 --class run --score probability --deletion --concatenate --out o.mp4 "
            "--npz o.npz --fps 5 --alpha 0.25 --colormap turbo --font f.ttf --side-by-side --overwrite",
            "",
            GradcamRequest(
                model=DRAWN_MODEL,
                video="a.mp4",
                layer="3/0",
                class_="run",
                score="probability",
                deletion=True,
                concatenate=True,
                out=Path("o.mp4"),
                npz=Path("o.npz"),
                fps=5.0,
                alpha=0.25,
                colormap="turbo",
                font=Path("f.ttf"),
                side_by_side=True,
                overwrite=True,
            ),
        )
    ],
    "export.export": [
        (
            "export w.pth --format hub --output out --dynamic-batch --half --calibrate d.jsonl --eval e.json "
            f"{WRITTEN.replace(WORDS['weights'], '')} --overwrite",
            "",
            ExportRequest(
                model=WRITTEN_MODEL,
                format="hub",
                output=Path("out"),
                dynamic_batch=True,
                half=True,
                calibrate=Path("d.jsonl"),
                evaluation=Path("e.json"),
                overwrite=True,
            ),
        )
    ],
    "flops.flops": [
        (
            f"flops {COUNTED} --by-module --latency",
            "",
            FlopsRequest(model=COUNTED_MODEL, by_module=True, latency=True),
        )
    ],
    "show_tokens.show_tokens": [
        (
            f"tokenlabel show a.mp4 {SHOWN} --out o.png --head token --frames 3 --overwrite",
            "",
            ShowTokensRequest(
                model=SHOWN_MODEL, video="a.mp4", out=Path("o.png"), head="token", num_frames=3, overwrite=True
            ),
        )
    ],
    "write_token_labels.write_token_labels": [
        (
            f"tokenlabel write {LABELLED} --data list.csv --teacher w.pth --output labels --videos-per-shard 5",
            "",
            WriteLabelsRequest(
                model=LABELLED_MODEL,
                training_list="list.csv",
                teacher="w.pth",
                output=Path("labels"),
                videos_per_shard=5,
            ),
        )
    ],
    "prepare.prepare": [
        (
            "prepare videos --root out --check --transcode --short-side 100 --crf 30 --split 0.5/0.5 --seed 3 "
            "--group-pattern x --group-column who --group-look-alikes --labels t.csv --layout table --class-depth 2 "
            "--multi-label --formats video,json --show s.png --preset k400-small --set train.repeats=2 --workers 2 "
            "--timeout 9 --overwrite",
            "take_frames",
            PrepareRequest(
                names=("videos",),
                root=Path("out"),
                check=True,
                convert="transcode",
                short_side=100,
                quality=30,
                split="0.5/0.5",
                seed=3,
                group_pattern="x",
                group_column="who",
                group_look_alikes=True,
                labels="t.csv",
                layout="table",
                class_depth=2,
                multi_label=True,
                formats=("video", "json"),
                show=Path("s.png"),
                preset="k400-small",
                overrides=("train.repeats=2",),
                num_workers=2,
                timeout_seconds=9.0,
                overwrite=True,
            ),
        ),
        (
            "prepare ucf101 --frames --jpeg-quality 50 --take frames",
            "root check short_side split seed group_pattern group_column group_look_alikes labels layout class_depth "
            "multi_label formats show preset overrides num_workers timeout_seconds overwrite",
            PrepareRequest(names=("ucf101",), convert="frames", quality=50, take_frames=True),
        ),
    ],
    "render.render": [
        (
            "prepare camera-motion --root out --count 200 --pictures there --pictures scikit-image --num-frames 8 "
            "--difficulty 0.5 --busy 0.25 --seed 3 --workers 2 --overwrite",
            "",
            RenderRequest(
                root=Path("out"),
                count=200,
                pictures=("there", "scikit-image"),
                num_frames=8,
                difficulty=0.5,
                busy=0.25,
                seed=3,
                num_workers=2,
                overwrite=True,
            ),
        )
    ],
}
"""By the task: what is typed, fields of the request that nothing of it is about, and the request."""


@pytest.fixture
def _files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder with all that is named as an input, and no settings of the caller's."""
    monkeypatch.delenv("DUALFORMER_OFFLINE", raising=False)
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b.mp4", "w.pth", "list.csv", "old.jsonl"):
        Path(name).touch()
    Path("videos").mkdir()
    Path("d.jsonl.parts").mkdir()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests of all tasks, which do nothing else."""
    requests: list[Any] = []

    def task(request: Any, **_: object) -> None:
        requests.append(request)
        raise typer.Exit(0)

    for name in CASES:
        monkeypatch.setattr(f"dualformer_cli.tasks.{name}", task)
    return requests


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize(
    ("words", "expected"), [case[::2] for cases in CASES.values() for case in cases], ids=lambda each: str(each)[:30]
)
def test_every_option_is_in_the_request(words: str, expected: Any, asked: list[Any]) -> None:
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 0, result.output
    assert asked == [expected]


@pytest.mark.parametrize("task", CASES)
def test_no_field_of_a_request_is_left_out_above(task: str) -> None:
    for _, left_out, request in CASES[task]:
        defaults = {
            field.name: field.default_factory() if field.default_factory is not MISSING else field.default
            for field in fields(request)
        }
        unchanged = {name for name, default in defaults.items() if getattr(request, name) == default}
        assert unchanged == set(left_out.split())
