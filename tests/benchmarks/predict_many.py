"""Time `predict` over many short videos, and its parts alone: decoding, forward passes, and common code beside them.

    PYTHONPATH=. python tests/benchmarks/predict_many.py --clips 300 --large-clips 24 --rounds 3 --json many.json

The script renders the clips, 5 s of 340x256 each: --distinct different ones under as many names as are asked for. Per
model (the built-in one, and k400-tiny with random weights) it times
  decode      file to views, one thread
  forward     views to scores on all threads, as predict computes them
  command     `dualformer predict` as a whole, by one process and by two
and, on the large model's clips,
  published   what a first program does: decord reads whole clips, the published architecture runs eagerly
  swin3d_t    torchvision's model, random weights and 12 views, over the same frames; left out where it is not installed

Each part is a process of its own; rounds alternate. Times are medians, in wall time and in processor time, which on a
machine with other work is the one to believe; --beside 2 makes such work, by two processes that only compute. A command
is bound by the slower of decode and forward if its wall time stays near the larger of the two, and by the cores if it
stays near their sum over the number of cores.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import torch
import torch.nn.functional as F
from timing import Table, machine
from torch import Tensor

from dualformer_cli.config.load import ResolvedConfig, load_config
from dualformer_cli.data.clips.crops import crop_offsets
from dualformer_cli.data.clips.sampling import test_clips
from dualformer_cli.data.clips.transforms import normalize, resized_size
from dualformer_cli.data.clips.views import read_views

HERE = Path(__file__).resolve().parent
MODELS = {"camera-motion": "published", "k400-tiny": "random"}
"""Presets, and which weights they get; the built-in model's are published with the package."""

COMMON_CLIPS = 4
"""Clips over which common code runs: swin3d_t takes a minute or two for each."""

Seconds = tuple[float, float]
"""Wall time and processor time."""


def render(path: Path, seed: int) -> None:
    """Write 5 s of a textured picture under a moving camera, with noise."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 24, 32)))
    scene = F.interpolate(coarse, size=(512, 680), mode="bicubic")[0].permute(1, 2, 0).numpy()
    scene += rng.normal(0, 12, scene.shape)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
        for number in range(150):
            y, x = int(128 + 120 * np.sin(number / 40)), int(170 + 160 * np.cos(number / 55))
            noisy = scene[y : y + 256, x : x + 340] + rng.normal(0, 3, (256, 340, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noisy.clip(0, 255).astype(np.uint8), "rgb24")))
        container.mux(stream.encode(None))


def render_all(folder: Path, count: int, distinct: int) -> None:
    """Fill a folder with `count` clips, of which `distinct` differ."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path, source = folder / f"clip{number:05}.mp4", folder / f"clip{number % distinct:05}.mp4"
        if number < distinct:
            render(path, number)
        else:
            os.link(source, path)


def clips_of(folder: Path) -> list[str]:
    """Return the clips of a folder, in order."""
    return [str(path) for path in sorted(folder.glob("*.mp4"))]


def resolved(preset: str) -> ResolvedConfig:
    """Return the configuration of one of MODELS."""
    return load_config(preset, flags={"weights": MODELS[preset], "runtime.device": "cpu"}, environ={})


def timed(work: Callable[[], object]) -> Seconds:
    """Return the wall and processor time of some work in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def time_decode(preset: str, files: Sequence[str]) -> Seconds:
    """Time reading the views of all files on one thread."""
    torch.set_num_threads(1)
    data = resolved(preset).config.data
    read_views(files[0], data, data.test)  # loads libraries
    return timed(lambda: [read_views(file, data, data.test) for file in files])


def time_forward(preset: str, files: Sequence[str]) -> Seconds:
    """Time scoring the views of all files; those of few files are in memory, and scored in turn."""
    from dualformer_cli.engine.engine import Engine

    engine = Engine(resolved(preset), bf16_on_cpu=True)
    data = engine.config.data
    views = [read_views(file, data, data.test).clips for file in files[:20]]
    engine.scorer.score(views[0])
    return timed(lambda: [engine.scorer.score(views[number % len(views)]) for number in range(len(files))])


def decord_clips(file: str, num_clips: int, num_crops: int) -> Tensor:
    """Return normalised views (v, 3, 32, 224, 224), read and resized as first programs do: whole clips, in float32."""
    import decord

    data = load_config("k400-tiny", environ={}).config.data
    video = decord.VideoReader(file, num_threads=1)
    indices = test_clips(len(video), num_frames=32, frame_interval=data.clip.frame_interval, num_clips=num_clips)
    views = []
    for clip in indices:
        frames = torch.from_numpy(video.get_batch(clip.tolist()).asnumpy()).permute(0, 3, 1, 2).float()
        size = resized_size(frames.shape[2], frames.shape[3], data.test.short_side)
        frames = F.interpolate(frames, size=size, mode="bilinear", align_corners=False).round().byte()
        for x, y in crop_offsets(*size, 224, num_crops):
            views.append(frames[..., y : y + 224, x : x + 224].permute(0, 2, 3, 1))
    return normalize(torch.stack(views), data.mean, data.std, torch.float32)


def time_published(preset: str, files: Sequence[str]) -> Seconds:
    """Time decord and the published architecture, run eagerly over the 4 views of each file, one after the other."""
    from published_baseline import pattern_baseline

    return _time_eager(pattern_baseline("tiny"), files[:COMMON_CLIPS], num_clips=4, num_crops=1)


def time_swin3d_t(preset: str, files: Sequence[str]) -> Seconds:
    """Time decord and torchvision's swin3d_t over its 4 clips of 3 crops of each file."""
    from torchvision.models.video import swin3d_t

    return _time_eager(swin3d_t().eval(), files[:COMMON_CLIPS], num_clips=4, num_crops=3)


