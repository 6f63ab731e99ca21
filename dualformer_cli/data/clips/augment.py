"""Training clips: random frames, crops and flips of a video, and mixing within a batch.

`read_training_clips` runs in a worker process: plan and result are plain picklable data. Every random choice comes
from the seed or the generator that is passed in, so a clip depends on neither order nor process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
import torch.nn.functional as F
from PIL import ImageEnhance, ImageOps
from torch import Tensor

from dualformer_cli.config.schema import Decoder
from dualformer_cli.data.camera_motion.rendering import RenderPlan
from dualformer_cli.data.clips import sampling
from dualformer_cli.data.clips.sampling import Indices
from dualformer_cli.data.clips.transforms import ANTIALIAS_ABOVE, Box, Frames, resize_and_cut, resized_size
from dualformer_cli.data.clips.views import check_video, part_length
from dualformer_cli.video.open import open_video
from dualformer_cli.video.reader import FileIndex, VideoInfo

Pairs = tuple[tuple[int, int], ...]
Flags = npt.NDArray[np.bool_]
Fractions = npt.NDArray[np.float64]

CROP_TRIES = 10
"""Sizes drawn for a crop before the largest central one is taken."""
ERASED_AREA = (0.02, 1 / 3)
"""Range of an erased box's share of the frame."""
ERASED_ASPECT = (0.3, 1 / 0.3)
"""Range of an erased box's width over height."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainPlan:
    """How each video is opened and cut into random clips; the configuration's sections explain the values."""

    num_frames: int
    frame_interval: int
    sampling: Literal["interval", "segments"]
    short_side: int
    crop_size: int
    area: tuple[float, float]
    aspect: tuple[float, float]
    flip: float
    antialias: bool
    min_frames: int
    decoder: Decoder
    frame_rate: float | None
    rand_augment_ops: int
    rand_augment_magnitude: float
    repeats: int
    """Clips taken from a video each time it is opened: so many seeds are given."""
    flip_labels: Pairs
    """Classes that are swapped in the label of a flipped clip, for `swap_flipped_labels`."""
    frame_name: str | None = None
    render: RenderPlan | None = None
    """How clips are rendered, where there are no videos; of the rest of the plan only sizes and repeats count then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingClips:
    """Random clips of one video."""

    info: VideoInfo
    clips: Frames
    """uint8, shape (repeats, num_frames, crop_size, crop_size, 3)."""
    flipped: Flags
    """Which clips are mirrored, shape (repeats,)."""
    indices: Indices
    """Frame numbers of the clips in the video, shape (repeats, num_frames)."""
    boxes: Fractions
    """Crops as shares of the frame, (x, y, width, height), shape (repeats, 4)."""
    decode_seconds: float
    """Time spent to open the video and decode its frames."""
    preprocess_seconds: float
    """Time spent to turn the frames into clips."""
    warnings: tuple[str, ...]
    """What was wrong with the video without making it unusable."""
    index: FileIndex | None
    """What the next reader of the file need not find out again; None if the one given was right, or there is none."""


def read_training_clips(
    path: str,
    plan: TrainPlan,
    seeds: Sequence[Sequence[int]],
    *,
    start: int = 0,
    num_frames: int | None = None,
    index: FileIndex | None = None,
) -> TrainingClips:
    """Read random clips of one video, opened once.

    Args:
        path: a video file or a folder of numbered frames.
        plan: how the clips are drawn.
        seeds: one seed per clip, as `np.random.default_rng` takes it; it decides all that is random about the clip.
        start: first frame of the part of the video that may be used.
        num_frames: frames of that part; None is the rest of the video, and so are more than it has.
        index: of the file, from an earlier result; it may be outdated.

    Raises:
        VideoError: if the video cannot be read, or is too long for its width.
        TooShortError: if it, or the part of it, has fewer frames than the plan asks for.
        ValueError: if there are no seeds.
    """
    started = perf_counter()
    with open_video(
        path, decoder=plan.decoder, frame_rate=plan.frame_rate, frame_name=plan.frame_name, index=index
    ) as reader:
        info = reader.info
        available = part_length(info, start, num_frames)
        check_video(info, available, min_frames=plan.min_frames)
        size = resized_size(info.height, info.width, plan.short_side)
        draws = [_draw(available, size, plan, np.random.default_rng(seed)) for seed in seeds]
        indices = start + np.stack([draw.indices for draw in draws])
        resize = _ResizeAndCut(size, _around([draw.box for draw in draws]), antialias=plan.antialias)
        frames = reader.read(indices.ravel().tolist(), resize)
        warnings = tuple(dict.fromkeys((*info.warnings, *reader.warnings)))
    decoded = perf_counter()
    stacks = frames.reshape(*indices.shape, *frames.shape[1:])
    finished = [_finish(stack, resize.kept, draw, plan) for stack, draw in zip(stacks, draws, strict=True)]
    clips = np.stack(finished) if len(finished) > 1 else finished[0][None]
    return TrainingClips(
        info=info,
        clips=clips,
        flipped=np.array([draw.is_flipped for draw in draws]),
        indices=indices,
        boxes=np.array([draw.box for draw in draws]) / (size[1], size[0], size[1], size[0]),
        decode_seconds=decoded - started - resize.seconds,
        preprocess_seconds=perf_counter() - decoded + resize.seconds,
        warnings=warnings,
        index=None if reader.index is index else reader.index,
    )


def random_resized_crop(
    height: int, width: int, *, area: tuple[float, float], aspect: tuple[float, float], rng: np.random.Generator
) -> Box:
    """Draw a crop by its share of the frame, evenly, and its width over height, evenly in the logarithm.

    A size that the frame cannot hold is drawn again, CROP_TRIES times in all; after that the crop is the largest
    central one whose width over height lies in the range.
    """
    areas = rng.uniform(*area, size=CROP_TRIES) * height * width
    aspects = np.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1]), size=CROP_TRIES))
    widths, heights = np.rint(np.sqrt(areas * aspects)), np.rint(np.sqrt(areas / aspects))
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    if fits.any():
        chosen = int(fits.argmax())
        w, h = int(widths[chosen]), int(heights[chosen])
        return Box(int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h)
    w = max(1, min(width, round(height * aspect[1])))
    h = max(1, min(height, round(width / aspect[0])))
    return Box((width - w) // 2, (height - h) // 2, w, h)


class _Draw(NamedTuple):
    """What is random about one clip."""

    indices: Indices
    """Counted from the start of the usable part."""
    box: Box
    """The crop, in the frame resized to the short side."""
    is_flipped: bool
    rng: np.random.Generator
    """For RandAugment."""


def _draw(video_frames: int, size: tuple[int, int], plan: TrainPlan, rng: np.random.Generator) -> _Draw:
    if plan.sampling == "segments":
        indices = sampling.segment_clip(video_frames, num_frames=plan.num_frames, rng=rng)
    else:
        indices = sampling.random_clip(
            video_frames, num_frames=plan.num_frames, frame_interval=plan.frame_interval, rng=rng
        )
    box = random_resized_crop(*size, area=plan.area, aspect=plan.aspect, rng=rng)
    return _Draw(indices, box, bool(rng.random() < plan.flip), rng)


def _around(boxes: Sequence[Box]) -> Box:
    """Return the smallest box that holds all of these."""
    x, y = min(box.x for box in boxes), min(box.y for box in boxes)
    right, bottom = max(box.x + box.width for box in boxes), max(box.y + box.height for box in boxes)
    return Box(x, y, right - x, bottom - y)


class _ResizeAndCut:
    """Resizes a frame straight after decoding, keeps what the clips show of it, and adds up the time this takes."""

    def __init__(self, size: tuple[int, int], kept: Box, *, antialias: bool) -> None:
        self.size, self.kept, self.antialias = size, kept, antialias
        self.seconds = 0.0

    def __call__(self, frame: Frames) -> Frames:
        started = perf_counter()
        cut = resize_and_cut(frame, self.size, self.kept, antialias=self.antialias)
        self.seconds += perf_counter() - started
        return cut


def _finish(frames: Frames, kept: Box, draw: _Draw, plan: TrainPlan) -> Frames:
    """Turn frames cut to `kept` into the clip: crop, resize, flip, RandAugment."""
    rows, columns = draw.box._replace(x=draw.box.x - kept.x, y=draw.box.y - kept.y).window
    clip = resize_clip(frames[:, rows, columns], plan.crop_size, antialias=plan.antialias, flip=draw.is_flipped)
    if plan.rand_augment_ops:
        return rand_augment(clip, plan.rand_augment_ops, plan.rand_augment_magnitude, draw.rng)
    return clip


def resize_clip(frames: Frames, size: int, *, antialias: bool, flip: bool) -> Frames:
    """Resize frames to squares, as `resize_frame` does each, and mirror them if `flip`.

    Args:
        frames: shape (T, H, W, 3).
        size: height and width of the result.
        antialias: whether to antialias if a side shrinks by more than ANTIALIAS_ABOVE.
        flip: whether to swap left and right.
    """
    antialias = antialias and max(frames.shape[1:3]) / size > ANTIALIAS_ABOVE
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    resized = F.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False, antialias=antialias)
    if flip:
        resized = resized.flip(-1)  # in torch, which knows channels-last: numpy's reversed copy takes 8 times as long
    return np.asarray(resized.permute(0, 2, 3, 1).numpy())


Picture = PIL.Image.Image
ClipOp = Callable[[Picture, float], Picture]
"""Changes a picture by a strength between -1 and 1; those that have no sign take the absolute value."""

_FILL = (124, 116, 104)
"""What a shifted frame uncovers: ImageNet's mean, which normalisation turns into nearly 0."""


