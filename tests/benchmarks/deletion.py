"""How much Grad-CAM maps mean, over many videos: the deletion score of each layer, mean and standard error.

    python tests/benchmarks/deletion.py camera-motion/test/*.mp4 --preset camera-motion --layer last 1/1 0/1

Above 0 the hottest tokens matter more to the class's score than random ones, on average over the videos.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from dualformer_cli.config.load import load_config
from dualformer_cli.engine.engine import Engine
from dualformer_cli.engine.explain.deletion import delete
from dualformer_cli.engine.explain.gradcam import explain, find_layer, read_video
from dualformer_cli.system.workers import WorkerPool


def scores_of(engine: Engine, videos: list[str], layers: list[str]) -> dict[str, list[float]]:
    """Deletion scores of the best class of each video, by layer."""
    config = engine.config
    places = {name: find_layer(name, config.model.depths, engine.preset) for name in layers}
    found: dict[str, list[float]] = {name: [] for name in layers}
    with WorkerPool(1, config.data.decode_timeout_seconds, preload=["dualformer_cli.data.clips.views"]) as pool:
        for video in videos:
            views = read_video(engine, video, pool)
            for name, place in places.items():
                explained = explain(engine, views.clips, place)

                def score(clips: np.ndarray, index: int = explained.class_index) -> np.ndarray:
                    return engine.scorer.score(clips)[0][:, index]

                deleted = delete(score, views.clips, explained.grid, colour=config.data.mean, seed=config.runtime.seed)
                found[name].append(deleted.score)
    return found


def main() -> None:
    """Score the videos and print one line a layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--preset", default="camera-motion")
    parser.add_argument("--weights", default="published")
    parser.add_argument("--layer", nargs="+", default=["last"])
    arguments = parser.parse_args()
    flags = {"weights": arguments.weights}
    resolved = load_config(arguments.preset, overrides=["data.test.num_clips=1"], flags=flags)
    engine = Engine(resolved, offline=True)
    print(f"{len(arguments.videos)} videos, torch {torch.__version__}, {engine.describe()}")
    for layer, values in scores_of(engine, arguments.videos, arguments.layer).items():
        scores = np.array(values)
        error = scores.std() / len(scores) ** 0.5
        print(f"{layer:6} {scores.mean():+.3f} +- {error:.3f}, above 0 in {np.mean(scores > 0):.0%}")


if __name__ == "__main__":
    main()
