"""How well weights tell the camera's motion in real videos, beside a classical estimate of each view.

    PYTHONPATH=. python tests/benchmarks/real_motion.py FOLDER|VIDEO... [--weights FILE] [--csv views.csv] [--json FILE]

For each view that `dualformer predict` would score, the script follows corners from frame to frame (Lucas-Kanade flow
that returns to where it began), fits a similarity that most of them share (RANSAC), and adds the steps up to the
camera's path over the view. Where that path is clearly of one class, the model's answer is right or wrong; where it is
not (cuts, mixtures, too few corners), the model should not be sure. Needs OpenCV: pip install opencv-python-headless.

The estimate can be wrong, too: look at the frames before you believe either.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dualformer_cli.config.load import load_config
from dualformer_cli.data.camera_motion.classes import CLASSES
from dualformer_cli.data.camera_motion.paths import PAN_SHARE, ROLL_RADIANS, SHAKE_SHARE, ZOOM_LOG
from dualformer_cli.data.clips.views import read_views
from dualformer_cli.engine.engine import Engine
from dualformer_cli.engine.scoring.metrics import calibration
from dualformer_cli.errors import DualFormerError
from dualformer_cli.video.open import open_video
from dualformer_cli.video.suffixes import VIDEO_SUFFIXES

Array = np.ndarray[Any, Any]

SMALLEST = {"pan": PAN_SHARE[1][0], "tilt": PAN_SHARE[1][0], "zoom": ZOOM_LOG[1][0], "roll": ROLL_RADIANS[1][0]}
"""The smallest motions that rendered clips have a name for, over a view."""
STATIC_BELOW = 0.25
"""A camera stands still whose every motion is below this part of the smallest."""
CLEAR_FROM = 1.3
"""A motion is clear from this many times the smallest on,"""
NEXT_BELOW = 0.45
"""if the next strongest is below this part of it."""
SHORT_SIDE = 240
LEAST_CORNERS = 30
LEAST_SHARE = 0.4
"""Of the corners that must agree on a step."""
RETURN_PIXELS = 0.5
SURE = 0.8


@dataclass(frozen=True)
class View:
    """One view of a video."""

    file: str
    view: int
    estimate: str
    """Class that the path clearly has, or empty."""
    answer: str
    score: float
    scores: list[float]

    @property
    def kind(self) -> str:
        """Where it counts in the table."""
        if not self.estimate:
            return "unclear, sure" if self.score > SURE else "unclear, unsure"
        if self.answer == self.estimate:
            return "right"
        return "wrong and sure" if self.score > SURE else "wrong and unsure"


def camera_path(frames: list[Array]) -> Array | None:
    """Return the camera's position over the frames, or None where a step is not seen.

    Returns:
        Rows of pan (in widths), tilt (in heights), zoom (logarithm) and roll (radians), shape (4, T).
    """
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    height, width = grey[0].shape
    middle = np.array([width / 2, height / 2])
    steps = [np.zeros(4)]
    for before, after in pairwise(grey):
        step = _step(before, after, middle)
        if step is None:
            return None
        steps.append(step / np.array([width, height, 1, 1]))
    return np.cumsum(steps, axis=0).T


def _step(before: Array, after: Array, middle: Array) -> Array | None:
    """Return what the camera does between two frames: (right, down, zoom, clockwise) in pixels, logarithm, radians."""
    corners = cv2.goodFeaturesToTrack(before, 500, 0.005, 6)
    if corners is None or len(corners) < LEAST_CORNERS:
        return None
    there, seen, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None, winSize=(21, 21), maxLevel=4)
    back, seen_back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, None, winSize=(21, 21), maxLevel=4)
    kept = (seen & seen_back).ravel() == 1
    kept &= np.linalg.norm((back - corners).reshape(-1, 2), axis=1) < RETURN_PIXELS
    if kept.sum() < LEAST_CORNERS or kept.mean() < 0.3:
        return None
    first, second = (points.reshape(-1, 2)[kept] - middle for points in (corners, there))
    found, inliers = cv2.estimateAffinePartial2D(first, second, method=cv2.RANSAC, ransacReprojThreshold=1.0)
    if found is None or inliers.sum() < LEAST_CORNERS or inliers.mean() < LEAST_SHARE:
        return None
    (a, _, x), (b, _, y) = found
    return np.array([-x, -y, math.log(math.hypot(a, b)), -math.atan2(b, a)])


def name_path(path: Array, aspect: float) -> str:
    """Return the class of a path, shape (4, T), or an empty text if it has none clearly.

    Args:
        path: as `camera_path` gives it.
        aspect: width over height of the frames.
    """
    net = path[:, -1] - path[:, 0]
    strengths = {name: abs(float(way)) / least for (name, least), way in zip(SMALLEST.items(), net, strict=True)}
    # how it trembles about an even motion, in short sides
    u = np.linspace(-0.5, 0.5, path.shape[1])
    sides = np.array([max(aspect, 1.0), max(1 / aspect, 1.0)])[:, None]
    swings = path[:2] * sides
    residue = swings - swings.mean(axis=1, keepdims=True) - (swings @ u / (u @ u))[:, None] * u
    trembling = float(np.sqrt((residue**2).sum(axis=0).mean())) / SHAKE_SHARE[1][0]
    (strongest, most), (_, second) = sorted(strengths.items(), key=lambda pair: -pair[1])[:2]
    if most < STATIC_BELOW and trembling < STATIC_BELOW:
        return "static"
    if trembling > 1.0 and most < 1.0:
        return "shake"
    if most < CLEAR_FROM or second > NEXT_BELOW * most or trembling > max(0.5, NEXT_BELOW * most):
        return ""
    forward = float(net[list(SMALLEST).index(strongest)]) > 0
    names = {
        "pan": ("pan left", "pan right"),
        "tilt": ("tilt up", "tilt down"),
        "zoom": ("zoom out", "zoom in"),
        "roll": ("roll counter-clockwise", "roll clockwise"),
    }
    return names[strongest][forward]


def frames_of(file: str, indices: Array) -> list[Array]:
    """Return frames of a video, shrunk to SHORT_SIDE."""
    with open_video(file) as reader:
        frames = reader.read(indices.tolist())
    scale = min(1.0, SHORT_SIDE / min(frames.shape[1:3]))
    if scale == 1:
        return list(frames)
    size = (round(frames.shape[2] * scale), round(frames.shape[1] * scale))
    return [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]


def look_at(file: str, engine: Engine) -> Iterator[View]:
    """Yield the views of a video."""
    data = engine.config.data
    views = read_views(file, data, data.test)
    scores, _ = engine.scorer.score(views.clips)
    for number, indices in enumerate(views.indices):
        frames = frames_of(file, np.unique(indices))
        path = camera_path(frames) if len(frames) > 2 else None
        estimate = "" if path is None else name_path(path, frames[0].shape[1] / frames[0].shape[0])
        row = [float(score) for score in scores[number]]
        best = int(np.argmax(row))
        yield View(Path(file).name, number, estimate, CLASSES[best], row[best], row)


def show(views: list[View]) -> dict[str, Any]:
    """Print the tables and return their numbers."""
    kinds = ("right", "wrong and unsure", "wrong and sure", "unclear, unsure", "unclear, sure")
    print(f"{'estimate':>22}  " + "  ".join(f"{kind:>16}" for kind in kinds))
    for name in (*CLASSES, ""):
        counts = [sum(view.estimate == name and view.kind == kind for view in views) for kind in kinds]
        if any(counts):
            print(f"{name or '(none)':>22}  " + "  ".join(f"{count or '':>16}" for count in counts))
    clear = [view for view in views if view.estimate]
    right = sum(view.kind == "right" for view in clear)
    sure = sum(view.kind == "wrong and sure" for view in clear)
    unclear = [view for view in views if not view.estimate]
    labels = np.array([CLASSES.index(view.estimate) for view in clear])
    error = calibration(np.array([view.scores for view in clear]), labels).expected_calibration_error if clear else 0.0
    print(f"{right} of {len(clear)} clear views right ({100 * right / max(1, len(clear)):.1f}%), {sure} wrong and sure")
    print(f"{sum(view.score > SURE for view in unclear)} of {len(unclear)} unclear views above {SURE:g}")
    print(f"expected calibration error over the clear views: {error:.1f} points")
    return {"clear": len(clear), "right": right, "wrong_and_sure": sure, "expected_calibration_error": error}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path, help="videos, or folders of them")
    parser.add_argument("--weights", default="published", help="file, or published for the built-in ones")
    parser.add_argument("--csv", type=Path, help="take the estimates from this table (path, view, estimated_motion)")
    parser.add_argument("--all", action="store_true", help="print every view that is not right")
    parser.add_argument("--json", type=Path, help="write every view with its scores")
    options = parser.parse_args()
    files = [
        str(file)
        for path in options.videos
        for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
        if file.suffix.lower() in VIDEO_SUFFIXES or file == path
    ]
    engine = Engine(load_config("camera-motion", flags={"weights": options.weights}))
    views: list[View] = []
    for file in files:
        try:
            views += look_at(file, engine)
        except DualFormerError as error:
            print(f"left out: {error}")
    if options.csv:
        with options.csv.open(newline="", encoding="utf-8") as stream:
            given = {(row["path"], int(row["view"])): row["estimated_motion"] for row in csv.DictReader(stream)}
        same = sum(given.get((view.file, view.view)) == view.estimate for view in views)
        print(f"own estimates: {same} of {len(views)} as in {options.csv.name}, whose are used")
        views = [
            View(**{**asdict(view), "estimate": given[view.file, view.view]})
            for view in views
            if (view.file, view.view) in given
        ]
    numbers = show(views)
    if options.all:
        for view in views:
            if view.kind not in ("right", "unclear, unsure"):
                print(f"{view.file} view {view.view}: {view.answer} {view.score:.2f}, estimate {view.estimate or '-'}")
    if options.json:
        options.json.write_text(json.dumps({**numbers, "views": [asdict(view) for view in views]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