def _affine(coefficients: Callable[[float, int], tuple[float, ...]]) -> ClipOp:
    """Make an op that takes the pixel (x, y) from (a x + b y + c, d x + e y + f), counted from the centre."""

    def apply(picture: Picture, strength: float) -> Picture:
        width, height = picture.size
        a, b, c, d, e, f = coefficients(strength, width)
        # Pillow counts from the corner, and puts a pixel's centre half a pixel from its edges.
        x, y = width / 2, height / 2
        centred = (a, b, c + x - a * x - b * y, d, e, f + y - d * x - e * y)
        # Bilinear takes six times as long, which is more than decoding the clip.
        return picture.transform(
            picture.size, PIL.Image.Transform.AFFINE, centred, PIL.Image.Resampling.NEAREST, fillcolor=_FILL
        )

    return apply


def _rotation(strength: float, width: int) -> tuple[float, ...]:
    angle = math.radians(30 * strength)
    return (math.cos(angle), math.sin(angle), 0.0, -math.sin(angle), math.cos(angle), 0.0)


_STILL_OPS: tuple[ClipOp, ...] = (
    lambda picture, strength: picture,
    lambda picture, strength: ImageOps.autocontrast(picture),
    lambda picture, strength: ImageOps.equalize(picture),
    lambda picture, strength: ImageOps.posterize(picture, 8 - round(4 * abs(strength))),
    lambda picture, strength: ImageOps.solarize(picture, 256 - round(256 * abs(strength))),
    lambda picture, strength: ImageEnhance.Color(picture).enhance(1 + 0.9 * strength),
    lambda picture, strength: ImageEnhance.Contrast(picture).enhance(1 + 0.9 * strength),
    lambda picture, strength: ImageEnhance.Brightness(picture).enhance(1 + 0.9 * strength),
)
"""Ops that look at one pixel, or at the histogram. They are done on all frames as one picture, so that frames keep
their brightness relative to each other: a histogram per frame would make the clip flicker."""

