"""The options, files and ends of `dualformer train`."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from checkpoints import load_checkpoint
from training_runs import SMALL_RUN
from typer.testing import CliRunner

from dualformer_cli.app import app
from dualformer_cli.config.load import load_config
from dualformer_cli.documents.train import StepRow, TrainEvent
from dualformer_cli.errors import DualFormerError
from dualformer_cli.outputs.training_display import TrainingDisplay

RUNNER = CliRunner(env={"COLUMNS": "100"})


@pytest.fixture
def train(
    _own_environment: None, mini_preset: Path, six_videos: Path, here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """The function train(*options) -> result of the command on two epochs of three steps, decoding in this process."""
    monkeypatch.setattr("dualformer_cli.engine.training.loop.WorkerPool", here_pool)

    def run(*options: object) -> Any:
        arguments = [
            "train",
            "--preset",
            str(mini_preset),
            "--data",
            str(six_videos),
            *SMALL_RUN,
            "--set",
            "train.epochs=2",
        ]
        return RUNNER.invoke(app, [*arguments, *map(str, options)])

    return run


def test_a_run_leaves_a_folder_that_explains_itself(train: Any, six_videos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = train("--data", six_videos, "--output", run, "--seed", "3")
    assert result.exit_code == 0, result.output
    trained, best, *following = result.stdout.splitlines()
    assert re.fullmatch(r"trained  2 epochs, 6 steps, top-1 [\d.]+%, mean class .*", trained)
    assert result.stderr.splitlines()[-1] == f"wrote config.yaml, log.jsonl, curves.png and checkpoints in {run}"
    assert re.fullmatch(rf"best     {re.escape(str(run))}/checkpoints/best\.pt \(top-1 [\d.]+%\)", best)
    weights = f"--weights {run}/checkpoints/best.pt"
    assert following == [
        f"next     dualformer eval {weights} --data {shlex.quote(str(six_videos))}",
        f"next     dualformer predict {weights} VIDEO",
    ]
    assert "2 clips per step (kept): 1 process x 2 clips x 1 pass" in result.stderr
    assert re.search(
        r"epoch 2/2, step 6/6: loss \d\.\d{4}, lr .* clips/s, \d+% waiting for data, .* left", result.stderr
    )
    assert "validation after epoch 2/2: top-1" in result.stderr
    assert len(re.findall("; the best so far$", result.stderr, re.MULTILINE)) in (1, 2)
    config = load_config(str(run / "config.yaml"), environ={}).config
    assert (config.runtime.seed, config.data.train_list, config.train.epochs) == (3, str(six_videos), 2)
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["event"] for row in rows] == [*["step"] * 3, "validation"] * 2
    assert (run / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert load_checkpoint(run / "checkpoints" / "best.pt")["progress"]["step"] in (3, 6)


def test_tensorboard_has_the_numbers_of_the_log_once_also_after_a_resumed_run(train: Any, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    assert train("--output", run, "--log", "tensorboard", "--set", "train.epochs=1").exit_code == 0
    assert train("--output", run, "--log", "tensorboard", "--resume", "--change", "train.epochs=2").exit_code == 0
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [(event.step, event.tensor_proto.float_val[0]) for event in events.Tensors("training/loss")]
    assert losses == [(row["step"], pytest.approx(row["loss"])) for row in rows if row["event"] == "step"]
    assert {"training/lr", "training/clips_per_second"} <= set(events.Tags()["tensors"])


def test_trackers_that_are_missing_are_named_before_anything_is_made(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = train("--output", tmp_path / "run", "--log", "tensorboard,wandb", "--log", "mlflow")
    assert isinstance(result.exception, DualFormerError)
    missing = "tensorboard,wandb,mlflow"
    assert str(result.exception) == (
        f"--log {missing} needs what is not installed: pip install 'dualformer[{missing}]'"
    )
    assert not (tmp_path / "run").exists()


def test_trackers_get_what_the_log_has_and_may_fail(
    train: Any, six_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a run that a signal stops after its second step, and that goes on."""
    run = tmp_path / "run"
    taken: list[tuple[str, int, float]] = []
    calls: list[tuple[str, str | None]] = []

    class Tracker:
        note = None

        def __init__(self, name: str, output: Path, *, offline: bool) -> None:
            assert (output, offline) == (run, True)
            self.name = name

        def start(self, run_id: str | None, config: Any) -> str:
            assert (config.train.epochs, config.data.train_list) == (2, str(six_videos))
            calls.append((self.name, run_id))
            return "its id"

        def write(self, step: int, values: dict[str, float]) -> None:
            if self.name == "mlflow":
                raise ConnectionError("no route to the server")
            taken.extend((name, step, value) for name, value in values.items() if name.endswith("/loss"))

        def close(self, end: str) -> None:
            calls.append((self.name, end))

    monkeypatch.setattr("dualformer_cli.outputs.tracker_events.open_tracker", Tracker)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: ModuleSpec(name, None))
    event = TrainingDisplay.event

    def interrupt(self: Any, found: TrainEvent) -> None:
        event(self, found)
        if isinstance(found, StepRow) and found.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(TrainingDisplay, "event", interrupt)
    options = ("--output", run, "--data", six_videos, "--offline", "--log", "wandb,mlflow", "--log", "wandb")
    stopped = train(*options)
    assert stopped.exit_code == 75, stopped.output
    assert stopped.stderr.endswith(f"\ndualformer train --resume --output {run} --log wandb,mlflow\n")
    monkeypatch.setattr(TrainingDisplay, "event", event)
    resumed = train(*options, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert calls[:2] == [("wandb", None), ("mlflow", None)]
    assert set(calls[2:4]) == {("wandb", "stopped"), ("mlflow", "stopped")}
    assert calls[4:6] == [("wandb", "its id"), ("mlflow", "its id")]
    assert set(calls[6:]) == {("wandb", "finished"), ("mlflow", "finished")}
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    names = {"step": "training/loss", "validation": "validation/loss"}
    assert taken == [(names[row["event"]], row["step"], row["loss"]) for row in rows]
    assert [step for _, step, _ in taken] == [1, 2, 3, 3, 4, 5, 6, 6]
    warnings = [message for message in caplog.messages if "the run goes on" in message]
    assert warnings == ["the run goes on, but mlflow lacks numbers, which log.jsonl has: no route to the server"] * 2


def test_json_is_one_document(train: Any, tmp_path: Path) -> None:
    result = train("--output", tmp_path / "run", "--json")
    document = json.loads(result.stdout)
    assert (document["epochs"], document["steps"], document["validation"]) == (2, 6, None)


def test_a_dry_run_prints_its_table_and_leaves_no_folder(train: Any, tmp_path: Path) -> None:
    result = train("--output", tmp_path / "run", "--dry-run")
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "run").exists()
    names = [line.split("  ")[0] for line in result.stdout.splitlines()]
    assert [name for name in names if name not in ("start", "warning")] == [
        *("classes", "lr", "steps", "peak memory", "reading", "model", "measured", "time", "disk")
    ]
    shown = [line.removeprefix("dry run: ") for line in result.stderr.splitlines() if line.startswith("dry run: ")]
    assert shown[:4] == [
        "1/4, opening lists and model",
        "2/4, reading videos",
        "3/4, first forward and backward pass",
        "4/4, second pass, which counts",
    ]
    assert re.fullmatch(r"4/4 done in \d+ s", shown[4])
    document = json.loads(train("--output", tmp_path / "run", "--dry-run", "--json").stdout)
    assert (document["classes"], document["steps"]) == (5, 6)


