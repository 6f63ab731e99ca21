"""What a training run shows on stderr: bars and a table on a terminal, lines in a log."""

from __future__ import annotations

import re
import sys
from dataclasses import replace

import pytest
from screens import Terminal

from dualformer_cli.documents.evaluate import Summary, VideoCounts
from dualformer_cli.documents.train import Advanced, Note, Saved, Started, StepRow, TrainEvent, ValidationRow
from dualformer_cli.outputs.training_display import TrainingDisplay

pytestmark = pytest.mark.usefixtures("_plain_environment")

ROW = StepRow(
    epoch=0,
    step=1,
    losses={"loss": 2.5},
    lr=0.00012345,
    clips_per_second=12.345,
    data_share=0.051,
    seconds_left=7500.0,
    memory_mib=512.0,
    unreadable=0,
)
VIDEOS = VideoCounts(listed=4, scored=4, missing=0, unreadable=0, too_short=0)


def summary(top1: float) -> Summary:
    return Summary(videos=VIDEOS, digest="abc", metrics={"top1": top1, "top5": 100.0, "loss": 1.23456})


def events() -> list[TrainEvent]:
    """Two epochs of two steps, of which every second one is logged, and their validations."""
    found: list[TrainEvent] = [Note(text="a note"), Started(steps=4, step=0, epochs=2, best_metric="top1")]
    for epoch in (1, 2):
        found.append(Advanced(phase="training", epoch=epoch, done=0, total=2))
        for done in (1, 2):
            row = replace(ROW, epoch=epoch - 1, step=2 * epoch - 2 + done, losses={"loss": 3.0 + done - epoch})
            found.append(Advanced(phase="training", epoch=epoch, done=done, total=2, row=row))
            if done == 2:
                found.append(row)
        found += [Advanced(phase="validation", epoch=epoch, done=done, total=4) for done in range(5)]
        found.append(ValidationRow(epoch=epoch, step=2 * epoch, summary=summary(75.0 - epoch)))
        found.append(Saved(epoch=epoch, step=2 * epoch, best=epoch == 1))
    return found


def shown_on(monkeypatch: pytest.MonkeyPatch, columns: int, told: list[TrainEvent]) -> Terminal:
    """Return a terminal of so many columns, on which these events were shown."""
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with TrainingDisplay() as display:
        for event in told:
            display.event(event)
    return stream


def shown(stream: Terminal) -> str:
    """Return what a terminal shows in the end, one screen line per line, of what was drawn and erased on it."""
    lines = [""]
    for part in re.split(r"(\x1b\[\d*[A-Z]|\x1b\[[\d;?]*[a-z]|\r|\n)", stream.getvalue()):
        if part == "\n":
            lines.append("")
        elif part.endswith("A") and part.startswith("\x1b["):
            lines.pop()
        elif part in ("\x1b[2K", "\r"):
            lines[-1] = ""
        elif not part.startswith("\x1b"):
            lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def test_a_log_has_one_line_for_each_logged_step_and_each_validation(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingDisplay() as display:
        for event in events():
            display.event(event)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "a note",
        "epoch 1/2, step 2/4: loss 4.0000, lr 0.000123, 12.3 clips/s, 5% waiting for data, 2 h 5 min left",
        "validation after epoch 1/2: top-1 74.00%, top-5 100.00%, loss 1.2346; the best so far",
        "epoch 2/2, step 4/4: loss 3.0000, lr 0.000123, 12.3 clips/s, 5% waiting for data, 2 h 5 min left",
        "validation after epoch 2/2: top-1 73.00%, top-5 100.00%, loss 1.2346",
    ]
    assert not {"\x1b", "\r"} & set(captured.err)


def test_a_terminal_keeps_a_table_of_the_validations_and_its_bars_go(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = shown_on(monkeypatch, 80, events())
    drawn = stream.getvalue()
    assert "epoch 1/2" in drawn
    assert "loss 4.0000, 12.3 clips/s, 5% data, 2 h 5 min left" in drawn
    assert "validation after epoch 2/2" in drawn
    assert [line for line in shown(stream).splitlines() if line] == [
        "a note",
        "  epoch    top-1    top-5     loss  training loss",
        "    1/2    74.00   100.00   1.2346         3.5000  best",
        "    2/2    73.00   100.00   1.2346         2.5000",
    ]


def test_a_narrow_terminal_has_a_table_without_the_loss_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = shown_on(monkeypatch, 40, events())
    assert [line for line in shown(stream).splitlines() if line][1:] == [
        "  epoch    top-1    top-5     loss",
        "    1/2    74.00   100.00   1.2346  best",
        "    2/2    73.00   100.00   1.2346",
    ]
    stream = shown_on(monkeypatch, 30, events())
    assert [line for line in shown(stream).splitlines() if line][1:] == [
        "  epoch    top-1",
        "    1/2    74.00  best",
        "    2/2    73.00",
    ]


def test_the_longest_line_of_a_bar_fits_into_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(ROW, epoch=98, step=98_765, losses={"loss": 12.3456}, clips_per_second=123.4, data_share=0.99)
    row = replace(row, seconds_left=50_000.0)
    started = Started(steps=99_999, step=0, epochs=99, best_metric="top1")
    stream = shown_on(monkeypatch, 80, [started, Advanced(phase="training", epoch=99, done=9998, total=9999, row=row)])
    assert "loss 12.3456, 123 clips/s, 99% data, 13 h 53 min left" in stream.getvalue()
    assert "…" not in stream.getvalue()


def test_a_validation_whose_checkpoint_could_not_be_saved_is_shown_all_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    display = TrainingDisplay()
    display.event(Started(steps=4, step=0, epochs=2, best_metric="top1"))
    display.event(ValidationRow(epoch=1, step=2, summary=summary(50.0)))
    display.__exit__(OSError, OSError(), None)
    assert capsys.readouterr().err == "validation after epoch 1/2: top-1 50.00%, top-5 100.00%, loss 1.2346\n"


def test_a_step_without_a_readable_video_has_no_loss(capsys: pytest.CaptureFixture[str]) -> None:
    display = TrainingDisplay()
    row = replace(ROW, losses={"loss": None})
    display.event(Advanced(phase="training", epoch=1, done=1, total=2, row=row))
    display.event(row)
    assert "step 1/0: no video could be read, lr" in capsys.readouterr().err