_FRAME_OPS: tuple[ClipOp, ...] = (
    lambda picture, strength: ImageEnhance.Sharpness(picture).enhance(1 + 0.9 * strength),
    _affine(_rotation),
    _affine(lambda strength, width: (1, 0.3 * strength, 0, 0, 1, 0)),
    _affine(lambda strength, width: (1, 0, 0, 0.3 * strength, 1, 0)),
    _affine(lambda strength, width: (1, 0, 0.45 * strength * width, 0, 1, 0)),
    _affine(lambda strength, width: (1, 0, 0, 0, 1, 0.45 * strength * width)),
)
"""Ops that move pixels: sharpness, rotation, shear along x and y, translation along x and y."""


def rand_augment(clip: Frames, num_ops: int, magnitude: float, rng: np.random.Generator) -> Frames:
    """Change a clip by random ops of RandAugment's fourteen, one of which does nothing; the same for all frames.

    The ops are Pillow's, which is here anyway. timm's RandAugment draws from the process's global generators and anew
    for each image, so neither one seed nor one draw per clip could be had from it.

    Args:
        clip: uint8, shape (T, S, S, 3).
        num_ops: ops done one after the other.
        magnitude: their strength, 0 to 10; at 10 they rotate by 30 degrees, shear by 0.3, shift by 0.45 of the side,
            and change brightness by 90 percent. Which way is random.
        rng: draws ops and directions.
    """
    for _ in range(num_ops):
        op = int(rng.integers(len(_STILL_OPS) + len(_FRAME_OPS)))
        strength = magnitude / 10 * (1 if rng.random() < 0.5 else -1)
        if op < len(_STILL_OPS):
            tall = PIL.Image.fromarray(clip.reshape(-1, *clip.shape[2:]))
            clip = np.asarray(_STILL_OPS[op](tall, strength)).reshape(clip.shape)
        else:
            change = _FRAME_OPS[op - len(_STILL_OPS)]
            clip = np.stack([np.asarray(change(PIL.Image.fromarray(frame), strength)) for frame in clip])
    return clip


