"""Kill predict --output and eval --dump with SIGKILL at random moments, start them again, compare with unbroken runs.

Usage: python tests/benchmarks/kill_predict.py [--kills 50] [--videos 40] [--seed 0]

Each way of running is killed until its share of the kills is used up and then ends; what it leaves must be byte for
byte what an unbroken run in one process leaves.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

PREDICT = ["predict", "clips", "--preset", "camera-motion", "--output", "run"]
SEGMENTS = ["--every", "0.5", "--features", "run/features.npz"]
EVAL = ["eval", "--preset", "camera-motion", "--data", "list.csv", "--dump", "scores.jsonl"]
WAYS = {
    "predict": (PREDICT, []),
    "predict, 2 processes": (PREDICT, ["--cpu-processes", "2"]),
    "predict --every --features": ([*PREDICT, *SEGMENTS], []),
    "predict --every --features, 2 processes": ([*PREDICT, *SEGMENTS], ["--cpu-processes", "2"]),
    "eval": (EVAL, ["--resume"]),
    "eval, 2 processes": (EVAL, ["--resume", "--cpu-processes", "2"]),
}
"""Name -> (command of an unbroken run, what is added for runs that are killed)."""


def draw_videos(folder: Path, number: int, rng: np.random.Generator) -> None:
    """Draw clips of noise that moves, of one to three seconds, one file that is none, and a list of all."""
    (folder / "clips").mkdir()
    names = []
    for index in range(number):
        picture = rng.integers(0, 255, (180, 320, 3), dtype=np.uint8)
        name = f"clips/{index:03d}.mp4"
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
            for step in range(int(rng.integers(25, 75))):
                shown = np.ascontiguousarray(np.roll(picture, step * (index % 5), axis=1)[:96, :160])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
            container.mux(stream.encode(None))
        names.append(name)
    (folder / "clips" / "broken.mp4").write_bytes(b"no video")
    names.append("clips/broken.mp4")
    (folder / "list.csv").write_text("".join(f"{name},{index % 3}\n" for index, name in enumerate(names)))


def start(arguments: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start the command in a session of its own, so that all of its processes can be killed at once."""
    with (folder / "stderr.txt").open("ab") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "dualformer_cli", *arguments],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill the command, its ranks (whose sessions are their own) and their workers."""
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    for pid in [process.pid, *map(int, children.stdout.split())]:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def finish(arguments: Sequence[str], folder: Path) -> float:
    """Run the command to its end, which is 3 as one file is no video; return the seconds."""
    started = time.monotonic()
    code = start(arguments, folder).wait()
    if code != 3:
        sys.exit(f"exit code {code}: {' '.join(arguments)}\n{(folder / 'stderr.txt').read_text()[-2000:]}")
    return time.monotonic() - started


def results(folder: Path) -> dict[str, bytes]:
    """Return the files that a run leaves, without its parts."""
    names = ("run/predictions.jsonl", "run/predictions.csv", "run/features.npz", "scores.jsonl")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


def clear(folder: Path) -> None:
    for name in ("run", "scores.jsonl.parts"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "scores.jsonl").unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_videos(folder, arguments.videos, np.random.default_rng(arguments.seed))
        for number, (way, (command, added)) in enumerate(WAYS.items()):
            clear(folder)
            seconds = finish(command, folder)
            expected = results(folder)
            clear(folder)
            kills = len(range(number, arguments.kills, len(WAYS)))
            finished = 0
            for _ in range(kills):
                process = start([*command, *added], folder)
                time.sleep(rng.uniform(0.2, 1.2) * seconds)
                if process.poll() is not None:
                    finished += 1
                    clear(folder)
                kill_all(process)
            if not results(folder):
                finish([*command, *added], folder)
            same = results(folder) == expected
            print(f"{way}: {kills} kills, {finished} too late: {'byte for byte' if same else 'DIFFERENT'}", flush=True)
            if not same:
                sys.exit(1)


if __name__ == "__main__":
    main()
