"""The first hour on a card: our checks and benchmarks in the order in which their answers are needed.

    PYTHONPATH=. python tests/benchmarks/first_hour.py --output hour                        # four parts of 10 minutes
    PYTHONPATH=. python tests/benchmarks/first_hour.py --output dry --dry-run --device cpu  # all steps, little work

Parts: check (versions, kernels against float64, the engine's tests), speed (kernels, models, training steps, compiled
ones and CUDA graphs), predict (a clip in each precision, many clips with and without CUDA graphs) and train (some 100
steps, a resumed run, one process of torchrun, fp16).

Every step has a limit of its own, and one that fails stops nothing. The folder gets a log per step and, after each,
summary.json; the exit code is 1 if a step failed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PARTS = ("check", "speed", "predict", "train")

SMALL_MODEL = """\
extends: camera-motion
model: {embed_dims: [48, 64], depths: [2, 2], num_heads: [3, 4], patch_sizes: [[4, 12, 12], [1, 2, 2]],
  window_size: [4, 2, 2], fine_grid: [4, 2, 2], coarse_grid: [4, 2, 2]}
data:
  crop_size: 48
  render: {easy_epochs: 0, without_motion: 0.0, pictures: [], busy: 0.0}
  train: {short_side: 48}
  test: {short_side: 48}
  validation: {short_side: 48}
train: {epochs: 1, batch_size: 16, global_batch_size: 16, log_every_steps: 20}
"""


@dataclass(frozen=True)
class Step:
    """One command."""

    part: str
    name: str
    seconds: int
    """Its limit."""
    command: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """How a step ended."""

    part: str
    name: str
    outcome: str
    seconds: float
    command: str
    last_lines: list[str]


def steps(folder: Path, device: str, *, dry: bool) -> Iterator[Step]:
    """Commands of all parts; those of a dry run start the same things on next to no work."""

    def step(part: str, name: str, seconds: int, *command: str | Path) -> Step:
        return Step(part, name, seconds, tuple(map(str, command)))

    python, tool = sys.executable, (sys.executable, "-m", "dualformer_cli")
    tests = (python, "-m", "pytest", "-o", "addopts=--import-mode=importlib -q", "-p", "no:cacheprovider")
    yield step("check", "versions", 60, *tool, "--version")
    kernel_tests = ["tests/kernels/test_backend.py", "-k", "cpu"] if dry else ["tests/kernels"]
    yield step("check", "kernel-tests", 300, *tests, *kernel_tests)
    engine_tests = ["tests/engine/parallel/test_upload.py"] if dry else ["tests/engine", "tests/model"]
    yield step("check", "engine-tests", 240, *tests, *engine_tests)

    def speed(part: str, seconds: int, *options: str) -> Step:
        limit = 0.05 if dry else seconds / 75  # minutes: four fifths of the step's own limit
        small = ("--size", "tiny", "--batch-size", "1", "--precision", "fp32") if dry else ()
        rest = ("--device", device, "--minutes", f"{limit:.2f}", "--json", str(folder / f"{part}.json"))
        name = part if not options else f"{part}-{options[-1]}"
        return step("speed", name, seconds, python, HERE / "speed.py", "--parts", part, *options, *small, *rest)

    for part, seconds in (("kernels", 180), ("forward", 150), ("training", 150), ("compiled", 120)):
        yield speed(part, seconds)

    clip, many = folder / "clip.mp4", folder / "clips.txt"
    model = ("--preset", "camera-motion") if dry else ("--preset", "k400-tiny", "--weights", "random")
    predict = (*tool, "predict", *model, "--device", device)
    yield step("predict", "render", 60, python, HERE / "loader.py", "--render", clip)
    for precision in ("fp32",) if dry else ("bf16", "fp32", "fp16"):
        yield step("predict", f"predict-{precision}", 60, *predict, clip, "--precision", precision, "--json")
    for name, graphs in (("plain", "false"), ("graphs", "true")):
        table = ("--csv", folder / f"{name}.csv", "--overwrite")
        yield step(
            "predict", f"many-{name}", 120, *predict, f"@{many}", *table, "-v", "--set", f"runtime.cuda_graphs={graphs}"
        )
    yield step("predict", "same-scores", 10, "cmp", folder / "plain.csv", folder / "graphs.csv")

    preset, clips = folder / "small.yaml", 32 if dry else 1600
    train = ("train", "--preset", preset, "--data", "render:camera-motion", "--device", device)
    rendered = ("--set", f"data.render.num_clips={clips}")
    yield step("train", "steps", 180, *tool, *train, "--output", folder / "run", *rendered)
    resumed = ("--output", folder / "run", "--resume", "--change", "train.epochs=2")
    yield step("train", "resume", 120, *tool, *train, *resumed, *rendered)
    torchrun = (python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m", "dualformer_cli")
    yield step("train", "torchrun", 90, *torchrun, *train, "--output", folder / "run2", "--dry-run", *rendered)
    low = ("--precision", "bf16" if dry else "fp16", "--output", folder / "run3")
    yield step("train", low[1], 120, *tool, *train, *low, *rendered)


def run(step: Step, folder: Path) -> Done:
    """Run a command in the checkout, at most for its time, with its output in a file."""
    started, log = time.perf_counter(), folder / f"{step.name}.log"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DUALFORMER_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            step.command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(step.seconds)
            outcome = "passed" if code == 0 else f"failed with {code}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            outcome = f"not done after {step.seconds} s"
    lines = log.read_text(errors="replace").splitlines()[-3:]
    seconds = round(time.perf_counter() - started, 1)
    return Done(step.part, step.name, outcome, seconds, subprocess.list2cmdline(step.command), lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the steps of the asked parts and print how each ends; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for logs, which must not exist or be empty")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--only", nargs="+", metavar="STEP", help="steps by their names")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dry-run", action="store_true", help="every command line, on next to no work")
    arguments = parser.parse_args(argv)
    folder = arguments.output.resolve()
    if folder.is_dir() and any(folder.iterdir()):
        parser.error(f"{folder} is not empty")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small.yaml").write_text(SMALL_MODEL)
    (folder / "clips.txt").write_text(f"{folder / 'clip.mp4'}\n" * (2 if arguments.dry_run else 128))
    done: list[Done] = []
    for step in steps(folder, arguments.device, dry=arguments.dry_run):
        if step.part in arguments.parts and (arguments.only is None or step.name in arguments.only):
            done.append(run(step, folder))
            print(f"{step.part:8}{step.name:16}{done[-1].seconds:7.1f} s  {done[-1].outcome}", flush=True)
            (folder / "summary.json").write_text(json.dumps([asdict(each) for each in done], indent=2))
    return int(any(each.outcome != "passed" for each in done))


if __name__ == "__main__":
    sys.exit(main())
