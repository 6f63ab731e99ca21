"""Time a long list and what it takes of the memory, as every rank of a run opens it.

Usage: python tests/benchmarks/long_list.py [650000]

The rows are like those of Kinetics-600: a folder of the class, eleven signs and the times in the name. Each format is
opened in a process of its own, and there is no video: nothing but the list is read. Prints the seconds that opening
takes, on the clock and of the processor, the memory that stays with the list, and the peak on the way to it, both
beyond what the process had before.
"""

from __future__ import annotations

import csv
import gc
import random
import resource
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from dualformer_cli.config.schema import DataConfig
from dualformer_cli.data.lists.class_lists import load_class_names
from dualformer_cli.data.lists.model_labels import open_list

MIB = 2**20
SIGNS = string.ascii_letters + string.digits + "-_"
HEADER = ("path", "label", "num_frames", "fps", "width", "height", "duration_seconds", "status")


def rows(number: int, classes: list[str]) -> Iterator[tuple[str, int, float]]:
    """Yield path, class and start of each video."""
    rng = random.Random(0)
    for _ in range(number):
        label, start = rng.randrange(len(classes)), rng.randrange(300)
        name = "".join(rng.choices(SIGNS, k=11))
        yield f"train/{classes[label]}/{name}_{start:06d}_{start + 10:06d}.mp4", label, start


def write_lists(folder: Path, number: int, classes: list[str]) -> list[Path]:
    """Write the same rows as a manifest, as one with parts of videos, and as a line with a number for each."""
    paths = [folder / name for name in ("manifest.csv", "parts.csv", "lines.txt")]
    with paths[0].open("w", newline="") as plain, paths[1].open("w", newline="") as parts, paths[2].open("w") as lines:
        tables = csv.writer(plain, lineterminator="\n"), csv.writer(parts, lineterminator="\n")
        tables[0].writerow(HEADER)
        tables[1].writerow((*HEADER, "start_seconds", "end_seconds"))
        for index, (path, label, start) in enumerate(rows(number, classes)):
            frames = 240 + index % 61
            row = (path, label, frames, 29.97, 340, 256, round(frames / 29.97, 3), "ok")
            tables[0].writerow(row)
            tables[1].writerow((*row, *((start + 0.25, start + 10.25) if index % 4 == 0 else ("", ""))))
            lines.write(f"{path} {label}\n")
    return paths


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def open_one(path: str) -> None:
    gc.collect()
    before = resident()
    started, computed = time.perf_counter(), time.process_time()
    listed = open_list(DataConfig(), path, class_names=load_class_names("kinetics600"))
    seconds, of_processor = time.perf_counter() - started, time.process_time() - computed
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    gc.collect()
    held = (resident() - before) / MIB
    print(
        f"{Path(path).name:14} {len(listed):,} rows: {seconds:5.2f} s ({of_processor:.2f} s of the processor), "
        f"{held:4.0f} MiB stay, peak {(peak - before) / MIB:4.0f} MiB, fingerprint {listed.fingerprint[:12]}"
    )


def main() -> None:
    if len(sys.argv) == 3:
        open_one(sys.argv[2])
        return
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 650_000
    with tempfile.TemporaryDirectory() as name:
        for path in write_lists(Path(name), number, load_class_names("kinetics600")):
            subprocess.run([sys.executable, __file__, "open", str(path)], check=True)


if __name__ == "__main__":
    main()
