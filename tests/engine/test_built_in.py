"""The weights that come with the package: they tell motion over pictures that they never saw."""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import load_file

from dualformer_cli import create_model, load_weights
from dualformer_cli.config.load import load_config
from dualformer_cli.data.camera_motion.classes import CLASSES
from dualformer_cli.data.camera_motion.pictures import PictureSource
from dualformer_cli.data.camera_motion.render import render_clip
from dualformer_cli.data.clips.transforms import normalize
from dualformer_cli.data.fetch.weights import shipped_weights

PRESET = "camera-motion"


def scores_of(clips: list[np.ndarray]) -> np.ndarray:
    """Scores of clips, as `predict` gives them for one view."""
    data = load_config(PRESET, environ={}).config.data
    path = shipped_weights(PRESET)
    assert path is not None
    model = create_model(PRESET).eval()
    load_weights(model, path)
    with torch.no_grad():
        return (
            model(normalize(torch.from_numpy(np.stack(clips)), data.mean, data.std, torch.float32)).softmax(-1).numpy()
        )


def test_the_shipped_weights_are_small_and_in_half_precision() -> None:
    path = shipped_weights(PRESET)
    assert path is not None
    assert path.stat().st_size <= 6_000_000
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}


def test_the_shipped_weights_tell_every_motion_over_new_pictures() -> None:
    pictures = PictureSource(seed=2**31 + 5, num_drawn=40)
    labels = np.arange(50) % len(CLASSES)
    clips = [
        render_clip([99, n], num_frames=16, size=(96, 96), pictures=pictures, label=int(label), difficulty=0.5).frames
        for n, label in enumerate(labels)
    ]
    right = scores_of(clips).argmax(axis=1) == labels
    assert right.mean() >= 0.9
    assert all(right[labels == label].any() for label in range(len(CLASSES)))


def test_the_shipped_weights_tell_still_and_moving_cameras_before_busy_scenes() -> None:
    pictures = PictureSource(seed=2**31 + 6, num_drawn=40)
    labels = np.where(np.arange(60) % 2, np.arange(60) // 2 % len(CLASSES), 0)
    clips = [
        render_clip(
            [98, n], num_frames=16, size=(96, 96), pictures=pictures, label=int(label), difficulty=0.7, busy=1.0
        ).frames
        for n, label in enumerate(labels)
    ]
    scores = scores_of(clips)
    right = scores.argmax(axis=1) == labels
    assert right.mean() >= 0.9
    assert right[labels == 0].mean() >= 0.85
    assert (scores.max(axis=1)[~right] > 0.8).sum() <= 3, "wrong and sure, of 60"


def test_the_shipped_weights_are_unsure_where_no_motion_has_a_name() -> None:
    rng = np.random.default_rng(0)
    black = np.zeros((16, 96, 96, 3), np.uint8)
    noise = rng.integers(0, 256, black.shape, dtype=np.uint8)
    still = [
        render_clip(seed, num_frames=16, size=(96, 96), pictures=PictureSource(num_drawn=9), label=0, difficulty=0.0)
        for seed in (1, 2)
    ]
    cut = np.concatenate([still[0].frames[:8], still[1].frames[8:]])
    assert scores_of([black, black + 200, noise, cut]).max() < 0.5
