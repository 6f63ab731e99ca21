"""Time training clips, from file to normalised float32 batch, against decord and OpenCV: paired, one core.

    python tests/benchmarks/loader.py clip.mp4 other.mp4 --rounds 15 --json loader.json

Without files, only a clip that the script renders is timed: 340x256, 10 s, 30 frames per second, H.264. All contenders
read the same frames and crops on one thread. Each round makes one batch of each file with every contender, in
alternating order, so that a machine's slow minutes hit all of them; a speed-up is the median over rounds of the paired
ratio. CPU time is what a worker costs; wall time is here too, but on shared cores it counts the neighbours as well.

The first contender, to which speed-ups refer, normalises frame by frame as pipelines with OpenCV do. The second one
does that with dualformer's own `normalize`, which leaves the difference that reading makes. Ours is timed as the first
epoch finds a file, and as later ones do, which know its index.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch and OpenCV are loaded

import argparse
import gc
import importlib.metadata
import json
import platform
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch

from dualformer_cli.config.schema import DataConfig, TrainConfig
from dualformer_cli.data.clips.crops import random_resized_crop
from dualformer_cli.data.clips.index_cache import IndexCache
from dualformer_cli.data.clips.sampling import random_clip
from dualformer_cli.data.clips.training_clips import read_training_clips
from dualformer_cli.data.clips.transforms import normalize, resized_size

try:
    import cv2
except ImportError:
    sys.exit("this benchmark compares with OpenCV, which is not installed; pip install opencv-python-headless")
try:
    import decord
except ImportError:
    sys.exit("this benchmark compares with decord, which is not installed; pip install decord")

Clips = npt.NDArray[Any]
Seeds = list[tuple[int, int]]

DATA = DataConfig(antialias=False)
RECIPE = TrainConfig()
"""The published recipe."""
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
INDEXES = IndexCache()
SPENT: dict[str, torch.Tensor] = {}
"""The last batch of each contender that normalises as we do."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    file: str
    contender: str
    cpu_ms_per_clip: float
    clips_per_cpu_second: float
    wall_ms_per_clip: float
    cpu_speedup: float
    """Median over rounds of the first contender's CPU time over this one's."""
    cpu_speedup_p20: float
    cpu_speedup_p80: float
    wall_speedup: float
    difference: float
    """Mean difference of its pixels from the first contender's, in grey levels; large where decord gives wrong frames,
    as of H.264 4:4:4."""


def ours(path: str, seeds: Seeds) -> Clips:
    """Make a batch as the first epoch does."""
    return normalized_whole(
        np.concatenate([read_training_clips(path, DATA, RECIPE, [seed]).clips for seed in seeds]), "ours"
    )


def ours_again(path: str, seeds: Seeds) -> Clips:
    """Make a batch as later epochs do; the warm-up round is the first one."""
    clips = []
    for seed in seeds:
        result = read_training_clips(path, DATA, RECIPE, [seed], index=INDEXES.get(path))
        if result.index is not None:
            INDEXES.put(path, result.index)
        clips.append(result.clips)
    return normalized_whole(np.concatenate(clips), "ours_again")


def normalized_whole(clips: Clips, contender: str) -> Clips:
    """Normalise a batch as the engine does: over the memory of the batch before."""
    values = normalize(torch.from_numpy(clips), MEAN.tolist(), STD.tolist(), torch.float32, spent=SPENT.get(contender))
    SPENT[contender] = values
    return values.permute(0, 2, 3, 4, 1).numpy()


def common(path: str, seeds: Seeds) -> Clips:
    """Make a batch with decord and OpenCV: all frames, resize, crop, resize, flip, normalise, stack."""
    clips = [[normalized(frame) for frame in common_clip(path, seed)] for seed in seeds]
    return np.stack([np.stack(clip) for clip in clips])


def common_ours(path: str, seeds: Seeds) -> Clips:
    """Make the same batch, but normalise it as we do."""
    return normalized_whole(np.stack([common_clip(path, seed) for seed in seeds]), "common_ours")


def normalized(frame: Clips) -> Clips:
    """Subtract and divide in place with OpenCV, which takes two thirds of numpy's time."""
    values = frame.astype(np.float32)
    cv2.subtract(values, MEAN.astype(np.float64).reshape(1, 3), values)
    cv2.multiply(values, 1 / STD.astype(np.float64).reshape(1, 3), values)
    return values


def common_clip(path: str, seed: tuple[int, int]) -> Clips:
    """Read one clip, drawn as ours is."""
    rng = np.random.default_rng(seed)
    video = decord.VideoReader(path, num_threads=1)
    indices = random_clip(len(video), num_frames=DATA.clip.num_frames, frame_interval=DATA.clip.frame_interval, rng=rng)
    frames = video.get_batch(indices.tolist()).asnumpy()
    height, width = resized_size(frames.shape[1], frames.shape[2], DATA.train.short_side)
    box = random_resized_crop(height, width, area=DATA.train.area, aspect=DATA.train.aspect, rng=rng)
    is_flipped = rng.random() < DATA.train.flip
    clip = []
    for frame in frames:
        resized = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
        cropped = resized[box.y : box.y + box.height, box.x : box.x + box.width]
        image = cv2.resize(cropped, (DATA.crop_size, DATA.crop_size), interpolation=cv2.INTER_LINEAR)
        clip.append(cv2.flip(image, 1) if is_flipped else image)
    return np.stack(clip)


