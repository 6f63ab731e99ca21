"""Kill a training run with SIGKILL at random moments, resume it each time, and compare with an unbroken run.

Usage: python tests/benchmarks/kill_resume.py PRESET LIST [--kills 20] [--seed 0] [--set KEY=VALUE ...]

The run is repeated from its last checkpoint until it was killed so often and then ends; its final weights, optimizer
state and log must be bitwise those of a run that nobody killed. On CPU in fp32, where that can be promised.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from dualformer_cli.model.weights import read_checkpoint


def start(arguments: argparse.Namespace, output: Path, *, resume: bool) -> subprocess.Popen[bytes]:
    """Start the command, in a session of its own so that its workers can be killed with it."""
    command = [sys.executable, "-m", "dualformer_cli", "train", "--preset", arguments.preset, "--data", arguments.list]
    command += ["--output", str(output), "--device", "cpu", "--precision", "fp32"]
    for override in ["train.save_every_steps=1", "train.log_every_steps=1", *arguments.set]:
        command += ["--set", override]
    with (output.parent / "stderr.txt").open("ab") as errors:
        return subprocess.Popen(
            [*command, *(["--resume"] if resume else [])],
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


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


def losses(output: Path) -> list[tuple[int, float]]:
    """(step, loss) of every line of the log."""
    rows = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if row["event"] == "step"]


def last_line(output: Path) -> str:
    """How far the log tells that a killed run came; its last line may be cut off."""
    lines = (output / "log.jsonl").read_text().splitlines() if (output / "log.jsonl").exists() else []
    return f"{len(lines)} lines of log, the last one {lines[-1][:40]!r}..." if lines else "before the first step"


def main() -> int:
    """Run both and print what was found; 0 if nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("list")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        whole, broken = folder / "whole", folder / "broken"
        started = time.monotonic()
        process = start(arguments, whole, resume=False)
        while process.poll() is None and not (whole / "checkpoints" / "last.pt").exists():
            time.sleep(0.02)
        first_save = time.monotonic() - started
        if process.wait():
            print((folder / "stderr.txt").read_text()[-3000:])
            return 1
        seconds = time.monotonic() - started
        steps = len(losses(whole))
        print(f"unbroken: {steps} steps in {seconds:.1f} s, the first save after {first_save:.1f} s", flush=True)
        kills = 0
        while True:
            resume = (broken / "checkpoints").exists()
            process = start(arguments, broken, resume=resume)
            try:
                # From shortly before the first save on, so that a long run gets somewhere between two kills.
                limit = rng.uniform(0.9, 2.0) * first_save if kills < arguments.kills else None
                code = process.wait(timeout=limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                print(f"kill {kills}: {last_line(broken)}", flush=True)
                continue
            if code:
                print((folder / "stderr.txt").read_text()[-3000:])
                return 1
            if kills >= arguments.kills:
                break
            different = compare(whole, broken)
            if different:
                break
            print("ended before the next kill; beginning anew", flush=True)
            broken = folder / f"broken after {kills}"
        found = compare(whole, broken)
        print(f"after {kills} kills: {found or 'bitwise the same weights, optimizer, progress and log'}")
        return 1 if found else 0


def compare(whole: Path, broken: Path) -> str | None:
    """Name what differs between the ends of two runs."""
    one, other = (read_checkpoint(output / "checkpoints" / "last.pt") for output in (whole, broken))
    for key in ("model", "training_model", "optimizer", "progress", "average_updates"):
        if (found := first_difference(one[key], other[key], key)) is not None:
            return f"{found} differs"
    return None if losses(whole) == losses(broken) else "the losses in the log differ"


if __name__ == "__main__":
    sys.exit(main())
