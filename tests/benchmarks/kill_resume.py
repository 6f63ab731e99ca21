"""Disturb a training run in every way we know of, resume it, and compare with a run that nothing disturbed.

Usage: python tests/benchmarks/kill_resume.py [PRESET LIST VALIDATION_LIST] [--moments 20] [--seed 0] [--only WORD]
       [--processes 1] [--set KEY=VALUE ...]

Without a preset and lists it renders clips of four colours and trains a tiny model on them. A disturbed run is resumed
until it ends; its weights, optimizer state, progress and log must be bitwise those of the undisturbed one. On CPU in
fp32, where that can be promised. Prints a row per fault; ends with 1 if any does not hold.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from dualformer_cli.model.weights import read_checkpoint

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from toy_training import TOY_PRESET, render_colours

PATIENCE = 300
"""Seconds after which a run counts as one that hangs."""


class Broken(Exception):  # noqa: N818
    """A promise that does not hold."""


class Runs:
    """Starts runs of one recipe, and compares how they end.

    Args:
        arguments: of the command line.
        folder: where runs go.
    """

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments, self.folder = arguments, folder
        self.rng = random.Random(arguments.seed)
        self.whole = folder / "whole"
        self.seconds = 0.0
        """Of the undisturbed run."""

    def start(self, output: Path, *options: str, limit_bytes: int | None = None) -> subprocess.Popen[str]:
        """Start the command, in a session of its own so that its workers can be killed with it."""
        of = self.arguments
        command = [sys.executable, "-m", "dualformer_cli", "train", "--preset", str(of.preset), "--output", str(output)]
        command += ["--data", str(of.list), "--data", str(of.validation), "--precision", "fp32"]
        command += ["--device", "cpu"] if of.processes == 1 else ["--cpu-processes", str(of.processes)]
        for override in ["train.save_every=1 step", "train.log_every_steps=1", "train.epochs=3", *of.set]:
            command += ["--set", override]

        def limit() -> None:
            if limit_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

        return subprocess.Popen(
            [*command, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=limit,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def end(self, process: subprocess.Popen[str], codes: Sequence[int]) -> str:
        """Wait for a run; return its last line, which must not be a traceback's."""
        try:
            _, errors = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill(process)
            raise Broken(f"it hangs for {PATIENCE} s") from None
        if process.returncode not in codes or "Traceback" in errors:
            raise Broken(f"exit code {process.returncode}: {errors[-1500:]}")
        return (errors.strip().splitlines() or [""])[-1]

    def kill(self, process: subprocess.Popen[str]) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def new(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder)) / "run"

    def begun(self, output: Path, *options: str, until: Callable[[], bool] | None = None) -> subprocess.Popen[str]:
        """Start a run and wait until it has saved twice, or until something else holds."""
        process = self.start(output, *options)
        is_there = until or (output / "checkpoints" / "previous.pt").exists
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and not is_there() and time.monotonic() < deadline:
            time.sleep(0.01)
        if process.poll() is not None:
            raise Broken(f"it ended too soon: {process.communicate()[1][-1500:]}")
        return process

    def resumed(self, output: Path) -> str:
        """Resume to the end; return what is bitwise the same there, or say what is not."""
        options = ["--resume"] if (output / "checkpoints").exists() else []
        self.end(self.start(output, *options), [0])
        if difference := compare(self.whole, output):
            raise Broken(difference)
        return "resumed bitwise"


def losses(output: Path) -> list[tuple[int, float]]:
    """(step, loss) of every whole line of the log."""
    rows = rows_of(output)
    return [(row["step"], row["loss"]) for row in rows if row["event"] == "step"]


def rows_of(output: Path) -> list[dict[str, Any]]:
    path = output / "log.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def first_difference(one: Any, other: Any, name: str = "") -> str | None:
    """Name the first entry of two nested checkpoints that is not bitwise the same."""
    if isinstance(one, torch.Tensor):
        return None if isinstance(other, torch.Tensor) and torch.equal(one, other) else name
    if isinstance(one, dict):
        if not isinstance(other, dict) or one.keys() != other.keys():
            return name
        pairs = [(one[key], other[key], f"{name}.{key}") for key in one]
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            return name
        pairs = [(a, b, f"{name}.{index}") for index, (a, b) in enumerate(zip(one, other, strict=True))]
    else:
        return None if one == other else name
    return next((found for pair in pairs if (found := first_difference(*pair)) is not None), None)


