"""Check and time everything whose speed we speak of: one script for CPU and GPU, a Markdown table and JSON.

    PYTHONPATH=. python tests/benchmarks/speed.py --json speed.json                    # on a GPU: everything, 8 minutes
    PYTHONPATH=. python tests/benchmarks/speed.py --parts forward video --size tiny    # on a CPU: as much as you like

Parts, in this order:
  kernels    each Triton kernel at the shape of each stage, beside its PyTorch reference (on a CPU the reference alone)
  forward    a forward pass of the whole model against the published architecture run eagerly; torchvision's mvit_v2_s
             and swin3d_t beside tiny
  training   a training step: forward, backward, AdamW
  video      all views of a video, from uint8 frames to scores: k400-tiny's 4, mvit_v2_s's 5, swin3d_t's 12
  predict    `dualformer predict` of a rendered clip of 10 s, the whole command
  loader     reading training clips, by loader.py
  compiled   forward and training again at the largest batch, with torch.compile of both models, and CUDA graphs of ours

Contenders run once a round, in alternating order; times are medians with the 20th and 80th percentiles, speed-ups
medians of paired ratios. What memory or --minutes does not allow is skipped, and the table says so. The exit code is 1
when a check fails or something breaks.
"""

from __future__ import annotations

import dualformer_cli  # noqa: F401 - before torch, whose threads wait as it says

# isort: split
import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path

import model
import operations
import torch
from published_baseline import SIZES
from timing import DTYPES, Deadline, Row, Table, machine, milliseconds, seconds_of, share_of, timed

HERE = Path(__file__).resolve().parent
SHARES = {"kernels": 100, "forward": 90, "training": 90, "video": 15, "predict": 50, "loader": 35, "compiled": 100}
"""Parts, and how a limited time is shared among them."""


def kernel_rows(arguments: argparse.Namespace, device: torch.device, deadline: Deadline) -> Iterator[Row]:
    """Rows of all kernels, at the largest batch up to 8."""
    batch_size = max([size for size in arguments.batch_size if size <= 8], default=min(arguments.batch_size))
    for case, precision in product(operations.cases(arguments.size, arguments.stages), arguments.precision):
        yield from operations.measure(
            case, precision, batch_size, device,
            rounds=arguments.rounds, compiled=arguments.compile_kernels, deadline=deadline,
        )  # fmt: skip


def model_rows(kind: str, arguments: argparse.Namespace, device: torch.device, deadline: Deadline) -> Iterator[Row]:
    """Rows of forward passes or training steps; compiled ones at the largest batch alone."""
    batch_sizes = [max(arguments.batch_size)] if kind.startswith("compiled") else arguments.batch_size
    for size, precision, batch_size in product(arguments.size, arguments.precision, batch_sizes):
        yield from model.measure(kind, size, precision, batch_size, device, rounds=arguments.rounds, deadline=deadline)


def compiled_rows(arguments: argparse.Namespace, device: torch.device, deadline: Deadline) -> Iterator[Row]:
    """Rows of compiled models."""
    for kind in ("compiled forward", "compiled training"):
        yield from model_rows(kind, arguments, device, deadline)


def video_rows(arguments: argparse.Namespace, device: torch.device, deadline: Deadline) -> Iterator[Row]:
    """Rows of whole videos."""
    for precision in arguments.precision:
        yield from model.measure_video(precision, device, rounds=arguments.rounds, deadline=deadline)


def predict_rows(arguments: argparse.Namespace, device: torch.device, deadline: Deadline) -> Iterator[Row]:
    """Rows of the whole command: start, weights, decoding, scores."""
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "rendered_340x256.mp4"
        subprocess.run([sys.executable, HERE / "loader.py", "--render", clip], check=True)
        command = [sys.executable, "-m", "dualformer_cli", "predict", clip, "--preset", "k400-tiny", "--json"]
        command += ["--weights", "random", "--device", device.type]
        for precision in [*arguments.precision, "auto"]:
            if not deadline.seconds_left():
                yield {"precision": precision, "note": "skipped: no time left"}
                continue
            yield _predict_row([*map(str, command), "--precision", precision], precision, arguments, deadline)


def _predict_row(command: list[str], precision: str, arguments: argparse.Namespace, deadline: Deadline) -> Row:
    documents = []

    def run() -> None:
        found = subprocess.run(command, capture_output=True, text=True)
        if found.returncode:
            raise RuntimeError((found.stderr.strip() or str(found.returncode)).splitlines()[-1])
        documents.append(json.loads(found.stdout))

    try:
        first = seconds_of(run, torch.device("cpu"))  # warms up: caches of files, and of Triton
        seconds = [
            seconds_of(run, torch.device("cpu")) for _ in range(deadline.rounds(min(3, arguments.rounds), first))
        ]
    except RuntimeError as error:
        return {"precision": precision, "note": f"failed: {error}"}
    row: Row = {"precision": f"{precision} ({documents[-1]['precision']})", **timed(seconds or [first])}
    for name, value in documents[-1]["results"][0]["timing"].items():
        row[name.replace("seconds", "ms")] = 1000 * value
    return {**row, "first_ms": 1000 * first, **({} if seconds else {"note": "first run only: no time for more"})}