CONTENDERS: dict[str, Callable[[str, Seeds], Clips]] = {
    "decord + OpenCV": common,
    "same, our normalise": common_ours,
    "dualformer, new file": ours,
    "dualformer, known file": ours_again,
}
"""The first is what speed-ups refer to."""


def render(path: Path) -> None:
    """Write 10 s of a textured picture under a moving camera with noise, by x264's own settings."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 24, 32)))
    scene = torch.nn.functional.interpolate(coarse, size=(512, 680), mode="bicubic")[0].permute(1, 2, 0).numpy()
    scene += rng.normal(0, 12, scene.shape)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
        for number in range(300):
            y, x = int(128 + 120 * np.sin(number / 40)), int(170 + 160 * np.cos(number / 55))
            noisy = scene[y : y + 256, x : x + 340] + rng.normal(0, 3, (256, 340, 1))
            frame = av.VideoFrame.from_ndarray(noisy.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def measure(path: str, rounds: int, batch_size: int) -> Iterator[Row]:
    """Time all contenders on one file, after one round that only warms up."""
    cpu: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    wall: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    differences = dict.fromkeys(CONTENDERS, 0.0)
    names = list(CONTENDERS)
    for round_index in range(rounds + 1):
        seeds = [(round_index, clip) for clip in range(batch_size)]
        batches = {}
        for name in names if round_index % 2 == 0 else reversed(names):
            cpu_start, wall_start = time.process_time(), time.perf_counter()
            batches[name] = CONTENDERS[name](path, seeds)
            wall[name].append(time.perf_counter() - wall_start)
            cpu[name].append(time.process_time() - cpu_start)
        for name, batch in batches.items():
            differences[name] += float(np.abs((batch - batches[names[0]]) * STD).mean()) / (rounds + 1)
    for name in names:
        yield row(path, name, cpu, wall, batch_size, differences[name])


def row(
    path: str, name: str, cpu: dict[str, list[float]], wall: dict[str, list[float]], batch_size: int, difference: float
) -> Row:
    """Summarise one contender."""
    first = next(iter(CONTENDERS))
    low, middle, high = np.quantile(np.divide(cpu[first], cpu[name])[1:], [0.2, 0.5, 0.8])
    cpu_seconds, wall_seconds = (float(np.median(times[name][1:])) / batch_size for times in (cpu, wall))
    return Row(
        file=os.path.basename(path),
        contender=name,
        cpu_ms_per_clip=1000 * cpu_seconds,
        clips_per_cpu_second=1 / cpu_seconds,
        wall_ms_per_clip=1000 * wall_seconds,
        cpu_speedup=float(middle),
        cpu_speedup_p20=float(low),
        cpu_speedup_p80=float(high),
        wall_speedup=float(np.median(np.divide(wall[first], wall[name])[1:])),
        difference=difference,
    )


def machine() -> dict[str, Any]:
    """Describe what the numbers depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    match = re.search(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    packages = ("av", "decord", "numpy", "opencv-python-headless", "torch")
    return {
        "command": shlex.join(["python", *sys.argv]),
        "cpu": match[1] if match else platform.processor(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def print_row(row: Row) -> None:
    """Print one line under the head of the table."""
    print(
        f"{row.file:28} {row.contender:22}{row.cpu_ms_per_clip:8.1f}{row.clips_per_cpu_second:9.1f}"
        f"{row.wall_ms_per_clip:9.1f}"
        + f"{row.cpu_speedup:9.2f} ({row.cpu_speedup_p20:.2f}-{row.cpu_speedup_p80:.2f})".ljust(23)
        + f"{row.wall_speedup:6.2f}{row.difference:11.2f}",
        flush=True,
    )


def main() -> None:
    """Measure every file and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="videos to time besides the rendered one")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch-size", type=int, default=4, help="clips per batch, all of one file")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--render", type=Path, metavar="FILE", help="only write the rendered clip")
    arguments = parser.parse_args()
    if arguments.render:
        render(arguments.render)
        return
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    gc.freeze()  # as our workers do; it serves all contenders
    decord.logging.set_level(decord.logging.QUIET)
    facts = machine()
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    print(f"{'file':28} {'contender':22}{'CPU ms':>8}{'clips/s':>9}{'wall ms':>9}", end="")
    print("  CPU speed-up (p20-p80)".ljust(23) + f"{'wall':>6}{'difference':>11}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        rendered = Path(folder) / "rendered_340x256.mp4"
        render(rendered)
        for file in [str(rendered), *arguments.files]:
            for row in measure(file, arguments.rounds, arguments.batch_size):
                rows.append(row)
                print_row(row)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": facts, "rows": [asdict(row) for row in rows]}, indent=2))


if __name__ == "__main__":
    main()
