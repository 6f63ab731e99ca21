"""A validation that is stopped or killed: nothing is trained twice, and no video is scored twice."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_runs import Interrupt, assert_same_end, last_state

from dualformer_cli.engine.scoring import kept_records
from dualformer_cli.engine.training import validation
from dualformer_cli.errors import Stopped

Make = Callable[..., Any]
SETTINGS = ("train.epochs=2", "train.ema_decay=0.5", "train.batch_norm=per_rank")


def after_scores(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Have something happen once so many videos of a run's validations are scored and kept."""
    append, seen = kept_records.KeptRecords.append, []

    def count(self: Any, record: Any, **options: Any) -> None:
        append(self, record, **options)
        seen.append(record.index)
        if len(seen) == number:
            act()

    monkeypatch.setattr(kept_records.KeptRecords, "append", count)


def interrupt() -> None:
    raise Interrupt


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    clocks = ("seconds", "clips_per_second", "data_share", "seconds_left", "memory_mib")
    return [{key: value for key, value in row.items() if key not in clocks} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole")


@pytest.mark.parametrize("end", [lambda: os.kill(os.getpid(), signal.SIGTERM), interrupt], ids=["SIGTERM", "killed"])
def test_it_goes_on_where_it_was_and_ends_like_one_that_nothing_disturbed(
    make_trainer: Make,
    whole: Path,
    tmp_path: Path,
    toy_list: Path,
    toy_validation: Path,
    part_of: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[[], None],
) -> None:
    settings = (*SETTINGS, f"data.validation_list={toy_validation}")
    data = part_of(toy_list, 16)
    if not (whole / "checkpoints").exists():
        make_trainer(whole, *settings, data=data).run()
    with monkeypatch.context() as patch:
        after_scores(patch, 26, end)  # the sixth of the second epoch
        with pytest.raises((Stopped, Interrupt)):
            make_trainer(tmp_path, *settings, data=data).run()
    progress = last_state(tmp_path)["progress"]
    assert (progress["epoch"], progress["step"], progress["is_validation_due"]) == (2, 4, True)
    (kept,) = tmp_path.glob("validation-*")
    scored: list[Any] = []
    append = kept_records.KeptRecords.append
    monkeypatch.setattr(
        kept_records.KeptRecords,
        "append",
        lambda self, record, **options: scored.append(record) or append(self, record, **options),
    )
    result = make_trainer(tmp_path, *settings, data=data, resume=True).run()
    assert len(scored) == 20 - 6
    assert result.validation.summary.videos.scored == 20
    assert_same_end(whole, tmp_path)
    assert rows_of(tmp_path) == rows_of(whole)
    assert not kept.exists()
    assert (tmp_path / "checkpoints" / "epoch-2.pt").exists()


def test_scores_of_other_weights_are_not_taken(
    make_trainer: Make, tmp_path: Path, toy_list: Path, toy_validation: Path, part_of: Callable[..., Path]
) -> None:
    """The folder of kept scores carries the weights in its name, so that of a lost checkpoint goes unread."""
    settings = (f"data.validation_list={toy_validation}",)
    with pytest.MonkeyPatch.context() as patch:
        after_scores(patch, 5, interrupt)
        with pytest.raises(Interrupt):
            make_trainer(tmp_path, *settings, data=part_of(toy_list, 8)).run()
    last = tmp_path / "checkpoints" / "last.pt"
    last.unlink()
    (tmp_path / "checkpoints").rmdir()
    kept: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        after_scores(patch, 1, lambda: kept.append(len(list(tmp_path.glob("validation-*")))))
        make_trainer(tmp_path, *settings, "train.lr=0.01", data=part_of(toy_list, 8)).run()
    assert kept == [1], "the scores of the other weights lie beside those of these"


def test_a_row_of_a_validation_that_was_not_saved_is_not_in_the_log_twice(
    make_trainer: Make, tmp_path: Path, toy_list: Path, toy_validation: Path, part_of: Callable[..., Path]
) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "validation":
            raise Interrupt

    settings = (f"data.validation_list={part_of(toy_validation, 4)}",)
    with pytest.raises(Interrupt):
        make_trainer(tmp_path, *settings, data=part_of(toy_list, 8), on_event=stop).run()
    make_trainer(tmp_path, *settings, data=part_of(toy_list, 8), resume=True).run()
    assert [row["event"] for row in rows_of(tmp_path)] == ["step", "validation"]


def test_the_state_is_saved_before_the_validation(
    make_trainer: Make,
    tmp_path: Path,
    toy_list: Path,
    toy_validation: Path,
    part_of: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(validation, "evaluate", lambda *_, **__: interrupt())
    with pytest.raises(Interrupt):
        make_trainer(tmp_path, f"data.validation_list={toy_validation}", data=part_of(toy_list, 8)).run()
    assert last_state(tmp_path)["progress"]["step"] == 1
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"last.pt"}, "it is no epoch's yet"
