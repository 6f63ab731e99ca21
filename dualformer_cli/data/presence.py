"""Which annotated videos of a dataset are on the disk, and which are missing.

Only names are read here. An annotation names a video by one or several stems, because copies are named in different
ways; a video is there when a file or a folder of frames has one of them.
"""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualformer_cli.data.catalogue import DatasetEntry
from dualformer_cli.data.inputs import VIDEO_SUFFIXES
from dualformer_cli.errors import DualFormerError
from dualformer_cli.files import atomic_path

log = logging.getLogger(__name__)

MISSING_FILE = "missing.csv"
Names = tuple[str, ...]
"""Stems that one video can have; the first is the usual one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPresence:
    """One split of a dataset, or one folder of it where the annotations are not there."""

    split: str
    annotated: int
    """Videos in the annotations, or those that the folder should have."""
    present: int
    examples: tuple[str, ...]
    """Some that are missing."""


def present_and_annotated(entry: DatasetEntry, folder: Path, videos: Path) -> list[SplitPresence]:
    """Compare the annotations with the files, and write what is missing to `missing.csv` in the dataset's folder.

    Args:
        entry: the dataset.
        folder: of the dataset, with `annotations/`.
        videos: folder of the dataset whose archives hold its videos; often the same.

    Returns:
        A row per split. Without annotations, a row per folder with videos of which the number is known.
    """
    there = _present(videos)
    if not there:
        return []
    annotated = annotated_videos(entry, folder / "annotations")
    if not annotated:
        return [
            SplitPresence(split=name, annotated=wanted, present=len(there[name]), examples=())
            for name, wanted in entry.num_videos.items()
            if name in there
        ]
    missing = {split: _missing(split, names, there) for split, names in annotated.items()}
    _write_missing(folder / MISSING_FILE, missing)
    return [
        SplitPresence(
            split=split,
            annotated=len(names),
            present=len(names) - len(missing[split]),
            examples=tuple(missing[split][:3]),
        )
        for split, names in annotated.items()
    ]


def _present(folder: Path) -> dict[str, set[str]]:
    """Return the stems of all videos, and the names of all folders of frames, by the folder that holds them."""
    skipped = {"annotations", "archives"}
    found: dict[str, set[str]] = {}
    try:
        tops = [entry for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return found
    for top in sorted(tops, key=lambda entry: entry.name):
        if top.name not in skipped and not top.name.startswith("."):
            found[top.name] = set(_stems(top.path))
    return {name: stems for name, stems in found.items() if stems}


def _stems(folder: str) -> Iterator[str]:
    """Find videos and folders of images below a folder; a folder of frames is told by its first file."""
    for at, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if names and not folders and at != folder and _suffix(names[0]) in (".jpg", ".jpeg", ".png"):
            yield os.path.basename(at)
            continue
        yield from (os.path.splitext(name)[0] for name in names if _suffix(name) in VIDEO_SUFFIXES)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _missing(split: str, videos: Iterable[Names], there: Mapping[str, set[str]]) -> list[str]:
    """Return the videos that no folder has: those of the split where folders are by split, else all of them."""
    kind = split.partition("_")[0]
    others = tuple(f"_{other}" for other in ("train", "val", "test") if other != kind)
    present = set[str]().union(*(stems for name, stems in there.items() if not name.endswith(others)))
    return [names[0] for names in videos if present.isdisjoint(names)]


def _write_missing(path: Path, missing: Mapping[str, list[str]]) -> None:
    """Write the names that are missing; a folder that cannot be written goes without."""
    try:
        if not any(missing.values()):
            path.unlink(missing_ok=True)
            return
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("split", "video"))
            writer.writerows((split, name) for split, names in missing.items() for name in names)
    except (OSError, DualFormerError) as error:
        log.warning("no %s: %s", path.name, error)


def annotated_videos(entry: DatasetEntry, annotations: Path) -> dict[str, list[Names]]:
    """Read which videos are annotated.

    Args:
        entry: the dataset, whose `annotation_format` says how.
        annotations: folder of its annotations.

    Returns:
        Videos by split; splits whose files are not there are left out. Nothing where the format is not known.
    """
    read = _READERS.get(entry.annotation_format or "")
    if read is None or not annotations.is_dir():
        return {}
    found: dict[str, list[Names]] = {}
    try:
        for split, names in read(annotations):
            found.setdefault(split, []).append(names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error, RecursionError) as error:
        log.warning("the annotations in %r cannot be read: %s", str(annotations), " ".join(str(error).split()))
        return {}
    return {split: list(dict.fromkeys(names)) for split, names in sorted(found.items(), key=_by_split)}


def _by_split(item: tuple[str, Any]) -> tuple[str, int]:
    kind, _, number = item[0].partition("_")
    return number, ("train", "val", "test").index(kind)


Found = Iterator[tuple[str, Names]]


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        yield from (line.strip() for line in file if line.strip())


def _files(folder: Path, names: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """Return the first file that is there of each split; keys are patterns, with | between alternatives."""
    for patterns, split in names.items():
        paths = (path for pattern in patterns.split("|") for path in sorted(folder.glob(pattern)))
        if path := next(paths, None):
            yield split, path


def _hmdb51(folder: Path) -> Found:
    splits = {"1": "train", "2": "val"}
    for path in sorted(folder.rglob("*_test_split[123].txt")):
        number = path.stem[-1]
        for line in _lines(path):
            name, _, flag = line.rpartition(" ")
            if flag in splits:
                yield f"{splits[flag]}_{number}", (os.path.splitext(name)[0],)


def _ucf101(folder: Path) -> Found:
    for number in "123":
        for split, path in _files(folder, {f"trainlist0{number}.txt": "train", f"testlist0{number}.txt": "val"}):
            for line in _lines(path):
                yield f"{split}_{number}", (os.path.splitext(os.path.basename(line.split(".avi")[0] + ".avi"))[0],)


def _activitynet(folder: Path) -> Found:
    splits = {"training": "train", "validation": "val", "testing": "test"}
    for _, path in _files(folder, {"*activity_net*.json|*.json": "all"}):
        for name, video in json.loads(path.read_text(encoding="utf-8"))["database"].items():
            yield splits[video["subset"]], (f"v_{name}", name)


def _kinetics(folder: Path) -> Found:
    names = {"train.csv": "train", "val.csv|validate.csv": "val", "test.csv": "test"}
    for split, path in _files(folder, names):
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                begin, end = (round(float(row[key])) for key in ("time_start", "time_end"))
                yield split, (f"{row['youtube_id']}_{begin:06d}_{end:06d}", row["youtube_id"])


def _twentybn_csv(folder: Path) -> Found:
    for split, path in _files(folder, {"*train.csv": "train", "*validation.csv": "val", "*test.csv": "test"}):
        yield from ((split, (line.partition(";")[0],)) for line in _lines(path))


def _twentybn_json(folder: Path) -> Found:
    names = {"train": "train", "validation": "val", "test": "test"}
    patterns = {f"{name}.json|*-{name}.json|labels/{name}.json": split for name, split in names.items()}
    for split, path in _files(folder, patterns):
        yield from ((split, (str(video["id"]),)) for video in json.loads(path.read_text(encoding="utf-8")))


def _diving48(folder: Path) -> Found:
    for split, path in _files(folder, {"*V2_train.json": "train", "*V2_test.json": "val"}):
        yield from ((split, (video["vid_name"],)) for video in json.loads(path.read_text(encoding="utf-8")))


def _moments(folder: Path) -> Found:
    for split, path in _files(folder, {"trainingSet*": "train", "validationSet*": "val"}):
        yield from ((split, (os.path.splitext(os.path.basename(line.split(",")[0]))[0],)) for line in _lines(path))


def _hvu(folder: Path) -> Found:
    for split, path in _files(folder, {"*Train*.csv": "train", "*Val*.csv": "val"}):
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                times = float(row["time_start"]), float(row["time_end"])
                # mmaction2 names clips in tenths of a second, HVU-Downloader in seconds.
                tenths, seconds = ("_".join(f"{int(scale * time):06d}" for time in times) for scale in (10, 1))
                yield split, (f"{row['youtube_id']}_{tenths}", f"{row['youtube_id']}_{seconds}")


_READERS: Mapping[str, Callable[[Path], Found]] = {
    "hmdb51": _hmdb51,
    "ucf101": _ucf101,
    "activitynet": _activitynet,
    "kinetics": _kinetics,
    "twentybn-csv": _twentybn_csv,
    "twentybn-json": _twentybn_json,
    "diving48": _diving48,
    "moments": _moments,
    "hvu": _hvu,
}
