"""What `prepare` found, as text."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from screens import Terminal

from dualformer_cli.documents.prepare import (
    DatasetCounts,
    Examples,
    ListCounts,
    LookAlikePair,
    LookAlikes,
    Spread,
    Statistics,
)
from dualformer_cli.documents.render import RenderEstimate
from dualformer_cli.outputs.preparation import (
    _classes,
    _lines,
    _look_alikes,
    _missing,
    _statistics,
    print_render_estimate,
)

ESTIMATE = RenderEstimate(root="out", clips={"train": 80, "val": 20}, missing=100, num_bytes=3_200_000, seconds=75.0)
LINE = "out: would render 100 of 100 clips, about 3.2 MB, in about 1 min 15 s with 1 process"


def test_a_terminal_gets_whole_words_and_a_pipe_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    pipe, terminal = io.StringIO(), Terminal()
    for stream in (pipe, terminal):
        print_render_estimate(ESTIMATE, 1, stream=stream)
    assert pipe.getvalue() == f"{LINE}\n"
    lines = terminal.getvalue().splitlines()
    assert max(map(len, lines)) <= 40
    assert [word for line in lines for word in line.split()] == LINE.split()


@pytest.mark.parametrize(
    ("most", "said"),
    [
        (1.34, ["duration   4 s in all; 1.3 s each", "frames     32 each"]),
        (2.0, ["duration   4 s in all; 1.3 to 2.0 s, median 1.3", "frames     32 to 48, median 32"]),
    ],
)
def test_a_spread_that_is_none_is_said_as_one_value(most: float, said: list[str]) -> None:
    seconds = Spread(total=4.0, min=1.32, median=1.33, max=most)
    lengths = Spread(total=96, min=32, median=32, max=24 * most if most == 2 else 32)
    statistics = Statistics(
        videos=3, bytes=0, num_frames=lengths, duration_seconds=seconds, sizes={}, fps={}, codecs={}
    )
    assert list(_statistics(statistics))[:2] == said


@pytest.mark.parametrize(("count", "files"), [(1, "1 file"), (2, "2 files")])
def test_what_is_left_out_is_counted_in_words(count: int, files: str) -> None:
    found = Examples(videos=count, examples=("a.mp4",))
    dataset = DatasetCounts(name="x", title="X", metric="top-1", splits={}, copies=found, not_annotated=found)
    assert list(_missing(dataset))[1:] == [
        f"left out   {files} with a video that another file holds too, such as a.mp4",
        f"left out   {files} in no annotation, such as a.mp4",
    ]


def test_each_split_has_its_own_counts_and_each_look_alike_its_own_split() -> None:
    splits = {"train": ListCounts(videos=7, per_class=(4, 3)), "val": ListCounts(videos=3, per_class=(1, 2))}
    found: Any = SimpleNamespace(splits=splits, dataset=None, classes=("run", "jump"))
    assert [line.split() for line in _classes(found)] == [
        ["class", "train", "val"],
        ["run", "4", "1"],
        ["jump", "3", "2"],
        ["all", "videos", "7", "3"],
    ]
    pair = LookAlikePair(first="a.mp4", first_split="train", second="b.mp4", second_split="val", bits=0.5)
    *_, line = _look_alikes(LookAlikes(pairs=1, examples=(pair,)), is_official=False)
    assert line.split() == ["train", "a.mp4", "|", "val", "b.mp4"]


def test_what_is_converted_now_is_told_from_what_was_before() -> None:
    seconds = Spread(total=4.0, min=1.0, median=1.0, max=1.0)
    statistics = Statistics(videos=4, bytes=0, num_frames=None, duration_seconds=seconds, sizes={}, fps={}, codecs={})
    found: Any = SimpleNamespace(splits={}, dataset=None, classes=())
    summary = SimpleNamespace(found=found, status={"ok": 4}, statistics=statistics, notes=())
    document: Any = SimpleNamespace(summary=summary, run=SimpleNamespace(converted=3, kept=1, failed=2))
    assert [line for line in _lines(document) if line.startswith("converted")] == [
        "converted  3 now, 1 before, 2 failed"
    ]
