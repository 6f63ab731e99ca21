"""The script that tries mutants: what it calls killed, survived and stale."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("mutate.py")
ENTRY = """\
- name: {name}
  file: prices.py
  old: '{old}'
  new: '{new}'
  lost: money
  tests: tests/test_prices.py
"""
SUM = ENTRY.format(name="the sum is a difference", old="a + b", new="a - b")
ROUNDING = ENTRY.format(name="prices are cut off", old="round(price)", new="int(price)")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A program of two functions, one of which is tested."""
    folder = tmp_path / "tree"
    (folder / "tests").mkdir(parents=True)
    (folder / "prices.py").write_text(
        "def total(a, b):\n    return a + b\n\n\ndef whole(price):\n    return round(price)\n"
    )
    (folder / "tests" / "test_prices.py").write_text(
        "from prices import total\n\n\ndef test_two_and_three_are_five():\n    assert total(2, 3) == 5\n"
    )
    return folder


def run(tree: Path, entries: str, *options: str) -> subprocess.CompletedProcess[str]:
    mutants = tree.parent / "mutants.yaml"
    mutants.write_text(entries)
    command = [sys.executable, str(SCRIPT), "--tree", str(tree), "--mutants", str(mutants), "--preload", "", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_a_mutant_that_a_test_notices_is_killed_and_one_that_none_notices_is_named(tree: Path) -> None:
    before = (tree / "prices.py").read_bytes()
    done = run(tree, SUM + ROUNDING, "--jobs", "2")
    assert done.returncode == 1, done.stderr
    assert "the code as it is" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines() if line.endswith("the sum is a difference")] == [
        "killed"
    ]
    assert "survived: prices are cut off (prices.py)\n  - round(price)\n  + int(price)\n  lost: money" in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["all", "2", "1", "50.0%"]
    assert (tree / "prices.py").read_bytes() == before
    done = run(tree, SUM + ROUNDING, "--only", "difference", "--no-baseline")
    assert done.returncode == 0, done.stdout


def test_an_entry_whose_text_is_not_there_once_is_named(tree: Path) -> None:
    stale = ENTRY.format(name="gone", old="a * b", new="a / b") + ENTRY.format(name="twice", old="def ", new="class ")
    elsewhere = SUM.replace("test_prices.py", "test_sums.py").replace("the sum", "a sum")
    done = run(tree, SUM + stale + elsewhere, "--check")
    assert done.returncode == 2
    assert "'gone': prices.py has the text 0 times, not once: 'a * b'" in done.stderr
    assert "'twice': prices.py has the text 2 times" in done.stderr
    assert "'a sum is a difference': there is no 'tests/test_sums.py'" in done.stderr
    assert "'the sum is a difference'" not in done.stderr


def test_an_entry_that_leaves_no_python_is_named(tree: Path) -> None:
    done = run(tree, ENTRY.format(name="no sum", old="return a + b", new="return a +"), "--check")
    assert done.returncode == 2
    assert "'no sum': prices.py is no Python with it: invalid syntax" in done.stderr


def test_every_entry_of_this_repository_fits_the_code() -> None:
    """One that a change has left behind proves nothing, and stops all of them."""
    done = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 400


def test_tests_that_fail_without_a_mutant_prove_nothing(tree: Path) -> None:
    (tree / "tests" / "test_prices.py").write_text("def test_never():\n    assert False\n")
    done = run(tree, SUM)
    assert done.returncode == 2
    assert "the tests fail without a mutant (killed)" in done.stderr


def test_a_mutant_that_never_ends_is_stopped(tree: Path) -> None:
    endless = ENTRY.format(name="endless", old="return a + b", new="while True: pass")
    done = run(tree, endless, "--limit", "3", "--no-baseline")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[0].split()[:2] == ["timed", "out"]


def test_a_mutant_that_ends_the_process_is_killed(tree: Path) -> None:
    crash = ENTRY.format(name="crash", old="return a + b", new='__import__("os").abort()')
    done = run(tree, crash, "--no-baseline")
    assert done.returncode == 0, done.stdout
    assert done.stdout.split()[0] == "killed"