def loader_rows(arguments: argparse.Namespace, device: torch.device, deadline: Deadline) -> Iterator[Row]:
    """Rows of loader.py, which needs a process of its own with one thread."""
    if not deadline.seconds_left():
        yield {"note": "skipped: no time left"}
        return
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "loader.json"
        rounds = str(min(7, arguments.rounds))
        command = [
            sys.executable,
            str(HERE / "loader.py"),
            *arguments.videos,
            "--rounds",
            rounds,
            "--json",
            str(output),
        ]
        found = subprocess.run(command, capture_output=True, text=True)
        if found.returncode:
            reason = (found.stderr.strip() or str(found.returncode)).splitlines()[-1]
            yield {"note": f"{'skipped' if 'not installed' in reason else 'failed'}: {reason}"}
            return
        yield from json.loads(output.read_text())["rows"]


def _ratio(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row[name]['median']:.2f} ({row[name]['p20']:.2f}-{row[name]['p80']:.2f})"


def _text(name: str, form: str = "") -> Callable[[Row], str]:
    return lambda row: format(row[name], form)


_MODEL_COLUMNS: Mapping[str, Callable[[Row], str]] = {
    "kind": _text("kind"), "size": _text("size"), "precision": _text("precision"), "batch": _text("batch_size"),
    "": _text("contender"), "ms (p20-p80)": milliseconds, "clips/s": _text("clips_per_second", ",.1f"),
    "speed-up (p20-p80)": _ratio("speedup"), "over fp32": _ratio("speedup_over_fp32"),
    "peak MiB": _text("peak_mib", ",.0f"), "difference": _text("difference", ".1e"), "rounds": _text("rounds"),
    "note": _text("note"),
}  # fmt: skip
COLUMNS: Mapping[str, Mapping[str, Callable[[Row], str]]] = {
    "kernels": {
        "operation": _text("operation"), "size": _text("size"), "stage": _text("stage"),
        "precision": _text("precision"), "batch": _text("batch_size"), "kind": _text("direction"),
        "": _text("contender"), "ms (p20-p80)": milliseconds, "GB/s": _text("gigabytes_per_second", ",.1f"),
        "TMAC/s": _text("tera_multiply_adds_per_second", ".2f"), "peak MiB": _text("peak_mib", ",.0f"),
        "error": _text("error", ".1e"), "note": _text("note"),
    },
    "forward": _MODEL_COLUMNS, "training": _MODEL_COLUMNS, "compiled": _MODEL_COLUMNS,
    "video": {
        "model": _text("contender"), "views": _text("views"), "precision": _text("precision"),
        "ms a video (p20-p80)": milliseconds, "ours is faster by": _ratio("our_speedup"),
        "rounds": _text("rounds"), "note": _text("note"),
    },
    "predict": {
        "precision": _text("precision"), "ms (p20-p80)": milliseconds, "decode ms": _text("decode_ms", ",.0f"),
        "preprocess ms": _text("preprocess_ms", ",.0f"), "forward ms": _text("forward_ms", ",.0f"),
        "first run ms": _text("first_ms", ",.0f"), "note": _text("note"),
    },
    "loader": {
        "file": _text("file"), "": _text("contender"), "CPU ms a clip": _text("cpu_ms_per_clip", ".1f"),
        "clips a CPU second": _text("clips_per_cpu_second", ".1f"), "speed-up": _text("cpu_speedup", ".2f"),
        "difference": _text("difference", ".2f"), "note": _text("note"),
    },
}  # fmt: skip


def rows_of(part: str, arguments: argparse.Namespace, device: torch.device, deadline: Deadline) -> Iterator[Row]:
    """Measure one part."""
    if part in ("forward", "training"):
        return model_rows(part, arguments, device, deadline)
    measures = {
        "kernels": kernel_rows, "video": video_rows, "predict": predict_rows, "loader": loader_rows,
        "compiled": compiled_rows,
    }  # fmt: skip
    return measures[part](arguments, device, deadline)


def read_arguments() -> argparse.Namespace:
    """The command line; what it leaves open is all of everything on a GPU, and what takes minutes on a CPU."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=SHARES, default=list(SHARES) if gpu else ["forward", "video"])
    parser.add_argument("--size", nargs="+", choices=SIZES, default=list(SIZES) if gpu else ["tiny"])
    parser.add_argument("--precision", nargs="+", choices=DTYPES, default=["bf16"] if gpu else ["fp32", "bf16"])
    parser.add_argument("--batch-size", nargs="+", type=int, default=[1, 8, 32] if gpu else [1])
    parser.add_argument("--stages", nargs="+", type=int, choices=range(4), default=[0, 1, 2, 3], help="of kernels")
    parser.add_argument("--compile-kernels", action="store_true", help="also torch.compile of the kernels' references")
    parser.add_argument("--videos", nargs="+", default=[], help="files for the loader besides the rendered one")
    parser.add_argument("--rounds", type=int, default=20 if gpu else 5)
    parser.add_argument(
        "--minutes", type=float, default=8 if gpu else None, help="stop beginning things after this time"
    )
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    return parser.parse_args()


def main() -> int:
    """Measure the asked parts, print tables, write the numbers."""
    started = time.perf_counter()
    arguments = read_arguments()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    facts = machine(device)
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    parts = [part for part in SHARES if part in arguments.parts]
    document = {"machine": facts, "parts": {part: [] for part in parts}}
    for part in parts:
        deadline = Deadline()
        if arguments.minutes is not None:
            left = 60 * arguments.minutes - (time.perf_counter() - started)
            deadline = share_of(part, SHARES, parts, left)
        table = Table(part, COLUMNS[part])
        for row in rows_of(part, arguments, device, deadline):
            table.add(row)
            document["parts"][part].append(row)
            if arguments.json:  # what is measured survives a run that is cut off
                arguments.json.write_text(json.dumps(document, indent=2), encoding="utf-8")
    return int(any(row.get("note", "").startswith("failed") for rows in document["parts"].values() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
