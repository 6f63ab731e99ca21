"""Where the token labels of a training batch come from: a teacher on the fly, or a folder that it has filled before."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict
from functools import lru_cache
from typing import Any, Protocol

import numpy.typing as npt
import torch
from torch import Tensor

from dualformer_cli.config.schema import RunConfig
from dualformer_cli.data.clips.loader import Batch
from dualformer_cli.data.lists.samples import LabelledList
from dualformer_cli.data.tokens.lookup import find_corners
from dualformer_cli.data.tokens.store import Header, LabelClip, LabelFolder, StoredVideo
from dualformer_cli.engine.build import token_grid
from dualformer_cli.engine.parallel.upload import upload
from dualformer_cli.engine.training.losses import soft_token_labels
from dualformer_cli.engine.training.teacher import Student, Teacher
from dualformer_cli.errors import ConfigError, DualFormerError

_LOGGER = logging.getLogger(__name__)

_OPEN_SHARDS = 256
"""Shards whose index is kept in memory; their labels are mapped from the file."""


class TokenLabeller(Protocol):
    """Gives every token of a batch its label."""

    sentence: str
    """For the log: who labels."""
    fingerprint: str
    """Differs where labels would."""

    def labels(self, batch: Batch) -> Tensor:
        """Probabilities, shape (b, t, h, w, classes), float32; all 0 where nobody knows a label."""
        ...


def open_token_labels(
    config: RunConfig, listed: LabelledList, device: torch.device, *, offline: bool = False
) -> TokenLabeller | None:
    """Open what the configuration names as the source of token labels; None where it names none.

    Raises:
        DualFormerError: if the model has no token head, or teacher or folder do not fit the run.
    """
    train = config.train
    name = "train.teacher" if train.teacher is not None else "train.token_labels"
    if train.teacher is None and train.token_labels is None:
        return None
    if not config.model.token_head:
        raise ConfigError(f"{name} labels tokens, but the model has no head for them; add --set model.token_head=true")
    if train.teacher is not None:
        return TeacherLabels(open_teacher(train.teacher, config, listed, device, offline=offline), config)
    return StoredLabels(str(train.token_labels), config, listed, device)


def open_teacher(
    source: str, config: RunConfig, listed: LabelledList, device: torch.device, *, offline: bool = False
) -> Teacher:
    """Open a teacher for the model of a configuration and the classes of a list.

    Raises:
        DualFormerError: if it cannot be loaded or does not fit.
    """
    size = config.data.crop_size
    student = Student(
        input_size=(config.data.clip.num_frames, size, size),
        grid=token_grid(config.model, config.data),
        class_names=listed.class_names,
    )
    preset = config.train.teacher_preset
    return Teacher(source, student, preset=preset, runtime=config.runtime, device=device, offline=offline)


class TeacherLabels:
    """Labels of a frozen teacher, which sees the same augmented clips, normalised its own way, nothing erased."""

    def __init__(self, teacher: Teacher, config: RunConfig) -> None:
        self.teacher = teacher
        self._top_k, self._renormalise = kept_logits(config), config.train.token_renormalise
        facts = teacher.facts
        self.sentence = f"{facts.source} on the fly, the best {self._top_k} of {facts.precision} logits"
        self.fingerprint = f"teacher {facts.weights_sha256}"

    def labels(self, batch: Batch) -> Tensor:
        """Probabilities, shape (b, t, h, w, classes), float32."""
        logits = self.teacher.token_logits(torch.from_numpy(batch.clips))
        values, indices = logits.topk(self._top_k)
        return soft_token_labels(values, indices, num_classes=logits.shape[-1], renormalise=self._renormalise)


class StoredLabels:
    """Labels that `tokenlabel write` has stored, cut, flipped and placed in time as the clips are.

    Raises:
        DualFormerError: if the folder does not belong to this list, these clips or these classes.
    """

    def __init__(self, root: str, config: RunConfig, listed: LabelledList, device: torch.device) -> None:
        self.folder, self.device = LabelFolder(root), device
        header = self.folder.read_header()
        if header is None:
            raise DualFormerError(f"there are no token labels in {root!r}; make them with dualformer tokenlabel write")
        self.header = header
        _check_fit(root, header, config, listed)
        missing = [shard for shard in range(header.num_shards) if not self.folder.has_shard(shard)]
        if missing:
            raise DualFormerError(
                f"token labels {root!r} are not complete: {len(missing)} of {header.num_shards} shards are missing; "
                "run the same tokenlabel write again, which goes on"
            )
        clip = config.data.clip
        self._interval = clip.frame_interval if clip.sampling == "interval" else None
        self._top_k, self._renormalise = kept_logits(config), config.train.token_renormalise
        self._shard = lru_cache(maxsize=_OPEN_SHARDS)(self._open_shard)
        self.sentence = f"{header.teacher.source}, stored in {root}, the best {self._top_k} logits"
        identity = json.dumps(_identity(header), sort_keys=True)
        self.fingerprint = "stored " + hashlib.sha256(identity.encode()).hexdigest()

    def labels(self, batch: Batch) -> Tensor:
        """Probabilities, shape (b, t, h, w, classes), float32; all 0 for a video that could not be labelled."""
        assert batch.indices is not None and batch.boxes is not None, "clips of a file say where they are"  # noqa: PT018
        shape = (len(batch.clips), *self.header.grid, len(self.header.class_names))
        labels = torch.zeros(shape, device=self.device)
        for place, sample in enumerate(batch.samples):
            video, records = self.video(sample)
            if video.reason is not None:
                continue
            corners = find_corners(
                video,
                records,
                indices=batch.indices[place],
                box=batch.boxes[place],
                flipped=bool(batch.flipped[place]),
                frame_interval=self._interval,
            )
            values = upload(corners.values[..., : self._top_k], self.device)
            classes = upload(corners.classes[..., : self._top_k], self.device)
            weights = upload(corners.weights, self.device)
            for weight, value, index in zip(weights, values, classes, strict=True):
                soft = soft_token_labels(value, index, num_classes=shape[-1], renormalise=self._renormalise)
                labels[place].addcmul_(weight.unsqueeze(-1), soft)
        return labels

    def video(self, index: int) -> tuple[StoredVideo, npt.NDArray[Any]]:
        """A video of the list, and the labels of its shard."""
        videos, records = self._shard(index // self.header.videos_per_shard)
        return videos[index % self.header.videos_per_shard], records

    def _open_shard(self, shard: int) -> tuple[list[StoredVideo], npt.NDArray[Any]]:
        videos, records = self.folder.read_shard(shard, self.header)
        for video in videos:
            if video.reason is not None:
                _LOGGER.warning("without token labels: %r: %s", video.path, video.reason)
        return videos, records


def kept_logits(config: RunConfig) -> int:
    """How many of a token's logits are kept."""
    return min(config.train.token_top_k, config.model.num_classes)


