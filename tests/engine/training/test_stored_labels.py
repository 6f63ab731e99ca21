"""Token labels from a folder become those of a batch's clips: which video, moment, place, mirror and how many logits.

The folder is written here, token by token, with numbers of which each says where it belongs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dualformer_cli.config.load import load_config
from dualformer_cli.data.clips.loader import Batch
from dualformer_cli.data.lists.model_labels import open_list
from dualformer_cli.data.tokens.store import Header, LabelClip, LabelFolder, StoredVideo
from dualformer_cli.documents.tokenlabel import TeacherFacts
from dualformer_cli.engine.training.token_labels import StoredLabels

GRID, TOP_K, CLASSES = (4, 2, 2), 3, ("dark", "red", "green", "blue")
STARTS = (0, 16)
OVERRIDES = ("model.token_head=true", "data.clip.frame_interval=2", "train.token_top_k=3")


def records_of(video: int) -> np.ndarray:
    """Labels of two clips in one tile, each token another: values 6, 3, 1 and more, and their classes in some order."""
    rng = np.random.default_rng(video)
    records = np.empty((len(STARTS), *GRID), [("values", "<f2", (TOP_K,)), ("classes", "<u2", (TOP_K,))])
    records["values"] = np.array([6, 3, 1]) + rng.integers(0, 8, (*records.shape, 1)) / 4
    records["classes"] = np.argsort(rng.random((*records.shape, len(CLASSES))), axis=-1)[..., :TOP_K]
    return records


def probabilities(records: np.ndarray, kept: int, *, renormalise: bool = False) -> np.ndarray:
    """Softmax of the best logits; the other classes have logit 0, or no part in it."""
    rows = np.full((*records.shape, len(CLASSES)), -np.inf if renormalise else 0.0)
    np.put_along_axis(rows, records["classes"][..., :kept].astype(int), records["values"][..., :kept].astype(float), -1)
    powers = np.exp(rows)
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.fixture
def open_labels(tmp_path: Path, toy_preset: Path) -> Callable[..., Any]:
    """The function open_labels(*overrides, sha256="0") -> StoredLabels of five videos, two a shard; one has none."""
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{number}.mp4,{number % 4}\n" for number in range(5)))
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))

    def make(*overrides: str, sha256: str = "0") -> StoredLabels:
        config = load_config(str(toy_preset), overrides=[*OVERRIDES, *overrides], environ={}).config
        listed = open_list(config.data, str(tmp_path / "list.csv"), class_names=None)
        header = Header(
            teacher=TeacherFacts(source="teacher", weights_sha256=sha256, precision="fp32"),
            source="list.csv",
            list_fingerprint=listed.fingerprint,
            num_videos=5,
            clip=LabelClip.of(config.data),
            grid=GRID,
            top_k=TOP_K,
            class_names=CLASSES,
            videos_per_shard=2,
            versions={},
        )
        folder = LabelFolder(tmp_path / "labels")
        folder.write_header(header)
        for shard in range(3):
            with folder.shard_writer(shard) as writer:
                for place, number in enumerate(header.videos_of(shard)):
                    if number == 4:
                        writer.videos.append(StoredVideo(number, "4.mp4", "it is broken"))
                        continue
                    tile = (0.0, 0.0, 1.0, 1.0)
                    writer.videos.append(StoredVideo(number, f"{number}.mp4", None, 2 * place, STARTS, (tile,)))
                    writer._file.write(records_of(number).tobytes())
        return StoredLabels(str(folder.root), config, listed, torch.device("cpu"))

    return make


def batch_of(*clips: tuple[int, int, bool, tuple[float, ...]]) -> Batch:
    """Clips of 8 frames, two frames apart: (video, first frame, whether mirrored, box)."""
    return Batch(
        clips=np.zeros((len(clips), 8, 64, 64, 3), np.uint8),
        samples=tuple(video for video, *_ in clips),
        flipped=np.array([flipped for *_, flipped, _ in clips]),
        unreadable=(),
        read_seconds=0.0,
        indices=np.array([start + 2 * np.arange(8) for _, start, *_ in clips]),
        boxes=np.array([box for *_, box in clips]),
    )


WHOLE = (0.0, 0.0, 1.0, 1.0)


def assert_equal(found: torch.Tensor, *expected: np.ndarray) -> None:
    torch.testing.assert_close(found.double(), torch.from_numpy(np.stack(expected)), atol=1e-5, rtol=1e-4)


def test_every_clip_has_the_labels_of_its_own_video_and_moment(open_labels: Callable[..., Any]) -> None:
    labels = open_labels().labels(batch_of((3, 16, False, WHOLE), (0, 0, False, WHOLE), (1, 16, False, WHOLE)))
    assert_equal(labels, *(probabilities(records_of(video), 3)[clip] for video, clip in ((3, 1), (0, 0), (1, 1))))


def test_labels_of_mirrored_clips_are_mirrored(open_labels: Callable[..., Any]) -> None:
    labels = open_labels().labels(batch_of((2, 0, True, WHOLE), (2, 0, False, WHOLE)))
    stored = probabilities(records_of(2), 3)[0]
    assert_equal(labels, stored[:, :, ::-1], stored)


def test_a_clip_between_two_stored_ones_has_labels_of_both(open_labels: Callable[..., Any]) -> None:
    """A token has 4 frames: one that starts at frame 4 has the tokens 1, 2, 3 of the first clip and 0 of the second."""
    stored = probabilities(records_of(1), 3)
    assert_equal(open_labels().labels(batch_of((1, 4, False, WHOLE))), np.concatenate([stored[0, 1:], stored[1, :1]]))


def test_a_crop_has_its_own_part_of_the_frame(open_labels: Callable[..., Any]) -> None:
    """The left half: its tokens' middles are at 1/8 and 3/8, the stored ones' at 1/4 and 3/4."""
    stored = probabilities(records_of(0), 3)[0]
    left, right = stored[:, :, 0], stored[:, :, 1]
    expected = np.stack([left, 0.75 * left + 0.25 * right], axis=2)
    half = (0.0, 0.0, 0.5, 1.0)
    assert_equal(
        open_labels().labels(batch_of((0, 0, False, WHOLE), (0, 0, False, half), (0, 0, True, half))),
        stored,
        expected,
        expected[:, :, ::-1],
    )


@pytest.mark.parametrize("renormalise", [False, True])
def test_fewer_logits_are_the_best_ones_with_their_classes(open_labels: Callable[..., Any], renormalise: bool) -> None:
    options = ("train.token_top_k=2", f"train.token_renormalise={str(renormalise).lower()}")
    labels = open_labels(*options).labels(batch_of((2, 0, False, WHOLE)))
    assert_equal(labels, probabilities(records_of(2), 2, renormalise=renormalise)[0])


def test_a_video_that_could_not_be_labelled_has_none(open_labels: Callable[..., Any]) -> None:
    labels = open_labels().labels(batch_of((4, 0, False, WHOLE), (1, 0, False, WHOLE)))
    assert_equal(labels, np.zeros((*GRID, 4)), probabilities(records_of(1), 3)[0])


def test_labels_of_another_teacher_are_told_apart(open_labels: Callable[..., Any]) -> None:
    found = [open_labels(sha256=sha256).fingerprint for sha256 in ("0", "1", "0")]
    assert found[0] == found[2] != found[1]
