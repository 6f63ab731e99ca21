"""What `prepare` found, as text."""

from __future__ import annotations

import io

import pytest
from screens import Terminal

from dualformer_cli.documents.prepare import DatasetCounts, Examples
from dualformer_cli.documents.render import RenderEstimate
from dualformer_cli.outputs.preparation import _missing, print_render_estimate

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


@pytest.mark.parametrize(("count", "files"), [(1, "1 file"), (2, "2 files")])
def test_what_is_left_out_is_counted_in_words(count: int, files: str) -> None:
    found = Examples(videos=count, examples=("a.mp4",))
    dataset = DatasetCounts(name="x", title="X", metric="top-1", splits={}, copies=found, not_annotated=found)
    assert list(_missing(dataset))[1:] == [
        f"left out   {files} with a video that another file holds too, such as a.mp4",
        f"left out   {files} in no annotation, such as a.mp4",
    ]