def _identity(header: Header) -> list[Any]:
    document = asdict(header)
    return [document["teacher"]["weights_sha256"], document["teacher"]["precision"]] + [
        document[key] for key in ("list_fingerprint", "clip", "grid", "class_names")
    ]


def _check_fit(root: str, header: Header, config: RunConfig, listed: LabelledList) -> None:
    """Refuse a folder of another list, of other clips or with fewer logits than the run takes."""
    clip, stored_clip = asdict(LabelClip.of(config.data)), asdict(header.clip)
    checks = [
        ("list", header.list_fingerprint[:12], listed.fingerprint[:12]),
        ("videos", header.num_videos, len(listed)),
        ("classes", header.class_names, tuple(listed.class_names)),
        ("token grid (time, height, width)", header.grid, token_grid(config.model, config.data)),
        *((f"clip's {key}", stored_clip[key], value) for key, value in clip.items()),
    ]
    for what, stored, wanted in checks:
        if stored != wanted:
            shown = "" if what == "classes" else f" {stored}, the run's is {wanted}"
            raise ConfigError(
                f"token labels {root!r} do not belong to this run: their {what} "
                f"{'differ' if what == 'classes' else 'is'}{shown}; "
                "write them again with the preset and the list of the run"
            )
    if header.top_k < kept_logits(config):
        raise ConfigError(
            f"train.token_top_k must be at most {header.top_k}, which is what {root!r} holds of each token, got "
            f"{config.train.token_top_k}"
        )