def test_a_folder_with_a_run_needs_resume(train: Any, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    result = train("--output", tmp_path / "run")
    assert isinstance(result.exception, DualFormerError)
    assert str(result.exception) == (
        f"{str(tmp_path / 'run')!r} holds a run already; go on with `dualformer train --resume --output "
        f"{tmp_path / 'run'}`, or name another --output"
    )
    resumed = train("--output", tmp_path / "run", "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "nothing to resume" in resumed.stderr
    again = train("--output", tmp_path / "run", "--resume")
    assert "resumed after 2 epochs, at step 6" in again.stderr


def typed(*words: object) -> Any:
    return RUNNER.invoke(app, ["train", *map(str, words)])


def test_a_run_goes_on_from_another_folder_without_its_preset(
    train: Any, six_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(six_videos.parent)
    run = tmp_path / "run"
    begun = train("--data", "list.csv", "--output", run, "--set", "data.root=.", "--set", "train.max_unreadable=0")
    assert begun.exit_code == 0, begun.output
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = typed("--resume", "--output", "../run/", "--change", "train.epochs=3")
    assert result.exit_code == 0, result.output
    assert "resumed after 2 epochs, at step 6" in result.stderr
    assert "epoch 3/3, step 9/9" in result.stderr
    assert (tmp_path / "elsewhere").stat().st_nlink == 2


def test_without_a_run_there_is_nothing_to_resume(tmp_path: Path, train: Any) -> None:
    result = typed("--resume", "--output", tmp_path / "run")
    assert str(result.exception) == (
        f"no run to resume in {str(tmp_path / 'run')!r}: it has no config.yaml; name a run's folder as --output"
    )


def test_weights_bring_their_recipe_and_keep_their_lists_to_themselves(
    train: Any, six_videos: Path, mini_weights: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    assert train("--data", six_videos, "--output", first, "--set", "train.lr=0.0123").exit_code == 0
    own = six_videos.with_name("own.csv")
    own.write_text("path,label\nvideo 0.mp4,cat\nvideo 1.mp4,dog\nvideo 2.mp4,dog\n")
    best = first / "checkpoints" / "best.pt"
    result = typed("--init-from", best, "--data", own, "--output", tmp_path / "second", "--set", "train.epochs=1")
    assert result.exit_code == 0, result.output
    assert f"started from {best}: " in result.stderr
    config = load_config(str(tmp_path / "second" / "config.yaml"), environ={}).config
    assert (config.train.lr, config.data.clip.frame_interval, config.model.num_classes) == (0.0123, 1, 2)
    assert (config.data.train_list, config.data.validation_list) == (str(own), None)
    again = typed("--init-from", best, "--print-config")
    assert re.search(rf"validation_list: {re.escape(str(six_videos))} ", again.stdout)
    unknown = typed("--init-from", mini_weights, "--data", own)
    assert str(unknown.exception) == (
        f"weights {str(mini_weights)!r} do not say their configuration; name the recipe with --preset"
    )
    published = typed("--init-from", "ucf101-tiny", "--data", own, "--print-config")
    assert re.search(r"num_frames: 16 +# from preset ucf101-tiny", published.stdout)


def test_own_classes_are_no_warning(train: Any, six_videos: Path, tmp_path: Path, mini_preset: Path) -> None:
    own = six_videos.with_name("names.csv")
    own.write_text("path,label\nvideo 0.mp4,cat\nvideo 1.mp4,dog\n")
    options = (*SMALL_RUN, "--set", "train.epochs=1", "--output", tmp_path / "run")
    result = typed("--preset", mini_preset, "--data", own, *options)
    assert result.exit_code == 0, result.output
    assert "the classifier starts anew, with the list's 2 classes" in result.stderr
    assert "WARNING" not in result.stderr


def test_a_signal_ends_the_run_with_75_and_an_interrupt_with_130(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = TrainingDisplay.event
    for number, code in ((signal.SIGTERM, 75), (signal.SIGINT, 130)):

        def interrupt(self: Any, found: TrainEvent, number: int = number) -> None:
            event(self, found)
            if isinstance(found, StepRow) and found.step == 2:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(TrainingDisplay, "event", interrupt)
        run = tmp_path / number.name
        result = train("--output", run)
        assert result.exit_code == code, result.output
        assert f"stopped by {number.name}; the state is saved, go on with:\n" in result.stderr
        assert result.stderr.endswith(f"\ndualformer train --resume --output {run}\n")
        assert load_checkpoint(run / "checkpoints" / "last.pt")["progress"]["step_in_epoch"] == 2


def test_the_run_starts_from_the_weights_that_are_named(train: Any, mini_weights: Path, tmp_path: Path) -> None:
    result = train("--output", tmp_path / "run", "--init-from", mini_weights, "--dry-run")
    assert result.exit_code == 0, result.output
    assert f"started from {mini_weights}" in result.stdout
    assert "the classifier is kept: as many classes, but the weights do not say which" in result.stdout
    own = train("--output", tmp_path / "first", "--set", "train.epochs=1")
    assert own.exit_code == 0, own.output
    result = train("--output", tmp_path / "run", "--init-from", tmp_path / "first/checkpoints/last.pt", "--dry-run")
    assert "the classifier is kept: all classes are known by name" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--init-from", "a.pt", "--pretrained-2d", "timm"), "choose one of --init-from and --pretrained-2d"),
        (("--data", "b", "--data", "c"), "give one training list, and at most one for validation"),
        (("--gpus", "2", "--cpu-processes", "2"), "choose one of --gpus and --cpu-processes"),
    ],
)
def test_options_that_contradict_each_other_are_refused(train: Any, options: tuple[str, ...], message: str) -> None:
    result = train(*options)
    assert result.exit_code == 2
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", result.stderr).split())


@pytest.mark.usefixtures("_own_environment")
def test_a_recipe_must_be_named(six_videos: Path, tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["train", "--data", str(six_videos)])
    assert result.exit_code == 2
    recipe = "name the recipe with --preset, for example k400-tiny"
    assert f"--preset: {recipe}" in result.stderr
    (tmp_path / "prepared").mkdir()
    for files, advice in ((), f"dualformer prepare {tmp_path}, and give"), (("train.csv",), "name a list in it: "):
        for name in files:
            (tmp_path / "prepared" / name).touch()
        said = RUNNER.invoke(app, ["train", "--data", str(tmp_path)]).stderr
        assert f"list {str(tmp_path)!r} is a folder; {advice}" in said
        assert f"; and {recipe}" in said


def test_print_config_shows_lists_and_origins(train: Any, six_videos: Path) -> None:
    result = train("--print-config", "--init-from", "x.pt")
    assert result.exit_code == 0
    assert re.search(r"train_list: .*list\.csv.*# from flag", result.stdout)
    assert re.search(r"init_from: .*x\.pt.*# from flag", result.stdout)
    assert re.search(r"epochs: 2 .*# from --set", result.stdout)