def swap_flipped_labels(labels: Sequence[Sequence[int]], flipped: Flags, pairs: Pairs) -> list[tuple[int, ...]]:
    """Exchange the classes of each pair in the labels of flipped clips.

    Args:
        labels: the classes of each clip, as `Sample.labels` has them.
        flipped: which clips are mirrored, one per clip.
        pairs: classes that a mirror turns into each other.
    """
    mirrored = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    return [
        tuple(mirrored.get(label, label) for label in of_clip) if is_flipped else tuple(of_clip)
        for of_clip, is_flipped in zip(labels, flipped, strict=True)
    ]


def one_hot(labels: Sequence[Sequence[int]], num_classes: int, smoothing: float = 0.0) -> Tensor:
    """Turn labels into targets: 1 for each class of a clip, of which `smoothing` is spread over all classes.

    Args:
        labels: the classes of each clip, as `Sample.labels` has them; one each, or several for multi-label.
        num_classes: of the model.
        smoothing: share, 0 to 1.

    Returns:
        float32, shape (b, num_classes). A row with one label sums to 1.

    Raises:
        ValueError: if a label is not a class.
    """
    targets = torch.full((len(labels), num_classes), smoothing / num_classes)
    for row, of_clip in zip(targets, labels, strict=True):
        for label in of_clip:
            if not 0 <= label < num_classes:
                raise ValueError(f"label {label} is not one of the {num_classes} classes")
        row[list(of_clip)] += 1 - smoothing
    return targets


def mix_batch(
    clips: Tensor, targets: Tensor, *, mixup_alpha: float, cutmix_alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mix each clip of a batch with another one by mixup or cutmix, and their targets alike.

    The partners of a batch are the same clips, moved on by a random number of places, so that none meets itself.
    When both are on, each batch takes one of them, evenly. A single clip has no partner and stays as it is.

    Args:
        clips: floating point, shape (b, 3, T, H, W).
        targets: shape (b, classes).
        mixup_alpha: the share of the partner follows Beta(alpha, alpha); 0 turns mixup off.
        cutmix_alpha: so does the share of the frame that shows the partner, the same box in all frames; 0 is off.
        rng: draws everything that is random.

    Returns:
        New clips in the memory layout of the given ones, and targets; when nothing is mixed, the given ones.
    """
    num_clips = len(clips)
    if num_clips < 2 or not (mixup_alpha or cutmix_alpha):
        return clips, targets
    is_mixup = rng.random() < 0.5 if mixup_alpha and cutmix_alpha else bool(mixup_alpha)
    alpha = mixup_alpha if is_mixup else cutmix_alpha
    share, shift = float(rng.beta(alpha, alpha)), int(rng.integers(1, num_clips))
    if is_mixup:
        mixed = clips.lerp(_partners(clips, shift), share)
    else:
        height, width = clips.shape[3:]
        box = _centred_box(height, width, share, rng)
        rows, columns = box.window
        mixed = clips.clone()
        mixed[..., rows, columns] = _partners(clips[..., rows, columns], shift)
        share = box.width * box.height / (height * width)
    return mixed, targets.lerp(_partners(targets, shift), share)


def _partners(batch: Tensor, shift: int) -> Tensor:
    return torch.cat([batch[-shift:], batch[:-shift]])


def _centred_box(height: int, width: int, share: float, rng: np.random.Generator) -> Box:
    """Draw a box of this share and of the frame's shape by its centre, and cut off what lies outside of the frame."""
    half_height, half_width = (round(math.sqrt(share) * side / 2) for side in (height, width))
    y, x = int(rng.integers(height)), int(rng.integers(width))
    top, left = max(0, y - half_height), max(0, x - half_width)
    bottom, right = min(height, y + half_height), min(width, x + half_width)
    return Box(left, top, right - left, bottom - top)


def random_erasing(clips: Tensor, probability: float, rng: np.random.Generator) -> Tensor:
    """Erase a random box, the same in all frames, from some of the clips.

    What is erased becomes 0, the mean colour however the clips were normalised.

    Args:
        clips: normalised, shape (b, 3, T, H, W).
        probability: of erasing, for each clip.
        rng: draws which clips and boxes.

    Returns:
        New clips in the memory layout of the given ones; when nothing is erased, the given ones.
    """
    chosen = np.flatnonzero(rng.random(len(clips)) < probability)
    if not len(chosen):
        return clips
    height, width = clips.shape[3:]
    erased = clips.clone()
    for clip in chosen:
        rows, columns = random_resized_crop(height, width, area=ERASED_AREA, aspect=ERASED_ASPECT, rng=rng).window
        erased[int(clip), ..., rows, columns] = 0
    return erased
