"""A data set of camera motion on disk: rendered H.264 files, and a list of each split.

Clip `n` of a split follows from the seed, the split and `n` alone, so that a run that was stopped goes on where it was,
and a larger data set begins with the clips of a smaller one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import av
import numpy as np
from av.video.reformatter import Colorspace

from dualformer_cli.data.camera_motion.classes import CLASSES
from dualformer_cli.data.camera_motion.pictures import PictureSource, Pixels, find_pictures, photographs, read_picture
from dualformer_cli.data.camera_motion.render import render_clip
from dualformer_cli.data.lists.manifest import Manifest, write_manifest
from dualformer_cli.data.lists.samples import Sample
from dualformer_cli.documents.base import JsonObject, to_json
from dualformer_cli.documents.render import RenderEstimate, RenderSettings, RenderSummary
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.files import atomic_path
from dualformer_cli.system.output_checks import check_outputs
from dualformer_cli.system.words import os_reason
from dualformer_cli.system.workers import WorkerPool
from dualformer_cli.video.writer import QUICK_TO_READ, open_mp4

SPLITS = {"train": 0.8, "val": 0.1, "test": 0.1}
"""Names of the lists, and the share of the clips that each gets."""
RENDERER = 2
"""Goes up when the same seed no longer gives the same clips."""
PHOTOGRAPHS = "scikit-image"
"""Name that stands for the photographs of that package in place of a folder."""

_SIZES = ((96, 128), (112, 112), (120, 160), (90, 160), (160, 90), (144, 192), (108, 192), (128, 128))
"""(height, width) of the clips."""
_FPS = (24, 25, 30)
_CRF = (16, 36)
_DRAWN = 100_000  # so many that hardly a picture turns up twice
_SIDE = 320
_SAMPLE = 10
_SUMMARY, _CLASSES = "camera-motion.json", "classes.txt"
_TIMEOUT_SECONDS = 120.0
_CLIP_NAME = re.compile(rf"[0-9]{{6,}}-({'|'.join(name.replace(' ', '-') for name in CLASSES)})\.mp4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What decides the content of every clip."""

    seed: int = 0
    num_frames: int = 32
    """Frames of a clip; its motion takes up all of them."""
    difficulty: float = 1.0
    """0 for large, clean motion over bold pictures, 1 for all that is in the way of seeing it."""
    busy: float = 0.0
    """Share of the clips in which much moves before the camera; the others do not depend on it."""
    pictures: tuple[str, ...] = ()
    """Picture files to move over besides drawn pictures; each belongs to one split."""

    def __post_init__(self) -> None:
        if self.num_frames < 2:
            raise DualFormerError(f"a clip needs at least 2 frames to show motion, got {self.num_frames}")
        if not 0 <= self.difficulty <= 1:
            raise DualFormerError(f"difficulty must be 0 to 1, got {self.difficulty:g}")
        if not 0 <= self.busy <= 1:
            raise DualFormerError(f"busy must be 0 to 1, got {self.busy:g}")
        if not 0 <= self.seed < 2**32:
            raise DualFormerError(f"seed must be at least 0 and below 2**32, got {self.seed}")

    def fingerprint(self) -> RenderSettings:
        """Return what two runs must have in common to render the same clips."""
        digest = hashlib.sha256()
        for path in self.pictures:
            digest.update(f"{os.path.basename(path)}\0{os.path.getsize(path)}\n".encode("utf-8", "surrogateescape"))
        return RenderSettings(
            renderer=RENDERER,
            seed=self.seed,
            num_frames=self.num_frames,
            difficulty=self.difficulty,
            busy=self.busy,
            num_pictures=len(self.pictures),
            pictures=digest.hexdigest(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One clip to render."""

    split: str
    number: int
    """Within the split, from 0."""

    @property
    def label(self) -> int:
        """Return the class; the classes take turns."""
        return self.number % len(CLASSES)

    @property
    def name(self) -> str:
        """Return the path of the file below the dataset's folder."""
        return f"{self.split}/{self.number:06d}-{CLASSES[self.label].replace(' ', '-')}.mp4"

    def seeds(self, settings: Settings) -> list[int]:
        """Return numbers that no other clip has."""
        return [settings.seed, list(SPLITS).index(self.split), self.number]

    def describe(self, settings: Settings) -> tuple[Sample, int]:
        """Return the clip's row of the list, and the constant rate factor that it is compressed with."""
        rng = np.random.default_rng([*self.seeds(settings), 1])
        height, width = _SIZES[int(rng.integers(len(_SIZES)))]
        fps = _FPS[int(rng.integers(len(_FPS)))]
        crf = round(_CRF[0] + settings.difficulty * (_CRF[1] - _CRF[0]) * rng.random())
        sample = Sample(
            self.name,
            self.label,
            (self.label,),
            num_frames=settings.num_frames,
            fps=float(fps),
            width=width,
            height=height,
            duration_seconds=round(settings.num_frames / fps, 3),
        )
        return sample, crf


def find_sources(names: Sequence[str]) -> tuple[str, ...]:
    """Return the usable picture files of folders, or of the package that PHOTOGRAPHS names, sorted by folder.

    Raises:
        DualFormerError: if a folder is missing or has no picture that can be read, or the package is not installed.
    """
    found: list[str] = []
    for name in names:
        paths = photographs() if name == PHOTOGRAPHS else find_pictures(Path(name))
        usable = [str(path) for path in paths if _is_readable(path)]
        if not usable:
            raise DualFormerError(f"none of the {len(paths)} pictures in {name!r} can be read")
        found += usable
    return tuple(dict.fromkeys(found))


def _is_readable(path: Path) -> bool:
    try:
        read_picture(path, longest=64)
    except DualFormerError:
        return False
    return True


def plan(count: int) -> list[Job]:
    """List the clips of a data set of this size.

    Raises:
        DualFormerError: if the smallest split would have less than one clip of each class.
    """
    least = round(len(CLASSES) / min(SPLITS.values()))
    if count < least:
        raise DualFormerError(f"{count} clips are too few for every split to have each class; ask for {least} or more")
    held_out = {split: round(count * share) for split, share in SPLITS.items() if split != "train"}
    sizes = {"train": count - sum(held_out.values()), **held_out}
    return [Job(split=split, number=number) for split, size in sizes.items() for number in range(size)]


def estimate(
    root: Path, settings: Settings, count: int, *, num_workers: int, overwrite: bool = False
) -> RenderEstimate:
    """Render a few clips into a folder that is deleted, and return what `render_all` would need.

    Raises:
        DualFormerError: as `render_all`.
    """
    jobs = plan(count)
    _check(root, settings, overwrite=overwrite)
    missing = [job for job in jobs if overwrite or not (root / job.name).exists()]
    num_bytes, started = 0, perf_counter()
    tried = jobs[:_SAMPLE]
    with TemporaryDirectory(prefix="dualformer-") as folder:
        for job in tried:
            Path(folder, job.split).mkdir(exist_ok=True)
            num_bytes += render_file(job, Path(folder), settings)
    seconds = perf_counter() - started
    share = len(missing) / len(tried)
    return RenderEstimate(
        root=str(root),
        clips=_count(jobs),
        missing=len(missing),
        num_bytes=round(num_bytes * share),
        seconds=round(seconds * share / num_workers, 1),
    )


def render_all(
    root: Path,
    settings: Settings,
    count: int,
    *,
    num_workers: int,
    overwrite: bool = False,
    on_clip: Callable[[str], None] = lambda name: None,
) -> RenderSummary:
    """Render a data set: ROOT/{train,val,test}/*.mp4, a manifest of each, classes.txt and camera-motion.json.

    Clips that are there are kept, if they were rendered with the same settings.

    Args:
        root: folder of the data set; it is made.
        settings: what decides the clips.
        count: clips of all splits together.
        num_workers: processes that render.
        overwrite: render all anew, and with other settings.
        on_clip: told the name of each clip that was rendered.

    Raises:
        DualFormerError: if the folder has clips of other settings, or a clip cannot be rendered or written.
    """
    jobs = plan(count)
    _check(root, settings, overwrite=overwrite)
    _claim(root, settings)
    if overwrite:
        (root / _CLASSES).unlink(missing_ok=True)  # one with other classes would be refused once all is rendered
    missing = [job for job in jobs if overwrite or not (root / job.name).exists()]
    with WorkerPool(num_workers, _TIMEOUT_SECONDS, preload=[__name__]) as pool:
        render = partial(render_file, root=root, settings=settings)
        for outcome in pool.imap(render, missing, ahead=4 * num_workers):
            outcome.result()
            on_clip(outcome.item.name)
    lists = {split: str(root / f"{split}.csv") for split in SPLITS}
    for split, path in lists.items():
        samples = [job.describe(settings)[0] for job in jobs if job.split == split]
        write_manifest(Manifest(samples=samples, class_names=list(CLASSES), source=path, root=str(root)), path)
    summary = RenderSummary(
        root=str(root),
        lists=lists,
        clips=_count(jobs),
        classes=CLASSES,
        rendered=len(missing),
        num_bytes=sum((root / job.name).stat().st_size for job in jobs),
        num_pictures=len(settings.pictures),
        settings=settings.fingerprint(),
    )
    _write_json(root / _SUMMARY, to_json(summary))
    for split in SPLITS:
        for leftover in (root / split).glob(".*.part.mp4"):  # of a run that was killed
            leftover.unlink(missing_ok=True)
    return summary


def render_file(job: Job, root: Path, settings: Settings) -> int:
    """Render one clip into its file and return its bytes; runs in a worker process.

    Raises:
        DualFormerError: if a picture cannot be read, or the file cannot be written.
    """
    sample, crf = job.describe(settings)
    assert sample.height is not None
    assert sample.width is not None
    assert sample.fps is not None
    clip = render_clip(
        job.seeds(settings),
        num_frames=settings.num_frames,
        size=(sample.height, sample.width),
        pictures=_stock(job.split, settings),
        label=job.label,
        difficulty=settings.difficulty,
        busy=settings.busy,
    )
    target = root / job.name
    try:
        with atomic_path(target) as temporary:
            write_h264(temporary, clip.frames, fps=Fraction(round(sample.fps)), crf=crf)
        return target.stat().st_size
    except (OSError, av.error.FFmpegError) as error:
        raise DualFormerError(f"cannot write {str(target)!r}: {os_reason(error)}") from error


def write_h264(path: Path, frames: Pixels, *, fps: Fraction, crf: int) -> None:
    """Encode frames as an MP4 that is quick to read: H.264, yuv420p, a key frame every 16.

    Args:
        path: of the file.
        frames: uint8, shape (T, H, W, 3), with even sides.
        fps: frames per second.
        crf: constant rate factor; less is better.

    Raises:
        av.error.FFmpegError: if it cannot be written.
    """
    height, width = frames.shape[1:3]
    options = {**QUICK_TO_READ, "crf": str(crf)}
    with open_mp4(path, width=width, height=height, rate=fps, options=options, matrix=Colorspace.ITU601) as writer:
        for number, frame in enumerate(frames):
            writer.write_rgb(frame, number)


@lru_cache(maxsize=4)
def _stock(split: str, settings: Settings) -> PictureSource:
    """Return the pictures of one split; no picture is in two."""
    seed = int(np.random.SeedSequence([settings.seed, list(SPLITS).index(split), 2]).generate_state(1)[0])
    files = share_out(settings.pictures, settings.seed)[split]
    return PictureSource(seed=seed, num_drawn=_DRAWN, side=_SIDE, files=files, max_kept=256)


def share_out(pictures: Sequence[str], seed: int) -> dict[str, list[Path]]:
    """Give each picture file to one split; with three or more every split gets one."""
    order = np.random.default_rng([seed, 3]).permutation(len(pictures))
    num_held_out = {
        split: max(round(len(pictures) * share), min(1, len(pictures) // 3))
        for split, share in SPLITS.items()
        if split != "train"
    }
    shared, start = {}, 0
    for split, num in num_held_out.items():
        shared[split] = [Path(pictures[i]) for i in sorted(order[start : start + num])]
        start += num
    return {"train": [Path(pictures[i]) for i in sorted(order[start:])], **shared}


def _check(root: Path, settings: Settings, *, overwrite: bool) -> None:
    """Refuse a folder whose clips a run with these settings would mix with others, or with files of others.

    Raises:
        DualFormerError: naming what differs, or a list that could not be written in the end.
    """
    lists = [root / name for name in (_SUMMARY, _CLASSES, *(f"{split}.csv" for split in SPLITS))]
    if root.exists():
        check_outputs(lists, [], overwrite=True)
    if overwrite:
        return
    there, wanted = _read_settings(root / _SUMMARY), to_json(settings.fingerprint())
    if there is None and (any(map(os.path.lexists, lists)) or any(any((root / split).glob("*")) for split in SPLITS)):
        raise DualFormerError(
            f"{str(root)!r} has files that were not rendered by this command; name another folder, "
            "or write among them with --overwrite"
        )
    if there is not None and there != wanted:
        changed = ", ".join(
            f"{key} {there.get(key)}, not {wanted[key]}" for key in wanted if wanted[key] != there.get(key)
        )
        raise DualFormerError(
            f"{str(root)!r} has clips of other settings ({changed}); name another folder, "
            "or render anew with --overwrite"
        )


def _claim(root: Path, settings: Settings) -> None:
    """Write the settings into the folder, which is made; clips of others are deleted, lest a stopped run mixes them.

    Raises:
        DualFormerError: if the folder cannot be made or written.
    """
    try:
        for split in SPLITS:
            (root / split).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DualFormerError(f"cannot make folder {str(root)!r}: {os_reason(error)}") from error
    wanted = to_json(settings.fingerprint())
    if _read_settings(root / _SUMMARY) != wanted:
        for path in (path for split in SPLITS for path in (root / split).glob("[0-9]*-*.mp4")):
            if _CLIP_NAME.fullmatch(path.name):
                path.unlink()
        _write_json(root / _SUMMARY, {"settings": wanted})


def _read_settings(path: Path) -> JsonObject | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = document.get("settings") if isinstance(document, dict) else None
    return {"busy": 0.0, **found} if isinstance(found, dict) else None  # older folders do not name it


def _write_json(path: Path, document: JsonObject) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _count(jobs: Sequence[Job]) -> dict[str, int]:
    return {split: sum(job.split == split for job in jobs) for split in SPLITS}