def _time_eager(model: torch.nn.Module, files: Sequence[str], *, num_clips: int, num_crops: int) -> Seconds:
    def run() -> None:
        with torch.inference_mode():
            for file in files:
                views = decord_clips(file, num_clips, num_crops)
                torch.cat([model(view[None]).softmax(-1) for view in views]).mean(0)

    return timed(run)


COMMON = ("published", "swin3d_t")
"""Parts that are common code, which takes long."""

PARTS: dict[str, Callable[[str, Sequence[str]], Seconds]] = {
    "decode": time_decode,
    "forward": time_forward,
    "published": time_published,
    "swin3d_t": time_swin3d_t,
}
"""What runs in a process of its own that this script starts: the part of a model over some files."""


def run_part(part: str, preset: str, folder: Path) -> Seconds:
    """Run a part in a process and return what it measured."""
    command = [sys.executable, __file__, "--part", part, "--preset", preset, "--folder", str(folder)]
    wall, cpu = json.loads(_output(command))
    return wall, cpu


def run_command(preset: str, folder: Path, processes: int) -> Seconds:
    """Run predict over a folder; the times are those of the whole command and of all its processes."""
    command = [sys.executable, "-m", "dualformer_cli", "predict", str(folder), "--preset", preset, "--json"]
    command += ["--weights", MODELS[preset]]
    command += ["--device", "cpu"] if processes == 1 else ["--cpu-processes", str(processes)]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    document = json.loads(_output(command))
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if any(result["status"] != "ok" for result in document["results"]):
        raise RuntimeError(f"{preset}: some clips could not be used")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or str(done.returncode)).splitlines()[-1])
    return done.stdout


@contextmanager
def computing(count: int) -> Iterator[None]:
    """Have processes beside compute without a pause."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def contenders(preset: str, folder: Path) -> dict[str, Callable[[], Seconds]]:
    """Return what is run on a model's clips, by name."""
    runs: dict[str, Callable[[], Seconds]] = {
        "decode": lambda: run_part("decode", preset, folder),
        "forward": lambda: run_part("forward", preset, folder),
        "command, 1 process": lambda: run_command(preset, folder, 1),
        "command, 2 processes": lambda: run_command(preset, folder, 2),
    }
    if preset == "k400-tiny":
        for part in COMMON:
            if part != "swin3d_t" or importlib.util.find_spec("torchvision") is not None:
                runs[part] = partial(run_part, part, preset, folder)
    return runs


def measure(preset: str, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Run everything `rounds` times, forwards and backwards in turn, and return a row for each."""
    runs, count = contenders(preset, folder), len(clips_of(folder))
    few = min(count, COMMON_CLIPS)
    found: dict[str, list[Seconds]] = {name: [] for name in runs}
    for index in range(rounds):
        for name in list(runs) if index % 2 == 0 else reversed(list(runs)):
            found[name].append(runs[name]())
            print(f"{preset}, {name}: wall {found[name][-1][0]:.1f} s", file=sys.stderr, flush=True)
    rows = []
    for name, seconds in found.items():
        wall, cpu = (median(values) for values in zip(*seconds, strict=True))
        clips = few if name in COMMON else count
        rows.append({"preset": preset, "part": name, "clips": clips, "wall_s": wall, "cpu_s": cpu})
    return rows


COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "": lambda row: row["part"],
    "clips": lambda row: str(row["clips"]),
    "wall, s": lambda row: f"{row['wall_s']:.1f}",
    "processor, s": lambda row: f"{row['cpu_s']:.1f}",
    "videos/s": lambda row: f"{row['clips'] / row['wall_s']:.2f}",
    "videos/s per core": lambda row: f"{row['clips'] / row['cpu_s']:.2f}",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=300, help="for the built-in model")
    parser.add_argument("--large-clips", type=int, default=24, help="for k400-tiny and common code; 0 leaves them out")
    parser.add_argument("--distinct", type=int, default=20, help="clips that differ")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beside", type=int, default=0, help="processes that compute at the same time")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    for name in ("--part", "--preset", "--folder"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part](arguments.preset, clips_of(Path(arguments.folder)))))
        return
    cores = len(os.sched_getaffinity(0))
    facts = {"command": " ".join(["python", *sys.argv]), "torch": torch.__version__, "cores": cores}
    if importlib.util.find_spec("torchvision") is not None:
        facts = {**machine(torch.device("cpu")), "cores": cores}
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for preset, count in zip(MODELS, (arguments.clips, arguments.large_clips), strict=True):
            if count:
                folder = Path(name) / preset
                render_all(folder, count, min(count, arguments.distinct))
                load = os.getloadavg()[0]
                table = Table(f"{preset}, {count} clips, load {load:.1f} before", COLUMNS)
                with computing(arguments.beside):
                    found = measure(preset, folder, arguments.rounds)
                for row in found:
                    table.add(row)
                    rows.append(row)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": facts, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
