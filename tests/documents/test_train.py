"""Lines of log.jsonl and documents of `train`, name by name, as scripts that read them rely on."""

from __future__ import annotations

from dualformer_cli.documents.base import json_schema, to_json
from dualformer_cli.documents.evaluate import Summary, VideoCounts
from dualformer_cli.documents.train import Preflight, Saved, Started, StepRow, TrainResult, ValidationRow

VIDEOS = VideoCounts(listed=4, scored=3, missing=1, unreadable=0, too_short=0)
SUMMARY = Summary(videos=VIDEOS, digest="abc", metrics={"top1": 75.0, "top1_interval": (30.0, 95.0), "loss": 1.5})


def step_row(losses: dict[str, float | None]) -> StepRow:
    return StepRow(
        epoch=1,
        step=7,
        losses=losses,
        lr=0.001,
        clips_per_second=8.0,
        data_share=0.25,
        seconds_left=60.0,
        memory_mib=512.0,
        unreadable=2,
    )


def test_a_step_has_its_losses_by_their_names_and_null_without_any_clip() -> None:
    row = to_json(step_row({"loss": 2.5, "classification_loss": 2.0, "token_loss": 3.0}))
    assert list(row.items()) == [
        ("event", "step"),
        ("epoch", 1),
        ("step", 7),
        ("loss", 2.5),
        ("classification_loss", 2.0),
        ("token_loss", 3.0),
        ("lr", 0.001),
        ("clips_per_second", 8.0),
        ("data_share", 0.25),
        ("seconds_left", 60.0),
        ("memory_mib", 512.0),
        ("unreadable", 2),
    ]
    assert to_json(step_row({"loss": None}))["loss"] is None


def test_a_validation_has_the_metrics_beside_the_step_and_its_time_in_the_log_alone() -> None:
    row = ValidationRow(epoch=2, step=8, summary=SUMMARY, seconds=3.5)
    assert to_json(row) == {
        "event": "validation",
        "epoch": 2,
        "step": 8,
        "videos": {"listed": 4, "scored": 3, "missing": 1, "unreadable": 0, "too_short": 0},
        "digest": "abc",
        "top1": 75.0,
        "top1_interval": [30.0, 95.0],
        "loss": 1.5,
        "seconds": 3.5,
    }
    result = TrainResult(
        epochs=2,
        steps=8,
        best=75.0,
        best_metric="top1",
        checkpoint="runs/train/checkpoints/best.pt",
        validation_list="val.csv",
        validation=ValidationRow(epoch=2, step=8, summary=SUMMARY),
        output="runs/train",
    )
    document = to_json(result)
    assert list(document) == [
        *("epochs", "steps", "best", "best_metric", "checkpoint", "validation_list", "validation", "output")
    ]
    assert "seconds" not in document["validation"]


def test_events_are_known_by_their_names() -> None:
    assert to_json(Started(steps=10, step=4, epochs=2, best_metric="top1")) == {
        "event": "start",
        "steps": 10,
        "step": 4,
        "epochs": 2,
        "best_metric": "top1",
    }
    assert to_json(Saved(epoch=1, step=5, best=True)) == {"event": "saved", "epoch": 1, "step": 5, "best": True}


def test_what_is_always_there_is_required_by_the_schema() -> None:
    rows = json_schema(StepRow)["$defs"]["StepRow"]
    assert {"event", "epoch", "step", "lr", "unreadable"} <= set(rows["required"])
    assert "token_loss" in rows["properties"]
    assert "token_loss" not in rows["required"]
    assert "seconds" not in json_schema(TrainResult)["$defs"]["ValidationRow"]["required"]
    preflight = json_schema(Preflight)["$defs"]["Preflight"]
    assert preflight["properties"]["limited_by"]["enum"] == ["reading", "the model"]
