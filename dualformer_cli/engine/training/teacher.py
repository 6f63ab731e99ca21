"""A frozen model that labels tokens: any size, own or published weights, outside of the model that learns from it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import reduce
from torch import Tensor

from dualformer_cli.config.load import ResolvedConfig, known_presets, load_config
from dualformer_cli.config.schema import RuntimeConfig, Size3
from dualformer_cli.data.clips.transforms import normalize
from dualformer_cli.data.datasets.catalogue import load_catalogue
from dualformer_cli.data.fetch.hugging_face import local_weights
from dualformer_cli.data.lists.matching import match_classes
from dualformer_cli.documents.tokenlabel import TeacherFacts
from dualformer_cli.engine.build import build_model, token_grid
from dualformer_cli.engine.engine import Engine
from dualformer_cli.engine.parallel.upload import upload
from dualformer_cli.engine.scoring.scorer import views_at_a_time
from dualformer_cli.engine.scoring.video_scores import Scores
from dualformer_cli.errors import ConfigError, WeightsError, nearest
from dualformer_cli.model.weights import config_of, own_key, read_checkpoint, state_dict_of
from dualformer_cli.system.words import some_of

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """What a teacher has to fit."""

    input_size: Size3
    """Clips as (frames, height, width)."""
    grid: Size3
    """Tokens of the last stage as (time, height, width)."""
    class_names: Sequence[str]


class Teacher:
    """Scores every token of a clip with its classifier, in the student's class numbers and on the student's grid.

    It is no module, so that no model can hold it as a part: it stays in eval mode whatever the student does, takes no
    gradients, and is in nobody's checkpoint.

    Args:
        source: a preset with published weights, a preset file that names weights, or a file of weights, which may be
            an address of the Hub.
        student: what the labels are for.
        preset: what a file of weights is of; None takes what the file says itself, else the preset with published
            weights of the same size and number of classes.
        runtime: where and how to compute; `device` overrides its device.
        device: of this rank.
        offline: never fetch weights.

    Raises:
        DualFormerError: if there is no such teacher, its weights do not load completely, or it does not fit.
    """

    def __init__(
        self,
        source: str,
        student: Student,
        *,
        preset: str | None = None,
        runtime: RuntimeConfig,
        device: torch.device,
        offline: bool = False,
    ) -> None:
        self.source, self.student = source, student
        self.engine = Engine(_resolve(source, preset, runtime, offline=offline), offline=offline, device=device)
        self.engine.model.requires_grad_(False)
        if self.engine.weights == "random":
            raise WeightsError(f"teacher {source!r} has random weights, which teach nothing; name trained ones")
        self._columns = self._match_classes()
        self._frames_per_token = self._match_grid()
        self._tokens = self.engine.model.forward_tokens
        if runtime.compile:
            self._tokens = torch.compile(self._tokens)
        self._batch_size = views_at_a_time(device)

    @property
    def facts(self) -> TeacherFacts:
        """What labels can be traced to."""
        engine = self.engine
        return TeacherFacts(source=self.source, weights_sha256=engine.weights_sha256, precision=engine.precision)

    @torch.no_grad()
    def token_logits(self, clips: Tensor) -> Tensor:
        """Clips, uint8 of shape (b, T, H, W, 3), to logits (b, t, h, w, classes) in float32.

        Where the student has fewer tokens in time, each is the mean of the teacher's neighbouring ones.
        """
        data, device = self.engine.config.data, self.engine.device
        parts = [clips.new_empty((0, *self.student.grid, len(self.student.class_names)), dtype=torch.float32)]
        parts[0] = parts[0].to(device)
        # All in one upload: PyTorch keeps page-locked memory only while what starts with its first byte is copied
        for part in upload(clips, device).split(self._batch_size) if len(clips) else ():
            batch = normalize(part, data.mean, data.std, self._dtype)
            logits = self.engine.model.classifier(self._tokens(batch)).float()
            if self._columns is not None:
                logits = logits[..., self._columns]
            parts.append(reduce(logits, "b (t r) h w c -> b t h w c", "mean", r=self._frames_per_token))
        return torch.cat(parts)

    def in_student_order(self, scores: Scores) -> Scores:
        """Scores of the teacher's classes, (classes,), in the student's numbering."""
        return scores if self._columns is None else scores[self._columns.cpu().numpy()]

    @property
    def _dtype(self) -> torch.dtype:
        return self.engine.model.classifier.weight.dtype

    def _match_classes(self) -> Tensor | None:
        """The teacher's class of each of the student's classes; None where they are the same."""
        names, own = self.engine.class_names, list(self.student.class_names)
        if len(names) != len(own):
            raise ConfigError(
                f"teacher {self.source!r} has {len(names)} classes, the model has {len(own)}; they must be the same: "
                "take a teacher that was trained on the classes of the list"
            )
        if _are_unnamed(names) or _are_unnamed(own):
            return None
        match = match_classes(own, names)
        if match is None:
            return None
        if not match.is_permutation:
            unknown = some_of([repr(name) for name in match.unmatched], 1)
            raise ConfigError(
                f"teacher {self.source!r} has other classes than the training list: the teacher does not know "
                f"{unknown}; take a teacher that was trained on these classes"
            )
        return torch.tensor(match.mapping, device=self.engine.device)

    def _match_grid(self) -> int:
        """How many of the teacher's tokens in time make one of the student's."""
        size, wanted = self.student.input_size, self.student.grid
        multiples = self.engine.model.size_multiples
        if any(side % multiple for side, multiple in zip(size, multiples, strict=True)):
            t, h, w = multiples
            raise ConfigError(
                f"teacher {self.source!r} takes clips whose frames are a multiple of {t}, height of {h} and width of "
                f"{w}; the model's are {size[0]} frames of {size[1]}x{size[2]}: change data.clip.num_frames and "
                "data.crop_size, or take another teacher"
            )
        grid = token_grid(self.engine.config.model, self.engine.config.data, size)
        if grid[1:] != wanted[1:] or grid[0] % wanted[0]:
            raise ConfigError(
                f"teacher {self.source!r} has a token grid of {_times(grid)}, the model of {_times(wanted)} (time x "
                "height x width); height and width must be equal, and the teacher's time a multiple of the model's"
            )
        return grid[0] // wanted[0]


def _resolve(source: str, preset: str | None, runtime: RuntimeConfig, *, offline: bool) -> ResolvedConfig:
    """The configuration of a teacher, with its weights in it."""
    flags: dict[str, object] = {
        "runtime.precision": runtime.precision,
        "runtime.device": runtime.device,
        "runtime.seed": runtime.seed,
    }
    if source in load_catalogue().weights:
        return load_config(source, flags={**flags, "weights": "published"}, environ={})
    if source.endswith((".yaml", ".yml")):
        resolved = load_config(source, flags=flags, environ={})
        if resolved.config.weights is None:
            raise ConfigError(f"teacher {source!r} is a preset without weights; name them in it, as weights: FILE")
        return resolved
    path = local_weights(source, offline=offline)
    if not path.exists():
        published = load_catalogue().weights
        raise WeightsError(
            f"teacher {source!r} is neither a file nor a preset with published weights{nearest(source, published)} "
            f"(presets: {', '.join(published)})"
        )
    flags["weights"] = source
    checkpoint = read_checkpoint(path, mapped=True)
    if preset is not None:
        return load_config(preset, flags=flags, environ={})
    text = config_of(checkpoint)
    if text is not None:
        return load_config(source, text=text, flags=flags, environ={})
    return load_config(_preset_of(checkpoint, source), flags=flags, environ={})


def _preset_of(checkpoint: Mapping[str, Any], source: str) -> str:
    """The preset with published weights whose tensors have the shapes of these."""
    tensors = {own_key(key): value for key, value in state_dict_of(checkpoint, repr(source)).items()}
    shapes = {key: tuple(value.shape) for key, value in tensors.items() if not key.startswith("token_head.")}
    if not any(key.startswith(("stages.", "classifier.")) for key in shapes):
        raise WeightsError(f"teacher {source!r} holds no tensors of a DualFormer ({', '.join(list(shapes)[:3])}, ...)")
    for name in load_catalogue().weights:
        if name not in known_presets():
            continue
        with torch.device("meta"):
            config = load_config(name, environ={}).config
            model = build_model(config.model, config.data)
        if {key: tuple(value.shape) for key, value in model.state_dict().items()} == shapes:
            _LOGGER.warning("teacher %r has the tensors of %s; its normalisation and classes are taken", source, name)
            return name
    raise WeightsError(
        f"teacher {source!r} does not say what it is of, and no preset with published weights has its tensors; "
        "name its preset with --set train.teacher_preset=FILE.yaml"
    )


def _are_unnamed(names: Sequence[str]) -> bool:
    """Whether nobody has named the classes."""
    return list(names) == [f"class {index}" for index in range(len(names))]


def _times(grid: Size3) -> str:
    return "x".join(map(str, grid))
