"""How well weights tell the camera's motion on pictures of real videos, and how sure they are of nothing.

Frames are taken from videos, a camera is moved over them along known paths, the clips are compressed, and the weights
classify the files as `dualformer predict` does. Three clips without any camera motion follow: a cut between two videos,
black, and noise.

    python tests/benchmarks/camera_motion.py VIDEO... --weights FILE|published [--preset camera-motion] [--count 500]

Prints accuracy, confusion matrix and expected calibration error; --json FILE writes them with every score.
"""

from __future__ import annotations

import argparse
import json
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dualformer_cli.config.load import load_config
from dualformer_cli.data.camera_motion.classes import CLASSES
from dualformer_cli.data.camera_motion.files import write_h264
from dualformer_cli.data.camera_motion.pictures import PictureSource
from dualformer_cli.data.camera_motion.render import render_clip
from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.predict import VideoResult
from dualformer_cli.engine.engine import Engine
from dualformer_cli.system.threads import usable_cores
from dualformer_cli.system.workers import WorkerPool
from dualformer_cli.video.open import open_video

SIZES = ((120, 160), (144, 192), (112, 112), (180, 320), (160, 90))
BINS = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("videos", nargs="+", help="videos whose frames are the pictures")
    parser.add_argument("--weights", required=True, help="file, or published")
    parser.add_argument("--preset", default="camera-motion")
    parser.add_argument("--count", type=int, default=500, help="clips")
    parser.add_argument("--num-frames", type=int, default=32)
    parser.add_argument("--difficulty", type=float, default=1.0)
    parser.add_argument("--frames-per-video", type=int, default=12)
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--json", type=Path, help="also write everything here")
    options = parser.parse_args()

    pictures = [frame for path in options.videos for frame in take_frames(path, options.frames_per_video)]
    print(f"{len(pictures)} pictures from {len(options.videos)} videos, {options.count} clips")
    engine = Engine(load_config(options.preset, flags={"weights": options.weights}))
    if engine.class_names != list(CLASSES):
        raise SystemExit(f"the weights classify {engine.class_names}, not camera motion")
    with TemporaryDirectory(prefix="dualformer-") as folder:
        paths = write_clips(Path(folder), pictures, options)
        special = write_special(Path(folder), pictures, options.num_frames)
        with WorkerPool(usable_cores(), 60.0) as pool:
            found = [p.result for p in engine.predict([*paths, *special], pool, top_k=len(CLASSES))]
    broken = [result.error for result in found if result.status != "ok"]
    if broken:
        raise SystemExit(f"{len(broken)} clips could not be read, such as: {broken[0]}")
    scores = np.array([ordered(result) for result in found])
    labels = np.arange(options.count) % len(CLASSES)
    document = summarize(scores[: options.count], labels)
    document["special"] = {
        Path(path).stem: dict(zip(CLASSES, row.round(3).tolist(), strict=True))
        for path, row in zip(special, scores[options.count :], strict=True)
    }
    show(document)
    if options.json:
        views = {"videos": options.videos, "scores": scores.tolist(), "labels": labels.tolist()}
        facts = {**to_json(engine.describe()), **views}
        options.json.write_text(json.dumps({**facts, **document}, indent=1) + "\n", encoding="utf-8")


def take_frames(path: str, count: int) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Return frames spread evenly over a video; nearly black ones are left out."""
    with open_video(path) as reader:
        frames = reader.read(np.linspace(0, reader.info.num_frames - 1, count).astype(int).tolist())
    return [frame for frame in frames if frame.std() > 10]


def write_clips(folder: Path, pictures: list[Any], options: argparse.Namespace) -> list[str]:
    """Render one clip after another, the classes in turn, at the middle quality of what cameras write."""
    source = PictureSource(num_drawn=0, arrays=pictures)
    rng = np.random.default_rng(options.seed)
    paths = []
    for number in range(options.count):
        clip = render_clip(
            [options.seed, number],
            num_frames=options.num_frames,
            size=SIZES[int(rng.integers(len(SIZES)))],
            pictures=source,
            label=number % len(CLASSES),
            difficulty=options.difficulty,
        )
        path = folder / f"{number:05d}.mp4"
        write_h264(path, clip.frames, fps=Fraction(25), crf=int(rng.integers(18, 33)))
        paths.append(str(path))
    return paths


def write_special(folder: Path, pictures: list[Any], num_frames: int) -> list[str]:
    """Write a cut between two still pictures, a black clip and noise."""
    still = PictureSource(num_drawn=0, arrays=[pictures[0]])
    other = PictureSource(num_drawn=0, arrays=[pictures[-1]])
    before, after = (
        render_clip(1, num_frames=num_frames, size=(120, 160), pictures=one, label=0, difficulty=0.0).frames
        for one in (still, other)
    )
    rng = np.random.default_rng(0)
    clips = {
        "cut": np.concatenate([before[: num_frames // 2], after[num_frames // 2 :]]),
        "black": np.zeros_like(before),
        "noise": rng.integers(0, 256, before.shape, dtype=np.uint8),
    }
    for name, frames in clips.items():
        write_h264(folder / f"{name}.mp4", frames, fps=Fraction(25), crf=23)
    return [str(folder / f"{name}.mp4") for name in clips]


def ordered(result: VideoResult) -> list[float]:
    """Return the scores of one result in the order of CLASSES."""
    by_index = {best.index: best.score for best in result.predictions}
    return [by_index[index] for index in range(len(CLASSES))]


def summarize(scores: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return accuracy in percent, confusion (row: true class) and expected calibration error."""
    answers, confidence = scores.argmax(axis=1), scores.max(axis=1)
    right = answers == labels
    confusion = np.zeros((len(CLASSES), len(CLASSES)), int)
    np.add.at(confusion, (labels, answers), 1)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [
        abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in set(bins.tolist())
    ]
    return {
        "clips": len(labels),
        "top1": 100 * float(right.mean()),
        "expected_calibration_error": float(sum(gaps)),
        "mean_confidence": float(confidence.mean()),
        "confusion": confusion.tolist(),
    }


def show(document: dict[str, Any]) -> None:
    """Print the table."""
    print(f"top-1 {document['top1']:.2f}% of {document['clips']} clips")
    print(
        f"expected calibration error {document['expected_calibration_error']:.3f}, "
        f"mean confidence {document['mean_confidence']:.3f}"
    )
    width = max(map(len, CLASSES))
    print("confusion (row: true, column: answered, in the same order)")
    for name, row in zip(CLASSES, document["confusion"], strict=True):
        print(f"{name:>{width}} " + " ".join(f"{count:4d}" for count in row))
    for name, row in document["special"].items():
        best = sorted(row.items(), key=lambda pair: -pair[1])[:3]
        print(f"{name}: " + ", ".join(f"{label} {score:.2f}" for label, score in best))


if __name__ == "__main__":
    main()