def compare(whole: Path, broken: Path) -> str | None:
    """Name what differs between the ends of two runs."""
    one, other = (read_checkpoint(output / "checkpoints" / "last.pt") for output in (whole, broken))
    for key in ("model", "training_model", "optimizer", "progress", "average_updates", "metrics"):
        if (found := first_difference(one[key], other[key], key)) is not None:
            return f"{found} differs"
    digests = [[row["digest"] for row in rows_of(output) if row["event"] == "validation"] for output in (whole, broken)]
    if digests[0] != digests[1]:
        return "the validations in the log differ"
    return None if losses(whole) == losses(broken) else "the losses in the log differ"


def at_random_moments(runs: Runs, numbers: Sequence[int]) -> str:
    """Send a signal a little after one of the next steps, again and again, and resume; after that let the run end."""
    output, hits, slowest = runs.new(), 0, 0.0
    while hits < runs.arguments.moments:
        process = runs.start(output, *(["--resume"] if (output / "checkpoints").exists() else []))
        until, started = len(losses(output)) + runs.rng.randint(0, 3), time.monotonic()
        while (
            process.poll() is None
            and (len(losses(output)) < until or not (output / ".lock").exists())
            and time.monotonic() - started < PATIENCE
        ):
            time.sleep(0.01)
        time.sleep(runs.rng.uniform(0, 0.5) * (runs.seconds / 4 if until == 0 else 1))
        if process.poll() is not None:
            runs.end(process, [0])
            if difference := compare(runs.whole, output):
                raise Broken(difference)
            output = runs.new()
            continue
        number, asked = numbers[hits % len(numbers)], time.monotonic()
        hits += 1
        if number == signal.SIGKILL:
            runs.kill(process)
            continue
        process.send_signal(number)
        runs.end(process, [0, 75, 130, 143])
        slowest = max(slowest, time.monotonic() - asked)
    result = runs.resumed(output)
    return f"{hits} times, {result}" + (f"; the slowest end took {slowest:.1f} s" if slowest else "")


def in_validation(runs: Runs, number: int) -> str:
    output = runs.new()
    process = runs.begun(output, until=lambda: any(part.stat().st_size for part in output.glob("validation-*/*.jsonl")))
    asked = time.monotonic()
    if number == signal.SIGKILL:
        runs.kill(process)
    else:
        process.send_signal(number)
        runs.end(process, [75])
    took = time.monotonic() - asked
    kept = sum(len(part.read_text().splitlines()) for part in output.glob("validation-*/*.jsonl"))
    return f"{kept} videos kept, ended after {took:.1f} s, {runs.resumed(output)}"


