"""What a tracker gets of a run: every line of log.jsonl once, also where it fails and where the run is resumed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from dualformer_cli.config.load import to_yaml
from dualformer_cli.config.schema import RunConfig
from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.evaluate import Summary, VideoCounts
from dualformer_cli.documents.train import Change, Started, StepRow, TrainEvent, ValidationRow
from dualformer_cli.errors import Stopped
from dualformer_cli.outputs import tracker_events
from dualformer_cli.outputs.tracker_events import RunTracker


class _Tracker:
    """Keeps what it gets; `fails` makes it raise."""

    note = "fake: here"

    def __init__(self) -> None:
        self.known: list[str | None] = []
        self.points: list[tuple[int, str, float]] = []
        self.configs: list[RunConfig] = []
        self.ends: list[str] = []
        self.fails = self.fails_to_start = False
        self.id: str | None = "run 1"

    def start(self, run_id: str | None, config: RunConfig) -> str | None:
        self.known.append(run_id)
        self.configs.append(config)
        if self.fails_to_start:
            raise TimeoutError("no answer")
        return self.id

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if self.fails:
            raise ConnectionError("the server\nis away")
        self.points += [(step, name, value) for name, value in values.items() if name.endswith(("/loss", "/top1"))]

    def close(self, end: str) -> None:
        self.ends.append(end)


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> _Tracker:
    """The tracker that the name "fake" opens."""
    made = _Tracker()
    monkeypatch.setattr(tracker_events, "open_tracker", lambda name, output, *, offline: made)
    return made


@pytest.fixture
def run_of(tmp_path: Path, tracker: _Tracker) -> Callable[..., None]:
    """The function run_of(*events) -> nothing: one process of a run, whose events the log gets first."""
    (tmp_path / "config.yaml").write_text(to_yaml(RunConfig()))

    def run(*events: TrainEvent | Callable[[], None]) -> None:
        with RunTracker("fake", tmp_path, offline=False) as subscriber:
            for event in events:
                if isinstance(event, StepRow | ValidationRow | Change):
                    with (tmp_path / "log.jsonl").open("a") as log:
                        log.write(json.dumps(to_json(event)) + "\n")
                subscriber.add(event) if not callable(event) else event()

    return run


def step(number: int, loss: float | None) -> StepRow:
    return StepRow(
        epoch=0,
        step=number,
        losses={"loss": loss},
        lr=0.1,
        clips_per_second=1.0,
        data_share=0.0,
        seconds_left=9.0,
        memory_mib=1.0,
        unreadable=0,
    )


def validation(number: int, top1: float) -> ValidationRow:
    counts = VideoCounts(listed=2, scored=2, missing=0, unreadable=0, too_short=0)
    summary = Summary(videos=counts, metrics={"top1": top1}, digest="d")
    return ValidationRow(epoch=1, step=number, summary=summary)


def started(at: int = 0) -> Started:
    return Started(steps=8, step=at, epochs=2, best_metric="top1")


def test_a_tracker_gets_the_numbers_of_every_line_at_its_step(
    run_of: Callable[..., None], tracker: _Tracker, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, "dualformer_cli")
    run_of(started(), step(1, 0.5), step(3, None), step(5, float("nan")), validation(5, 50.0))
    assert tracker.points == [(1, "training/loss", 0.5), (5, "validation/top1", 50.0)]
    assert (tracker.known, tracker.ends) == ([None], ["finished"])
    assert tracker.configs == [RunConfig()]
    assert json.loads((tmp_path / "fake.json").read_text()) == {"id": "run 1", "training": 5, "validation": 5}
    assert caplog.messages == ["fake: here"]


def test_a_resumed_run_sends_what_is_missing_and_nothing_twice(
    run_of: Callable[..., None], tracker: _Tracker, tmp_path: Path
) -> None:
    run_of(started(), step(1, 0.5), step(2, 0.4))
    with (tmp_path / "log.jsonl").open("a") as log:  # a part of the run without the tracker
        log.write("".join(json.dumps(to_json(row)) + "\n" for row in (step(3, 0.3), validation(3, 40.0))))
    run_of(started(1), step(2, 0.4), step(3, 0.3), step(4, 0.2))
    assert tracker.known == [None, "run 1"]
    assert tracker.points == [
        (1, "training/loss", 0.5),
        (2, "training/loss", 0.4),
        (3, "training/loss", 0.3),
        (3, "validation/top1", 40.0),
        (4, "training/loss", 0.2),
    ]


def test_steps_with_other_settings_are_sent_again(
    run_of: Callable[..., None], tracker: _Tracker, tmp_path: Path
) -> None:
    run_of(started(), step(1, 0.5), step(2, 0.4))
    (tmp_path / "log.jsonl").write_text(json.dumps(to_json(step(1, 0.5))) + "\n")  # as a run that goes on leaves it
    change = Change(epoch=0, step=1, key="train.lr", before="0.1", now="0.2")
    run_of(change, started(1), step(2, 0.39))
    assert [point[::2] for point in tracker.points] == [(1, 0.5), (2, 0.4), (2, 0.39)]


def test_a_tracker_without_the_run_gets_all_of_it(run_of: Callable[..., None], tracker: _Tracker) -> None:
    run_of(started(), step(1, 0.5))
    tracker.id = "run 2"
    run_of(started(1), step(2, 0.4))
    assert [point[::2] for point in tracker.points] == [(1, 0.5), (1, 0.5), (2, 0.4)]


def test_a_run_that_begins_anew_is_another_one(run_of: Callable[..., None], tracker: _Tracker, tmp_path: Path) -> None:
    run_of(started(), step(1, 0.5))
    (tmp_path / "log.jsonl").unlink()
    run_of(started(), step(1, 0.6))
    assert tracker.known == [None, None]
    assert [point[::2] for point in tracker.points] == [(1, 0.5), (1, 0.6)]


@pytest.mark.parametrize("left", ["", "{", "[]"])
def test_what_is_kept_of_a_run_may_be_damaged(
    run_of: Callable[..., None], tracker: _Tracker, tmp_path: Path, left: str
) -> None:
    (tmp_path / "fake.json").write_text(left)
    run_of(started(4), step(5, 0.5))
    assert (tracker.known, len(tracker.points)) == ([None], 1)


def test_a_tracker_that_fails_is_warned_of_once_and_gets_the_rest_later(
    run_of: Callable[..., None], tracker: _Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(does: bool) -> Callable[[], None]:
        return lambda: setattr(tracker, "fails", does)

    caplog.set_level(logging.WARNING, "dualformer_cli")
    run_of(started(), step(1, 0.5), fail(True), step(2, 0.4), step(3, 0.3), validation(3, 40.0), fail(False))
    reason = "the server is away"
    assert caplog.messages == [f"the run goes on, but fake lacks numbers, which log.jsonl has: {reason}"]
    assert [point[::2] for point in tracker.points] == [(1, 0.5), (2, 0.4), (3, 0.3), (3, 40.0)]  # at the end
    run_of(started(3), fail(True), step(4, 0.2), fail(False), step(5, 0.1), validation(5, 50.0))
    assert [point[::2] for point in tracker.points][4:] == [(4, 0.2), (5, 0.1), (5, 50.0)]
    assert tracker.ends == ["finished", "finished"]


def test_a_tracker_that_does_not_start_is_left_alone(
    run_of: Callable[..., None], tracker: _Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "dualformer_cli")
    tracker.fails_to_start = True
    run_of(started(), step(1, 0.5), validation(1, 40.0))
    assert len(caplog.messages) == 1
    assert (len(tracker.known), tracker.points, tracker.ends) == (1, [], [])


@pytest.mark.parametrize(
    ("error", "end"), [(Stopped(15), "stopped"), (KeyboardInterrupt(), "stopped"), (ValueError(), "failed")]
)
def test_a_tracker_hears_how_the_run_ended(
    run_of: Callable[..., None], tracker: _Tracker, error: BaseException, end: str
) -> None:
    def leave() -> None:
        raise error

    with pytest.raises(type(error)):
        run_of(started(), step(1, 0.5), leave)
    assert tracker.ends == [end]
