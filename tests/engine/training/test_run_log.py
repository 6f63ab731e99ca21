"""What a run writes down: whole files, and no line of what its checkpoint does not know."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.train import Change, Note
from dualformer_cli.engine.training import run_log
from dualformer_cli.engine.training.run_log import Pace, RunLog
from dualformer_cli.errors import CannotWriteError

KNOWN = Change(epoch=0, step=4, key="train.lr", before="0.1", now="0.2")


def log_in(folder: Path) -> RunLog:
    return RunLog(folder, is_main=True, on_event=lambda event: None)


def line(event: str, step: int) -> str:
    return json.dumps({"event": event, "step": step}) + "\n"


@pytest.mark.parametrize(
    ("step", "is_due", "kept"),
    [
        (4, False, ["step 3", "change 4", "step 4", "validation 4"]),
        (4, True, ["step 3", "change 4", "step 4"]),
        (3, False, ["step 3"]),
        (0, False, []),
    ],
)
def test_lines_after_the_checkpoint_go_and_so_does_one_that_was_cut_off(
    tmp_path: Path, step: int, is_due: bool, kept: list[str]
) -> None:
    known, other = to_json(KNOWN), {**to_json(KNOWN), "now": "0.3"}
    changes = "".join(json.dumps(row) + "\n" for row in (known, other))
    lines = [line("step", 3), changes, line("step", 4), line("validation", 4), line("step", 5)[:-9]]
    (tmp_path / "log.jsonl").write_text("".join(lines))
    log_in(tmp_path).begin("a: 1\n", step, changes=[KNOWN], is_validation_due=is_due)
    rows = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [f"{row['event']} {row['step']}" for row in rows] == kept
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "log.jsonl"}


def test_a_log_that_needs_no_mending_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(line("step", 1))
    before = path.stat().st_ino
    log_in(tmp_path).begin("a: 1\n", 1)
    assert path.stat().st_ino == before


def test_a_full_disk_leaves_the_configuration_and_the_log_as_they_were(tmp_path: Path) -> None:
    log_in(tmp_path).begin("a: 1\n", 0)
    (tmp_path / "log.jsonl").write_text(line("step", 1) + line("step", 2))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))  # fails like a full disk, in the middle of a write
    log = log_in(tmp_path)
    try:
        with pytest.raises(
            CannotWriteError, match=r"cannot write into '.*': file too large; what is there stays, go on"
        ):
            log.begin("a: 2\n" * 100, 1)
        with pytest.raises(CannotWriteError, match="file too large"):
            log.emit(KNOWN)
        log.emit(Note(text="goes nowhere"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "config.yaml").read_text() == "a: 1\n"
    assert (tmp_path / "log.jsonl").read_text().startswith(line("step", 1) + line("step", 2))


def test_the_time_left_follows_the_pace_since_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step took 9 seconds, of which 8 were the start; then 1 each, and a validation of 5 after the third."""
    now = iter([100.0, 101.0, 107.0])
    monkeypatch.setattr(run_log, "perf_counter", lambda: next(now))
    pace = Pace(10)
    assert pace.seconds_left(4, took=9.0) == 54.0
    assert pace.seconds_left(5, took=0.5) == 5.0
    assert pace.seconds_left(6, took=1.0) == 4 * 3.5
