"""Classify very many files into a run folder, with a stub in the place of the model: does memory grow with them?

Usage: python tests/benchmarks/many_inputs.py [1000000]

The files are hard links. Prints, of three runs, each of which goes on with the one before, the time, the processor time
for each video, and the peak of the resident memory until then: over a hundred files, in which all
that a run needs is loaded, over a tenth of the files, and over all.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dualformer_cli.documents.predict import PredictionRun, ScoredLabel, VideoResult
from dualformer_cli.engine.engine import Engine
from dualformer_cli.engine.scoring.video_scores import Prediction
from dualformer_cli.tasks.predict import PredictRequest, predict
from dualformer_cli.tasks.session import ModelRequest

LINKS_PER_FILE = 50_000
"""File systems allow 65,000."""
FILES_PER_FOLDER = 1000


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_links(folder: Path, number: int) -> None:
    for index in range(number):
        if index % LINKS_PER_FILE == 0:
            source = folder / f"source-{index}.bin"
            source.write_bytes(b"x")
        if index % FILES_PER_FOLDER == 0:
            group = folder / "videos" / f"{index // FILES_PER_FOLDER:04d}"
            group.mkdir(parents=True)
        os.link(source, group / f"a-video-with-a-name-of-usual-length-{index:07d}.mp4")


def stub(self: Engine, paths: Iterator[str], *others: Any, **options: Any) -> Iterator[Prediction]:
    labels = tuple(ScoredLabel(label=f"class {index}", index=index, score=0.1) for index in range(5))
    for path in paths:
        yield Prediction(VideoResult(path=path, status="ok", num_frames=250, views=4, predictions=labels), file=path)


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    Engine.predict = stub  # type: ignore[method-assign,assignment]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_links(folder, number)
        model = ModelRequest(preset="camera-motion", weights="random", device="cpu")
        first = f"{folder}/videos/0000/*-00000??.mp4"
        for pattern in (first, f"{folder}/videos/{'?' * 3}0", f"{folder}/videos"):
            started, used = time.monotonic(), time.process_time()
            document = predict(PredictRequest(model=model, inputs=(pattern,), output=folder / "run"))
            assert isinstance(document, PredictionRun)
            videos = document.videos
            each = (time.process_time() - used) / videos.listed * 1000
            seconds = time.monotonic() - started
            print(f"{videos}: {seconds:.0f} s, {each:.2f} ms each, peak {peak_mib():.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
