"""What train and eval print, and the files of JSON lines."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from evaluation_documents import evaluation_of

from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.evaluate import ClassRow
from dualformer_cli.documents.train import Change, Preflight, TrainResult
from dualformer_cli.outputs.runs import (
    metric_line,
    print_evaluation,
    print_preflight,
    print_training,
    write_json_lines,
)

VIDEOS = {"listed": 5, "scored": 3, "missing": 1, "unreadable": 0, "too_short": 1}
DOCUMENT: dict[str, Any] = {
    "videos": VIDEOS,
    "top1": 66.6667,
    "top5": 100.0,
    "mean_class_accuracy": 50.0,
    "top1_all_listed": 40.0,
    "top1_interval": [0.0, 100.0],
    "expected_calibration_error": 3.21,
    "loss": 1.23456,
    "views_curve": [{"views": 1, "top1": 33.3}, {"views": 2, "top1": 66.6667}],
    "preset": "k400-tiny",
    "digest": "abc",
    "label_order": "the labels seem to be in another order",
    "comparison": {
        "videos": 3,
        "only_in_first": 0,
        "only_in_second": 0,
        "both_right": 1,
        "first_right": 1,
        "second_right": 0,
        "both_wrong": 1,
        "chi_squared": 1.0,
        "p_value_chi_squared": 0.3,
        "top1_first": 66.7,
        "top1_second": 33.3,
        "p_value": 0.0123,
        "flipped": [{"path": "a.mp4", "label": 0, "first": 0, "second": 1}],
    },
}
PREFLIGHT = Preflight(
    notes=("64 clips per step (kept)", "started from random weights"),
    classes=4,
    lr=1e-3,
    steps=12345,
    peak_memory_mib=2048.4,
    read_clips_per_second=10.0,
    model_clips_per_second=20.0,
    passes=8,
    limited_by="reading",
    waited_seconds=0.1,
    hours=1.26,
    disk_needed_gib=0.5,
    disk_free_gib=100.0,
    warnings=("videos are read slower",),
)


def printed(function: Any, document: Any) -> dict[str, str]:
    stream = io.StringIO()
    function(document, stream=stream)
    lines = stream.getvalue().splitlines()
    width = len(lines[0]) - len(lines[0].split("  ", 1)[1].lstrip())
    assert all(line[width - 1] == " " != line[width] for line in lines), "values stand in one column"
    return {line[:width].strip(): line[width:] for line in lines}


def test_the_line_of_a_validation_has_metrics_and_what_is_missing() -> None:
    assert metric_line(evaluation_of(DOCUMENT).summary) == (
        "top-1 66.67%, top-5 100.00%, mean class accuracy 50.00%, loss 1.2346, 2 of 5 videos not scored"
    )
    assert (
        metric_line(evaluation_of({"videos": {**VIDEOS, "listed": 3}, "digest": "abc"}).summary)
        == "3 videos scored, without labels"
    )


@pytest.mark.parametrize(("num_classes", "is_said"), [(5, False), (6, True), (None, True)])
def test_of_five_classes_nobody_is_told_how_often_the_label_is_among_the_best_five(
    num_classes: int | None, is_said: bool
) -> None:
    document = evaluation_of({**DOCUMENT, "num_classes": num_classes})
    assert ("top-5" in metric_line(document.summary)) is is_said
    assert ("top-5" in printed(print_evaluation, document)) is is_said
    assert to_json(document)["top5"] == 100.0


def test_an_evaluation_prints_buckets_both_accuracies_and_warnings() -> None:
    rows = printed(print_evaluation, evaluation_of(DOCUMENT))
    assert rows["videos"] == "5 listed, 3 scored, 1 missing, 0 unreadable, 1 too short"
    assert (rows["top-1"], rows["top-1 of all listed"]) == ("66.67%", "40.00%")
    assert rows["compared"].startswith("with the other run, ")
    assert rows["top-1 of both"] == "66.70% against 33.30%"
    assert rows["95% interval"] == "0.00% to 100.00%"
    assert rows["top-1 by views"] == "1: 33.30%, 2: 66.67%"
    assert rows["warning"] == "the labels seem to be in another order"
    assert rows["McNemar"] == "p = 0.0123, 1 video flipped"
    assert rows["digest"] == "abc"


def test_an_evaluation_names_a_checkpoint_once_that_brings_its_own_configuration() -> None:
    rows = printed(print_evaluation, evaluation_of({**DOCUMENT, "preset": "best.pt", "weights": "best.pt"}))
    assert rows["weights"] == "best.pt"
    assert "preset" not in rows
    assert printed(print_evaluation, evaluation_of(DOCUMENT))["preset"] == "k400-tiny"


def test_an_evaluation_names_its_worst_classes_and_the_run_it_is_compared_with() -> None:
    counts = {
        "pan left": (8, 10),
        "pan right": (1, 10),
        "tilt": (10, 10),
        "zoom": (0, 0),
        "roll": (0, 3),
        "dolly": (9, 10),
    }
    classes = [
        ClassRow(label=name, index=n, videos=of, correct=right, accuracy=None, taken_for=None, taken_for_videos=0)
        for n, (name, (right, of)) in enumerate(counts.items())
    ]
    rows = printed(partial(print_evaluation, classes=classes, other="b.jsonl"), evaluation_of(DOCUMENT))
    assert rows["worst classes"] == "roll (0 of 3 right), pan right (1 of 10 right), pan left (8 of 10 right)"
    assert rows["compared"].startswith("with b.jsonl, ")


def test_an_evaluation_without_labels_prints_no_accuracy() -> None:
    rows = printed(print_evaluation, evaluation_of({"videos": VIDEOS, "digest": "abc"}))
    assert set(rows) == {"videos", "digest"}


def test_a_run_prints_what_it_reached_and_what_was_changed_on_the_way() -> None:
    result = TrainResult(
        epochs=3,
        steps=12,
        best=62.5,
        best_metric="top1",
        checkpoint="run/best.pt",
        validation_list="my val.csv",
        validation=None,
        output="run",
        changes=(Change(key="train.lr", before="0.1", now="0.01", epoch=2, step=8),),
    )
    rows = printed(print_training, result)
    assert rows["trained"] == "3 epochs, 12 steps"
    assert rows["best"] == "run/best.pt (top-1 62.50%)"
    assert rows["changed"] == "train.lr was 0.1, and 0.01 after step 8"


def test_a_dry_run_prints_its_table() -> None:
    rows = printed(print_preflight, PREFLIGHT)
    assert rows["classes"] == "4"
    assert rows["lr"] == "0.001"
    assert rows["steps"] == "12,345"
    assert rows["peak memory"] == "2,048 MiB"
    assert rows["model"] == "20.0 clips/s; limited by reading"
    assert rows["time"] == "about 1 h 15 min, without validation"
    assert rows["disk"] == "536.9 MB needed, 107.4 GB free"
    assert rows["measured"] == "one forward and backward pass, of which a step has 8"
    slow = printed(print_preflight, replace(PREFLIGHT, model_clips_per_second=0.025))
    assert slow["model"] == "40.0 s a clip; limited by reading"
    assert rows["warning"] == "videos are read slower"


def test_text_that_a_terminal_cannot_show_does_not_stop_the_output() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_evaluation(evaluation_of({**DOCUMENT, "list": "naïve\x1b[31m.csv"}), stream=stream)
    stream.seek(0)
    assert "\x1b" not in stream.read()


def test_json_lines_are_ascii_and_appear_whole(tmp_path: Path) -> None:
    target = tmp_path / "rows.jsonl"
    rows = [{"path": "naïve \udcff.mp4", "scores": [[0.1]]}, {"path": "b", "scores": None}]
    write_json_lines(rows, target)
    assert [json.loads(line) for line in target.read_bytes().decode("ascii").splitlines()] == rows

    def broken() -> Any:
        yield {"path": "a"}
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_json_lines(broken(), target)
    assert len(target.read_text().splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
