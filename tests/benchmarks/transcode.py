"""What `prepare --transcode` wins: time to read a training clip from a video and from its transcoded copy, and PSNR.

    python tests/benchmarks/transcode.py clip.mp4 other.avi --rounds 15 --json transcode.json

Each round reads the same random clip (32 frames, every other one, file opened anew, resized to a short side of 256)
from the source and from the copy, in alternating order, on one thread; the speed-up is the median over rounds of the
paired ratio. CPU time is what a worker costs; wall time counts the neighbours on shared cores as well. PSNR compares
frames of the copy with those of the source resized to its size, antialiased, over frames spread over the whole video.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded

import argparse
import json
import platform
import shlex
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
import torch

from dualformer_cli.data.clips.sampling import random_clip
from dualformer_cli.data.clips.transforms import resize_frame, resized_size
from dualformer_cli.data.prepare.convert import Conversion, transcode
from dualformer_cli.video.open import open_video
from dualformer_cli.video.reader import Frame
from dualformer_cli.video.writer import H264_OPTIONS

NUM_FRAMES, FRAME_INTERVAL, SHORT_SIDE = 32, 2, 256
COMPARED_FRAMES = 40


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    file: str
    size: str
    num_frames: int
    source_cpu_ms: float
    copy_cpu_ms: float
    cpu_speedup: float
    cpu_speedup_p20: float
    cpu_speedup_p80: float
    wall_speedup: float
    bytes_ratio: float
    """Of the copy over the source."""
    psnr: float
    """Over all compared frames, in dB."""
    psnr_worst: float
    """Of the worst frame."""
    brighter: float
    """Mean difference in grey levels."""
    transcode_seconds: float
    """CPU time."""


def read_clip(path: str, indices: list[int]) -> tuple[float, float]:
    """Read one clip as training does and return CPU and wall milliseconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    with open_video(path) as reader:
        size = resized_size(reader.info.height, reader.info.width, SHORT_SIDE)
        reader.read(indices, lambda frame: resize_frame(frame, size, antialias=False))
    return (time.process_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3


def measure(path: str, target: str, rounds: int, *, crf: int) -> Row:
    """Transcode one file and compare."""
    with open_video(path) as reader:
        info = reader.info
    started = time.process_time()
    job = Conversion(
        source=path,
        target=target,
        short_side=SHORT_SIDE,
        quality=crf,
        num_frames=info.num_frames,
        width=info.width,
        height=info.height,
    )
    result = transcode(job)
    seconds = time.process_time() - started
    psnr, worst, brighter = quality(path, target, (result.height, result.width))
    rng = np.random.default_rng(0)
    times: dict[str, list[tuple[float, float]]] = {path: [], target: []}
    for number in range(rounds + 1):
        indices = random_clip(info.num_frames, num_frames=NUM_FRAMES, frame_interval=FRAME_INTERVAL, rng=rng).tolist()
        for file in (path, target) if number % 2 else (target, path):
            times[file].append(read_clip(file, indices))
    source, copy = times[path][1:], times[target][1:]  # the first round warms up
    ratios = [one[0] / other[0] for one, other in zip(source, copy, strict=True)]
    return Row(
        file=os.path.basename(path),
        size=f"{info.width}x{info.height}",
        num_frames=info.num_frames,
        source_cpu_ms=statistics.median(cpu for cpu, _ in source),
        copy_cpu_ms=statistics.median(cpu for cpu, _ in copy),
        cpu_speedup=statistics.median(ratios),
        cpu_speedup_p20=float(np.percentile(ratios, 20)),
        cpu_speedup_p80=float(np.percentile(ratios, 80)),
        wall_speedup=statistics.median(one[1] / other[1] for one, other in zip(source, copy, strict=True)),
        bytes_ratio=result.num_bytes / os.path.getsize(path),
        psnr=psnr,
        psnr_worst=worst,
        brighter=brighter,
        transcode_seconds=seconds,
    )


def quality(path: str, target: str, size: tuple[int, int]) -> tuple[float, float, float]:
    """Return the PSNR over all compared frames, that of the worst, and how much brighter the copy is."""

    def resized(frame: Frame) -> Frame:
        return resize_frame(frame, size, antialias=True)

    with open_video(path) as source, open_video(target) as copy:
        indices = np.linspace(0, source.info.num_frames - 1, COMPARED_FRAMES).astype(int).tolist()
        truth = source.read(indices, resized).astype(np.float64)
        ours = copy.read(indices).astype(np.float64)
    errors = ((ours - truth) ** 2).mean(axis=(1, 2, 3))
    psnr, worst = (10 * np.log10(255**2 / max(error, 1e-9)) for error in (errors.mean(), errors.max()))
    return float(psnr), float(worst), float((ours - truth).mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--crf", type=int, default=23)
    parser.add_argument(
        "--h264", action="append", default=[], metavar="KEY=VALUE", help="encoder option to try, as g=8"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    H264_OPTIONS.update(option.split("=", 1) for option in options.h264)
    machine = f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, PyAV {av.__version__}"
    print(f"{machine}; {shlex.join(sys.argv)}")
    print(
        f"{'file':24} {'size':>9} {'source':>9} {'copy':>8}  speed-up (p20-p80, wall)   bytes   PSNR (worst)  brighter"
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for file in options.files:
            row = measure(file, os.path.join(folder, "copy.mp4"), options.rounds, crf=options.crf)
            rows.append(row)
            print(
                f"{row.file[:24]:24} {row.size:>9} {row.source_cpu_ms:6.1f} ms {row.copy_cpu_ms:5.1f} ms  "
                f"{row.cpu_speedup:5.2f} ({row.cpu_speedup_p20:.2f}-{row.cpu_speedup_p80:.2f}, {row.wall_speedup:.2f})"
                f"      {row.bytes_ratio:6.3f}  {row.psnr:5.1f} ({row.psnr_worst:.1f})  {row.brighter:+.2f}",
                flush=True,
            )
    mean = statistics.geometric_mean(row.cpu_speedup for row in rows)
    total = sum(row.source_cpu_ms for row in rows) / sum(row.copy_cpu_ms for row in rows)
    print(f"geometric mean of the speed-ups {mean:.2f}; one clip of each file together {total:.2f}")
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
