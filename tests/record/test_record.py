"""The record's own functions: what it replaces, what it runs, and what it says of two records that differ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import kept
import record
import terminal


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/tmp/x/in/a.mp4: no video", "HERE/in/a.mp4: no video"),
        ("at 2026-11-29 06:00:01", "at DATE"),
        ('{"seconds": 1.25, "duration_seconds": 2.5}', '{"seconds": FREE, "duration_seconds": 2.5}'),
        ('{"top1": 33.3, "free_bytes": 7, "bytes": 9}', '{"top1": 33.3, "free_bytes": FREE, "bytes": 9}'),
        ("predict: 1/6, 4 min 38 s left, a.mp4\npredict: 6/6 done in 59 s\nend", "end"),
        (
            "epoch 1, step 1/3: loss 1.5, lr 0.001, 9.5 clips/s, 2% waiting for data, 1 s left",
            "epoch 1, step 1/3: loss 1.5, lr 0.001, FREE",
        ),
        ("peak memory  1,200 MiB\ntime  about 2 h 5 min\nsteps  3", "peak memory  FREE\ntime  FREE\nsteps  3"),
        ('{"stamp": [12, 34], "size": 5}', '{"stamp": [12, FREE], "size": 5}'),
        ('Traceback (a):\n  File "a.py", line 1\n    f()\nKeyError: 1', "Traceback (a):\nKeyError: 1"),
        ("about 0 MB, in about 17 s with 1 process", "about 0 MB, in about FREE with 1 process"),
        ("0.0 s to 2.0 s: running 41.3%, about 43.0 kB", "0.0 s to 2.0 s: running 41.3%, about 43.0 kB"),
    ],
)
def test_what_is_free_becomes_words_and_results_stay(text: str, expected: str) -> None:
    assert kept.normalise(text, {"/tmp/x": "HERE", "/tmp": "WORK"}) == expected


def test_arrays_are_kept_by_name_shape_and_bytes(tmp_path: Path) -> None:
    contents = []
    for value in (0.0, 1e-30):
        np.savez(tmp_path / "a.npz", scores=np.full((2, 3), value, np.float32), names=np.array(["a"]))
        contents.append(kept.content(tmp_path / "a.npz", {}))
    assert [line.rsplit(" ", 1)[0] for line in contents[0].splitlines()] == [
        "/scores float32 (2, 3)",
        "/names <U1 (1,)",
    ]
    assert contents[0] != contents[1]


def test_the_code_that_runs_is_a_copy_and_nothing_of_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record.tempfile, "gettempdir", lambda: str(tmp_path))
    for name in record.CODE:
        (tmp_path / "root" / name).mkdir(parents=True)
    (tmp_path / "root" / "kernels" / "a.py").write_text("1")
    with record.work_folder(tmp_path / "root") as one, record.work_folder(tmp_path / "root") as two:
        assert (one / "code" / "kernels" / "a.py").read_text() == "1"
        assert record.environment(one)["PYTHONPATH"] == str(one / "code")
        assert one != two
        assert len(str(one)) == len(str(two))
    assert os.listdir(tmp_path) == ["root"]


def entry(*, code: int = 0, stdout: str = "a", **files: str) -> dict:
    steps = [{"line": "flops tiny", "exit": code, "stdout": [stdout], "stderr": []}]
    return {"steps": steps, "files": {name: [text] for name, text in files.items()}}


def test_equal_records_have_no_difference() -> None:
    assert record.differences({"x": entry(out="1")}, {"x": entry(out="1")}) == []


def test_each_part_that_differs_is_named_with_both_sides() -> None:
    found = record.differences(
        {"x": entry(), "gone": entry()}, {"x": entry(code=1, stdout="b", out="1"), "new": entry()}
    )
    assert [text.splitlines()[0] for text in found] == [
        "gone: only in the first record",
        "new: only in the second record",
        "x | 1. flops tiny: exit",
        "x | 1. flops tiny: stdout",
        "x | file out",
    ]
    assert found[3].splitlines()[-2:] == ["-a", "+b"]
    assert found[4].splitlines()[-2:] == ["-(none)", "+1"]


@pytest.mark.parametrize(("only", "code"), [("", 1), ("^help", 0)])
def test_compare_prints_what_differs_and_exits_1(tmp_path: Path, only: str, code: int) -> None:
    for name, text in (("before", "a"), ("after", "b")):
        made = {"help": entry(), "predict": entry(stdout=text)}
        (tmp_path / name).write_text(json.dumps(made), encoding="utf-8")
    command = [sys.executable, record.__file__, "compare", "before", "after", "--only", only]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code
    assert ("predict | 1. flops tiny: stdout" in done.stdout) == bool(code)


def test_what_was_drawn_over_or_erased_is_not_left_on_the_terminal() -> None:
    raw = "\x1b[?25lbar 1\x1b[K\r\nend\r\n\x1b[2A\r\x1b[2K\x1b[1mone\x1b[0m\r\n\r\x1b[2Ktwo two\r2\n"
    assert terminal.shown(raw) == "one\n2wo two\n"


def test_a_line_of_several_words_that_is_wider_than_the_terminal_is_found() -> None:
    lines = ["four words are here", "a/path/that/is/long", "短い 日本語", "short"]
    assert terminal.too_wide(lines, 9) == [lines[0], lines[2]]


def test_a_command_sees_a_terminal_of_its_columns(tmp_path: Path) -> None:
    script = "import os, sys; print(sys.stdout.isatty(), os.get_terminal_size().columns, flush=True); sys.exit(3)"

    def become() -> NoReturn:
        os.execv(sys.executable, [sys.executable, "-c", script])

    assert terminal.run_on_terminal(become, 44, str(tmp_path / "out")) == 3
    assert (tmp_path / "out").read_bytes() == b"True 44\r\n"


def test_what_a_terminal_got_is_read_with_its_returns(tmp_path: Path) -> None:
    output = tmp_path / "stdout"
    output.write_bytes(b"first\r\n\r\x1b[2Kloading\r\x1b[2Ksecond\r\n")
    assert record.printed(output, 40) == "first\nsecond\n"
    output.write_bytes(b"a\r\nb\n")
    assert record.printed(output, None) == "a\r\nb\n"
