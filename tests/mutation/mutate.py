"""Mutants: does a test notice when a line that decides something is wrong?

    python tests/mutation/mutate.py                       all mutants, each against the tests that it names
    python tests/mutation/mutate.py --only engine/train   those whose file or name has this in it
    python tests/mutation/mutate.py --all --only NAME     what survives goes through the whole suite, too

The mutants are in mutants/*.yaml, a list of entries with

    name     what is wrong then, in words
    file     where, from the root of the repository
    old, new text that stands exactly once in that file, and what takes its place
    lost     what a user would lose
    tests    what should notice, as for pytest: files, or one test of a file where that is much faster
    environment  variables that the tests need; may be left out

Each mutant changes a copy of the tree, never the tree itself. pytest runs in a fork of one process that has loaded the
large libraries, or each of a few hundred mutants would wait for them. Exit code 0 if every mutant was killed, 1 if
some survived, 2 if an entry no longer fits the code or its tests fail without it.
"""

from __future__ import annotations

import argparse
import compileall
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

HERE = Path(__file__).resolve().parent
PRELOADED = ("torch", "numpy", "av", "einops", "PIL.Image", "pytest", "hypothesis", "typer", "yaml")
"""Loaded once, before the forks. Nothing of the program itself: each fork loads that from its own copy."""
WHOLE_SUITE = ("tests",)
_NO_TESTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One wrong line."""

    name: str
    file: str
    old: str
    new: str
    lost: str
    tests: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Tests to run over a copy of the tree, with a mutant in it or as it is."""

    mutant: Mutant | None
    tests: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the tests said about a tree with one mutant in it, or about the tree as it is."""

    name: str
    status: str
    """killed, survived, timed out (which is killed, too), or broken: pytest did not get as far as running a test."""
    seconds: float
    noticed_by: str
    """The first test that failed."""
    output: str

    @property
    def is_killed(self) -> bool:
        """Whether some test noticed."""
        return self.status in ("killed", "timed out")


class StaleMutantError(Exception):
    """Entries that do not fit the code."""


def load_mutants(paths: Iterable[Path]) -> list[Mutant]:
    """Return the mutants of some files.

    Raises:
        StaleMutantError: if an entry lacks a field or has another one, or two have one name.
    """
    mutants: list[Mutant] = []
    wanted = {column.name for column in fields(Mutant)}
    for path in paths:
        for entry in yaml.safe_load(path.read_text(encoding="utf-8")) or ():
            if set(entry) | {"environment"} != wanted:
                raise StaleMutantError(f"{path.name}: {entry.get('name')!r} has {sorted(entry)}, not {sorted(wanted)}")
            tests = entry["tests"]
            mutants.append(Mutant(**{**entry, "tests": tuple([tests] if isinstance(tests, str) else tests)}))
    names = [mutant.name for mutant in mutants]
    if twice := {name for name in names if names.count(name) > 1}:
        raise StaleMutantError(f"several mutants have one name: {', '.join(sorted(twice))}")
    return mutants


def mutated(text: str, mutant: Mutant) -> str:
    """Return the file's text with the mutant in it.

    Raises:
        StaleMutantError: if the text that it replaces does not stand there exactly once.
    """
    if (found := text.count(mutant.old)) != 1 or mutant.old == mutant.new:
        raise StaleMutantError(f"{mutant.name!r}: {mutant.file} has the text {found} times, not once: {mutant.old!r}")
    return text.replace(mutant.old, mutant.new)


def check(mutants: Iterable[Mutant], tree: Path) -> None:
    """Refuse entries that do not fit the code.

    Raises:
        StaleMutantError: naming all of them.
    """
    stale = []
    for mutant in mutants:
        try:
            text = mutated((tree / mutant.file).read_text(encoding="utf-8"), mutant)
            if mutant.file.endswith(".py"):
                compile(text, mutant.file, "exec")
        except SyntaxError as error:
            stale.append(f"{mutant.name!r}: {mutant.file} is no Python with it: {error}")
        except OSError:
            stale.append(f"{mutant.name!r}: there is no file {mutant.file!r}")
        except StaleMutantError as error:
            stale.append(str(error))
        stale += [f"{mutant.name!r}: there is no {test!r}" for test in mutant.tests if not _exists(tree, test)]
    if stale:
        raise StaleMutantError("\n".join(stale))


def _exists(tree: Path, test: str) -> bool:
    path, _, name = test.partition("[")[0].partition("::")
    return (tree / path).exists() and (not name or f"def {name}(" in (tree / path).read_text(encoding="utf-8"))


def copy_tree(tree: Path, target: Path) -> None:
    """Copy what git would commit, or everything where git does not know the folder, and compile it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=tree, capture_output=True
    )
    if listed.returncode == 0:
        for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
            if (tree / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(tree / name, target / name)
    else:
        shutil.copytree(tree, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(str(target), quiet=2)


class Slot:
    """A copy of the tree in which one mutant at a time is tried."""

    def __init__(self, tree: Path, folder: Path) -> None:
        self.tree, self.scratch = folder / "tree", folder / "scratch"
        self.log = folder / "output.txt"
        copy_tree(tree, self.tree)
        self.mutant: Mutant | None = None
        self.pid = 0
        self._started = 0.0
        self._before: tuple[Path, bytes, float] | None = None

    def start(self, trial: Trial) -> None:
        """Put the mutant in, if there is one, and begin the tests."""
        self.mutant, self._started = trial.mutant, time.monotonic()
        mutant = trial.mutant
        if mutant is not None:
            path = self.tree / mutant.file
            self._before = (path, path.read_bytes(), path.stat().st_mtime)
            path.write_text(mutated(self._before[1].decode("utf-8"), mutant), encoding="utf-8")
            os.utime(path, (0, self._before[2] + 10))  # compiled code belongs to a time, and nobody compiles anew
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            _become_pytest(self.tree, self.scratch, self.log, trial)

    def poll(self, limit: float) -> Outcome | None:
        """Return the outcome, once there is one, and take the mutant out."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        seconds = time.monotonic() - self._started
        if not pid and seconds < limit:
            return None
        self.stop()
        code = None if not pid else os.waitstatus_to_exitcode(status)
        output = self.log.read_text(encoding="utf-8", errors="replace")
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
        statuses = {None: "timed out", 0: "survived", 1: "killed"}
        if code == 1 and failed is None:
            code = _NO_TESTS  # an error while tests were collected has this code with some plugins
        if code is not None and code < 0:
            code, failed = 1, None  # a test that ended the process has noticed
        name = "the code as it is" if self.mutant is None else self.mutant.name
        noticed_by = failed[1] if failed else ""
        return Outcome(
            name=name, status=statuses.get(code, "broken"), seconds=seconds, noticed_by=noticed_by, output=output
        )

    def stop(self) -> None:
        """End the tests with whatever they started, and take the mutant out."""
        if self.pid:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            self.pid = 0
        if self._before is not None:
            path, content, changed = self._before
            path.write_bytes(content)
            os.utime(path, (0, changed))
            self._before = None
        shutil.rmtree(self.scratch, ignore_errors=True)


def _become_pytest(tree: Path, scratch: Path, log: Path, trial: Trial) -> None:
    """Run pytest in this fork, over the copy, and leave with its exit code."""
    code = 3
    try:
        os.setsid()
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(tree)
        sys.path[:] = [str(tree), *(entry for entry in sys.path if entry not in ("", str(HERE)))]
        os.environ.update(PYTHONPATH=str(tree), PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1", **trial.environment)
        sys.dont_write_bytecode = True
        import pytest

        options = ["-x", "-n", "0", "-q", "--no-header", "-p", "no:cacheprovider", f"--basetemp={scratch}"]
        code = int(pytest.main([*options, *trial.tests]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def try_all(trials: Sequence[Trial], tree: Path, *, jobs: int, limit: float) -> list[Outcome]:
    """Run trials, several at a time, and print each outcome as it comes.

    Args:
        trials: what to run.
        tree: root of the repository.
        jobs: how many at a time.
        limit: seconds of a trial.

    Returns:
        The outcomes in the order of the trials.
    """
    outcomes: dict[int, Outcome] = {}
    waiting = list(enumerate(trials))[::-1]
    with TemporaryDirectory(prefix="mutants-") as folder:
        slots = [Slot(tree, Path(folder) / str(number)) for number in range(min(jobs, len(trials)))]
        busy: dict[int, Slot] = {}
        try:
            while waiting or busy:
                for slot in slots:
                    if waiting and slot not in busy.values():
                        number, trial = waiting.pop()
                        slot.start(trial)
                        busy[number] = slot
                time.sleep(0.05)
                for number, slot in list(busy.items()):
                    if (outcome := slot.poll(limit)) is not None:
                        outcomes[number] = outcome
                        del busy[number]
                        print(f"{outcome.status:>9} {outcome.seconds:6.1f} s  {outcome.name}", flush=True)
        finally:
            for slot in busy.values():
                slot.stop()
    return [outcomes[number] for number in range(len(trials))]


def _without_mutants(mutants: Iterable[Mutant]) -> list[Trial]:
    """Return all tests of the mutants, those that need the same environment together."""
    tests: dict[tuple[tuple[str, str], ...], set[str]] = {}
    for mutant in mutants:
        tests.setdefault(tuple(sorted(mutant.environment.items())), set()).update(mutant.tests)
    return [Trial(mutant=None, tests=tuple(sorted(of_env)), environment=dict(env)) for env, of_env in tests.items()]


def report(mutants: Sequence[Mutant], outcomes: Sequence[Outcome]) -> None:
    """Print what survived and the table by file."""
    for mutant, outcome in zip(mutants, outcomes, strict=True):
        if not outcome.is_killed:
            print(f"\n{outcome.status}: {mutant.name} ({mutant.file})\n  - {mutant.old}\n  + {mutant.new}")
            print(f"  lost: {mutant.lost}\n  tried: {' '.join(mutant.tests)}")
            if outcome.status == "broken":
                print("  " + "\n  ".join(outcome.output.splitlines()[-15:]))
    print(f"\n{'file':60} {'mutants':>8} {'killed':>8}")
    by_file: dict[str, list[bool]] = {}
    for mutant, outcome in zip(mutants, outcomes, strict=True):
        by_file.setdefault(mutant.file, []).append(outcome.is_killed)
    for file, killed in sorted(by_file.items()):
        print(f"{file:60} {len(killed):8} {sum(killed):8}")
    total = sum(outcome.is_killed for outcome in outcomes)
    print(f"{'all':60} {len(outcomes):8} {total:8}   {100 * total / len(outcomes):.1f}%")


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--mutants", type=Path, default=HERE / "mutants", help="file or folder of entries")
    parser.add_argument("--tree", type=Path, default=HERE.parents[1], help="root of the repository")
    parser.add_argument("--only", action="append", default=[], help="text in the file or the name; may be repeated")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--limit", type=float, default=300, help="seconds of one mutant")
    parser.add_argument("--all", action="store_true", help="run what survives through the whole suite, too")
    parser.add_argument("--check", action="store_true", help="only see that every entry fits the code")
    parser.add_argument("--no-baseline", action="store_true", help="do not run the tests without a mutant first")
    parser.add_argument("--preload", default=",".join(PRELOADED), help="modules to load before the forks")
    options = parser.parse_args(argv)
    try:
        paths = sorted(options.mutants.glob("*.yaml")) if options.mutants.is_dir() else [options.mutants]
        mutants = [
            mutant
            for mutant in load_mutants(paths)
            if not options.only or any(text in f"{mutant.file} {mutant.name}" for text in options.only)
        ]
        check(mutants, options.tree)
    except StaleMutantError as error:
        print(error, file=sys.stderr)
        return 2
    if options.check or not mutants:
        print(f"{len(mutants)} mutants, each of which fits the code")
        return 0
    for name in filter(None, options.preload.split(",")):
        importlib.import_module(name)
    run = {"tree": options.tree, "jobs": options.jobs, "limit": options.limit}
    if not options.no_baseline:
        for outcome in try_all(_without_mutants(mutants), **{**run, "limit": 20 * options.limit}):
            if outcome.status != "survived":
                print(f"{outcome.output}\nthe tests fail without a mutant ({outcome.status})", file=sys.stderr)
                return 2
    outcomes = try_all([Trial(mutant=m, tests=m.tests, environment=m.environment) for m in mutants], **run)
    if options.all:
        left = [place for place, outcome in enumerate(outcomes) if outcome.status == "survived"]
        whole = [Trial(mutant=mutants[place], tests=WHOLE_SUITE, environment={}) for place in left]
        again = try_all(whole, **{**run, "limit": 20 * options.limit})
        for place, outcome in zip(left, again, strict=True):
            outcomes[place] = outcome
    report(mutants, outcomes)
    if any(outcome.status == "broken" for outcome in outcomes):
        return 2
    return 0 if all(outcome.is_killed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
