"""Training from Python: a request goes in, a document comes out, nothing is printed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dualformer_cli.documents.train import Advanced, Note, Saved, Started, StepRow, TrainEvent, ValidationRow
from dualformer_cli.engine.parallel.placement import read_placement
from dualformer_cli.engine.parallel.ranks import Ranks
from dualformer_cli.errors import ConfigError, DualFormerError, Stopped
from dualformer_cli.tasks.session import ModelRequest
from dualformer_cli.tasks.train import TrainRequest, check_request, preflight, train

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def request_of(
    toy_preset: Path,
    toy_list: Path,
    part_of: Callable[..., Path],
    one_thread: None,
    here_pool: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., TrainRequest]:
    """The function request_of(*overrides, **fields) -> a request of two steps of four clips, which decodes here."""
    monkeypatch.setattr("dualformer_cli.engine.training.loop.WorkerPool", here_pool)
    listed = str(part_of(toy_list, 8))

    def make(*overrides: str, **fields: Any) -> TrainRequest:
        sizes = ("train.batch_size=4", "train.global_batch_size=4")
        model = ModelRequest(preset=str(toy_preset), overrides=(*sizes, *overrides), device="cpu")
        return TrainRequest(model=model, training_list=listed, output=tmp_path / "run", **fields)

    return make


def test_a_run_is_a_request_and_a_document(
    request_of: Callable[..., TrainRequest], capsys: pytest.CaptureFixture[str]
) -> None:
    request = request_of()
    request = replace(request, validation_list=request.training_list)
    events: list[TrainEvent] = []
    result = train(request, on_event=events.append)
    assert result is not None
    assert (result.epochs, result.steps, result.output) == (1, 2, str(request.output))
    assert result.validation is not None
    assert result.best == result.validation.summary.metrics["top1"]
    kinds = [type(event) for event in events if not isinstance(event, Note | Advanced)]
    assert kinds == [Started, StepRow, StepRow, Saved, ValidationRow, Saved]
    advanced = [event for event in events if isinstance(event, Advanced)]
    training = [(event.epoch, event.done, event.total) for event in advanced if event.phase == "training"]
    assert training == [(1, 0, 2), (1, 1, 2), (1, 2, 2)]
    assert [event.row for event in advanced if event.row] == [event for event in events if isinstance(event, StepRow)]
    assert [(event.done, event.total) for event in advanced if event.phase == "validation"] == [
        (done, 8) for done in range(9)
    ]
    assert (request.output / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert capsys.readouterr() == ("", "")


def test_a_stopped_run_says_which_signal_it_was(request_of: Callable[..., TrainRequest]) -> None:
    def stop(event: TrainEvent) -> None:
        if isinstance(event, StepRow):
            os.kill(os.getpid(), signal.SIGUSR1)

    with pytest.raises(Stopped, match="SIGUSR1") as stopped:
        train(request_of(), on_event=stop)
    assert stopped.value.signum == signal.SIGUSR1
    result = train(request_of(resume=True))
    assert result is not None
    assert result.steps == 2


@pytest.mark.parametrize("run", [train, preflight])
def test_a_full_gpu_says_how_the_same_step_takes_less(
    run: Callable[[TrainRequest], Any], request_of: Callable[..., TrainRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("dualformer_cli.engine.training.step.Stepper.step", full)
    with pytest.raises(DualFormerError, match=r"the GPU's memory is full; --set train.batch_size .*checkpointing=true"):
        run(request_of())


@pytest.mark.parametrize("run", [train, preflight])
def test_the_other_ranks_are_waited_for_as_long_as_the_configuration_says(
    run: Callable[[TrainRequest], Any], request_of: Callable[..., TrainRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DualFormerError, match="rank 0 did not come within 1 s"):
        run(request_of("runtime.exchange_timeout=0.5s"))


def test_a_dry_run_is_a_document_and_leaves_nothing(request_of: Callable[..., TrainRequest]) -> None:
    request = request_of()
    document = preflight(request)
    assert document is not None
    assert (document.classes, document.steps, document.lr) == (4, 2, 0.003)
    assert not request.output.exists()


def test_only_rank_0_has_a_document(request_of: Callable[..., TrainRequest], monkeypatch: pytest.MonkeyPatch) -> None:
    """Which the rank alone decides: nobody else takes part here."""
    monkeypatch.setattr(Ranks, "is_main", property(lambda ranks: False))
    assert preflight(request_of()) is None
    assert train(request_of()) is None
    events: list[TrainEvent] = []

    def stop(self: Any) -> int:
        return signal.SIGTERM

    monkeypatch.setattr("dualformer_cli.engine.training.stop_signals.StopSignals.of_any_rank", stop)
    assert train(request_of(), on_event=events.append) is None
    assert events == []


@pytest.mark.parametrize("rank", [0, 1])
def test_rank_0_alone_has_trackers(
    request_of: Callable[..., TrainRequest], monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    def read(environ: Any) -> Any:
        return replace(read_placement(environ), rank=rank)

    monkeypatch.setattr("dualformer_cli.engine.parallel.placement.read_placement", read)
    request = request_of(log=("tensorboard",))
    train(request)
    assert (request.output / "tensorboard").is_dir() == (rank == 0)


def test_what_needs_no_data_is_checked_first(
    request_of: Callable[..., TrainRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="epohcs"):
        check_request(request_of("train.epohcs=2"))
    request = request_of()
    request.output.touch()
    with pytest.raises(DualFormerError, match=r"cannot write into '.*run': '.*run' is not a folder"):
        check_request(request, dry_run=True)
    request.output.unlink()
    (request.output / "checkpoints").mkdir(parents=True)
    with pytest.raises(DualFormerError, match="holds a run already; go on with `dualformer train --resume"):
        check_request(request)
    check_request(request, dry_run=True)
    check_request(replace(request, resume=True))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        DualFormerError, match=r"--log tensorboard needs what is not installed: pip install 'dualformer"
    ):
        check_request(replace(request, resume=True, log=("tensorboard",)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda run: run.symlink_to("nowhere"),
            r"cannot write into '.*run': '.*run' is a link to nothing; name another",
        ),
        (
            lambda run: (run / "log.jsonl").mkdir(parents=True),
            r"cannot write '.*log\.jsonl': it is a folder; remove it",
        ),
        (
            lambda run: (run / "checkpoints" / "last.pt").mkdir(parents=True),
            r"cannot write '.*last\.pt': it is a folder",
        ),
        (lambda run: (run.mkdir(), (run / "checkpoints").touch()), r"'.*checkpoints' is not a folder; name another"),
        (lambda run: (run.mkdir(), (run / "config.yaml").touch()), r"holds config\.yaml, which no run of this program"),
        (lambda run: (run.mkdir(), (run / "log.jsonl").touch()), r"holds log\.jsonl, which no run of this program has"),
    ],
)
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_cannot_be_used_is_refused_before_any_list_is_read(
    request_of: Callable[..., TrainRequest], spoil: Callable[[Path], object], message: str, resume: bool
) -> None:
    request = replace(request_of(resume=resume), training_list="no such list.csv")
    spoil(request.output)
    with pytest.raises(DualFormerError, match=message):
        train(request)


def test_a_run_that_ended_before_its_first_save_may_begin_anew(request_of: Callable[..., TrainRequest]) -> None:
    def end(event: TrainEvent) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(request_of(), on_event=end)
    assert (request_of().output / "config.yaml").exists()
    assert train(request_of()) is not None


def test_two_runs_never_share_a_folder(request_of: Callable[..., TrainRequest]) -> None:
    refused: list[str] = []

    def second(event: TrainEvent) -> None:
        for resume in (False, True):
            with pytest.raises(
                DualFormerError, match=f"another run writes into .*: process {os.getpid()} on "
            ) as error:
                train(request_of(resume=resume))
            refused.append(str(error.value))

    assert train(request_of(), on_event=lambda event: second(event) if isinstance(event, Started) else None) is not None
    assert len(refused) == 2


def test_a_start_that_fails_leaves_no_folder(request_of: Callable[..., TrainRequest]) -> None:
    with pytest.raises(DualFormerError, match=r"no such list\.csv"):
        train(replace(request_of(), training_list="no such list.csv"))
    assert not request_of().output.exists()


def test_a_folder_that_is_removed_while_running_is_made_again(
    request_of: Callable[..., TrainRequest], caplog: pytest.LogCaptureFixture
) -> None:
    def remove(event: TrainEvent) -> None:
        if isinstance(event, StepRow) and event.step == 1:
            shutil.rmtree(request_of().output)

    result = train(request_of("train.log_every_steps=1"), on_event=remove)
    assert result is not None
    assert caplog.text.count("was removed while the run goes on; it is made again, with a new log") == 1
    names = {path.name for path in request_of().output.rglob("*")}
    assert {"config.yaml", "log.jsonl", "curves.png", "last.pt", "epoch-1.pt", ".lock"} <= names
    (row,) = (request_of().output / "log.jsonl").read_text().splitlines()
    assert json.loads(row)["step"] == 2


def test_a_curve_that_cannot_be_drawn_costs_no_run(
    request_of: Callable[..., TrainRequest], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(rows: Any, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dualformer_cli.tasks.train.write_curves", fail)
    assert train(request_of()) is not None
    assert "the run goes on, but its curves are not drawn: [Errno 28] No space left on device" in caplog.text


def test_a_change_needs_a_run_that_goes_on(request_of: Callable[..., TrainRequest]) -> None:
    with pytest.raises(DualFormerError, match="--change is for a run that goes on: add --resume"):
        check_request(request_of(changes=("train.lr=0.1",)))


@pytest.mark.parametrize(
    ("chosen", "other"),
    [
        ("init_from", "pretrained_2d"),
        ("pretrained_2d", "init_from"),
        ("teacher", "token_labels"),
        ("token_labels", "teacher"),
    ],
)
def test_a_choice_ends_the_other_one_of_the_preset(
    request_of: Callable[..., TrainRequest], tmp_path: Path, chosen: str, other: str
) -> None:
    request = request_of(**{chosen: "a.pt"})
    text = Path(str(request.model.preset)).read_text()
    preset = tmp_path / "with a choice.yaml"
    preset.write_text(text.replace("\ntrain:\n", f"\ntrain:\n  {other}: b.pt\n", 1))
    config = replace(request, model=replace(request.model, preset=str(preset))).resolve().config
    assert (getattr(config.train, chosen), getattr(config.train, other)) == ("a.pt", None)
    assert config.model.token_head is (chosen in ("teacher", "token_labels"))


@pytest.mark.parametrize(
    ("given", "lists"),
    [
        ({}, ("old.csv", "old val.csv")),
        ({"training_list": "new.csv"}, ("new.csv", None)),
        ({"training_list": "new.csv", "validation_list": "new val.csv"}, ("new.csv", "new val.csv")),
    ],
)
def test_weights_that_bring_their_recipe_keep_their_teacher_and_leave_no_list_beside_a_new_one(
    given: dict[str, str], lists: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "extends: k400-tiny\nmodel: {token_head: true}\ntrain: {teacher: t.pt, warmup_epochs: 7}\n"
        "data: {train_list: old.csv, validation_list: old val.csv}\n"
    )
    monkeypatch.setattr(TrainRequest, "_recipe", lambda self: ("w.pt", text))
    config = TrainRequest(model=ModelRequest(), init_from="w.pt", **given).resolve().config
    assert (config.data.train_list, config.data.validation_list) == lists
    assert (config.train.teacher, config.model.token_head) == (None, False)
    assert config.train.warmup_epochs == 7


def test_a_change_wins_over_a_setting_and_is_named_to_the_run(
    request_of: Callable[..., TrainRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Opened(Exception):  # noqa: N818
        """The trainer would be made now."""

    def trainer(resolved: Any, ranks: Any, **options: Any) -> None:
        raise Opened(resolved.config.train.lr, options["changes"], options["resume"])

    monkeypatch.setattr("dualformer_cli.engine.training.loop.Trainer", trainer)
    request = request_of("train.lr=0.5", changes=("train.lr = 0.25", "train.epochs=9"), resume=True)
    request.output.mkdir()
    with pytest.raises(Opened) as opened:
        train(request)
    assert opened.value.args == (0.25, {"train.lr", "train.epochs"}, True)


def test_neither_typer_nor_torch_is_loaded_with_the_task() -> None:
    code = "import sys, dualformer_cli.tasks.train; print(sorted({'typer', 'torch'} & set(sys.modules)))"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_recipe_of_weights_on_the_hub_is_looked_for_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    request = TrainRequest(model=ModelRequest(offline=True), output=tmp_path / "run", init_from="hf://owner/name")
    with pytest.raises(DualFormerError, match=r"'hf://owner/name' cannot be fetched: it is not in the Hub's cache"):
        request.resolve()