def full_disk(runs: Runs) -> str:
    size = (runs.whole / "checkpoints" / "last.pt").stat().st_size
    output = runs.new()
    said = runs.end(runs.start(output, limit_bytes=size // 2), [1])
    return f"{said[-60:]!r}, {runs.resumed(output)}"


def flipped_bits(runs: Runs) -> str:
    """Flip one bit of the last checkpoint, 20 times as often: it is noticed, or what is loaded is what was saved."""
    from dualformer_cli.engine.training.checkpoint_files import CheckpointFolder

    logging.getLogger("dualformer_cli").setLevel(logging.ERROR)  # each fall-back is a warning
    output = runs.new()
    runs.kill(runs.begun(output))
    content = (output / "checkpoints" / "last.pt").read_bytes()
    saved, noticed, times = CheckpointFolder(output).load_latest(), 0, 20 * runs.arguments.moments
    for _ in range(times):
        flipped = bytearray(content)
        flipped[runs.rng.randrange(len(content))] ^= 1 << runs.rng.randrange(8)
        (output / "checkpoints" / "last.pt").write_bytes(flipped)
        found = CheckpointFolder(output).load_latest()
        assert found is not None
        assert saved is not None
        if found["progress"]["step"] < saved["progress"]["step"]:
            noticed += 1
        elif (difference := first_difference(saved, found)) is not None:
            raise Broken(f"a flipped bit is loaded: {difference}")
    return f"{noticed} of {times} noticed, the others without effect, {runs.resumed(output)}"


def useless_checkpoint(runs: Runs) -> str:
    output = runs.new()
    runs.kill(runs.begun(output))
    last = output / "checkpoints" / "last.pt"
    checkpoint = dict(read_checkpoint(last))
    next(iter(checkpoint["model"].values())).fill_(float("nan"))
    torch.save(checkpoint, last)
    return f"not a number in last.pt: {runs.resumed(output)} from the one before"


def other_settings(runs: Runs) -> str:
    output = runs.new()
    runs.kill(runs.begun(output))
    said = runs.end(runs.start(output, "--resume", "--set", "train.weight_decay=0.3"), [1])
    if "train.weight_decay was " not in said:
        raise Broken(said)
    changed = output.with_name("changed")
    shutil.copytree(output, changed)
    runs.end(runs.start(changed, "--resume", "--change", "train.weight_decay=0.3"), [0])
    if [row["key"] for row in rows_of(changed) if row["event"] == "change"] != ["train.weight_decay"]:
        raise Broken("the change is not written down")
    if compare(runs.whole, changed) is None:
        raise Broken("the change has no effect")
    return f"refused by name, taken and written down with --change; without it {runs.resumed(output)}"


def two_runs(runs: Runs) -> str:
    output = runs.new()
    process = runs.begun(output)
    for options in ((), ("--resume",)):
        said = runs.end(runs.start(output, *options), [1])
        if "another run writes into" not in said and "holds a run already" not in said:
            raise Broken(said)
    runs.end(process, [0])
    if difference := compare(runs.whole, output):
        raise Broken(difference)
    return "the second is refused, the first ends bitwise"


def removed_folder(runs: Runs) -> str:
    output = runs.new()
    process = runs.begun(output)
    shutil.rmtree(output)
    runs.end(process, [0])
    one, other = (read_checkpoint(each / "checkpoints" / "last.pt") for each in (runs.whole, output))
    if difference := first_difference(one["model"], other["model"]):
        raise Broken(f"{difference} differs")
    return "made again, the weights at the end bitwise the same"


def lost_videos(runs: Runs) -> str:
    output, disk = runs.new(), Path(runs.arguments.list).parent
    process = runs.begun(output)
    away = disk.with_name("away")
    disk.rename(away)
    try:
        said = runs.end(process, [1])
    finally:
        away.rename(disk)
    return f"{said[-60:]!r}, {runs.resumed(output)}"


FAULTS: dict[str, Callable[[Runs], str]] = {
    "SIGKILL at random moments": lambda runs: at_random_moments(runs, [signal.SIGKILL]),
    "SIGTERM and Ctrl-C at random moments": lambda runs: at_random_moments(runs, [signal.SIGTERM, signal.SIGINT]),
    "SIGTERM in a validation": lambda runs: in_validation(runs, signal.SIGTERM),
    "SIGKILL in a validation": lambda runs: in_validation(runs, signal.SIGKILL),
    "full disk": full_disk,
    "flipped bits": flipped_bits,
    "a whole file of a useless checkpoint": useless_checkpoint,
    "other settings": other_settings,
    "two runs in one folder": two_runs,
    "folder removed": removed_folder,
    "lost disk of videos": lost_videos,
}


def main() -> int:
    """Play the faults and print what was found; 0 if every promise holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", nargs="?")
    parser.add_argument("list", nargs="?")
    parser.add_argument("validation", nargs="?")
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="WORD", help="faults with this in their names")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if arguments.validation is None:
            arguments.preset = folder / "toy.yaml"
            arguments.preset.write_text(TOY_PRESET)
            arguments.list = render_colours(folder / "training", 32, 0)
            arguments.validation = render_colours(folder / "validation", 60, 1)
        runs = Runs(arguments, folder)
        started = time.monotonic()
        runs.end(runs.start(runs.whole), [0])
        runs.seconds = time.monotonic() - started
        print(f"undisturbed: {len(losses(runs.whole))} steps in {runs.seconds:.1f} s", flush=True)
        is_whole = True
        for name, play in FAULTS.items():
            if arguments.only not in name:
                continue
            try:
                result = f"holds | {play(runs)}"
            except Exception as error:  # of any kind: the other faults are played too
                result, is_whole = f"BROKEN | {type(error).__name__}: {error}", False
            print(f"| {name} | {result} |", flush=True)
        return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
