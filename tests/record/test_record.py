"""The record's own functions: what it replaces, and what it says of two records that differ."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import record


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/tmp/x/in/a.mp4: no video", "HERE/in/a.mp4: no video"),
        ("done in 3.2 s, 14.1 clips/s", "done in TIME, SPEED"),
        ("0.0 s to 2.0 s: running 41.3 %", "0.0 s to 2.0 s: running 41.3 %"),
        ('{"elapsed_seconds": 1.25, "top1": 33.3}', '{"elapsed_seconds": TIME, "top1": 33.3}'),
        ("at 2026-11-29 06:00:01", "at DATE"),
    ],
)
def test_times_and_folders_become_words_and_results_stay(text: str, kept: str) -> None:
    assert record.normalise(text, {"/tmp/x": "HERE", "/tmp": "WORK"}) == kept


def entry(*, code: int = 0, stdout: str = "a\n", **files: str) -> dict:
    return {"steps": [{"line": "flops tiny", "exit": code, "stdout": stdout, "stderr": ""}], "files": files}


def test_equal_records_have_no_difference() -> None:
    assert record.differences({"x": entry(out="1")}, {"x": entry(out="1")}) == []


def test_each_part_that_differs_is_named_with_both_sides() -> None:
    found = record.differences(
        {"x": entry(), "gone": entry()}, {"x": entry(code=1, stdout="b\n", out="1"), "new": entry()}
    )
    assert [text.splitlines()[0] for text in found] == [
        "x | 1. flops tiny: exit",
        "x | 1. flops tiny: stdout",
        "x | file out",
        "gone: only in the first record",
        "new: only in the second record",
    ]
    assert "-a" in found[1].splitlines()
    assert "+b" in found[1].splitlines()
