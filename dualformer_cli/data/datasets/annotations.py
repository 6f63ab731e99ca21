"""What the annotations of a dataset say, whatever their format: which videos there are, and of which classes.

One function per format; `presence` counts with them and `datasets` makes lists of them. Copies of a dataset differ in
how files are named, so a video has one or several names (stems), and the folder of its class where its names need it.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from dualformer_cli.errors import DualFormerError
from dualformer_cli.video.inputs import VIDEO_SUFFIXES

Names = tuple[str, ...]
"""Stems that one video can have; the first is the usual one."""

_OWN_INDEX = "classes.txt"
_SECOND_COLUMN = re.compile(rf"(.+?\.(?:{'|'.join(suffix[1:] for suffix in sorted(VIDEO_SUFFIXES))})),(.*)", re.I)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a video with a label of its own."""

    start_seconds: float
    end_seconds: float
    label: str
    problem: str = ""
    """Why it cannot be used; empty if it can."""
    ends_beyond: bool = False
    """Whether it ends beyond the end of its video, so that less of it is there."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """What is said of one video."""

    split: str
    """train, val or test; or such a word, "_" and which of several: train_2."""
    names: Names
    labels: tuple[str | int, ...] = ()
    """Names of its classes, or their numbers; () if it is not labelled."""
    where: str = ""
    """File and line, for messages."""
    folder: str = ""
    """Folder that the video is in, or its last levels, where its names do not tell it from others; "" for any."""
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class ClassIndex:
    """The classes as the annotations number them."""

    path: str
    """File that says it."""
    groups: dict[str, list[str]]
    """Names of each group of classes; one group called "" where there are no groups."""


Found = Iterator[Annotation]


def read_annotations(annotation_format: str, folder: Path) -> list[Annotation]:
    """Read all annotations of a dataset, in the order of their files.

    Args:
        annotation_format: as the catalogue has it.
        folder: where they lie.

    Returns:
        Nothing for splits whose files are not there.

    Raises:
        DualFormerError: if a file cannot be read or is something else; it names file, line and what was expected.
    """
    return list(_READERS[annotation_format](folder)) if folder.is_dir() else []


def read_class_index(annotation_format: str, folder: Path) -> ClassIndex | None:
    """Read the class index that came with a dataset, or a classes.txt that the user has put there, which comes first.

    Raises:
        DualFormerError: if a file cannot be read or is something else.
    """
    own = folder / _OWN_INDEX
    if own.is_file():
        return ClassIndex(str(own), {"": list(_lines(own))})
    read = _INDEXES.get(annotation_format)
    return next(read(folder), None) if read else None


def _first(folder: Path, names: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """Return the first file that is there of each split, whatever folder below it was unpacked into.

    Args:
        folder: where the annotations lie; what is in it comes before what is below.
        names: patterns of names in lower case, with | between alternatives, to splits.
    """
    there = _files(folder)
    for patterns, split in names.items():
        paths = (path for pattern in patterns.split("|") for path in there if fnmatchcase(path.name.lower(), pattern))
        if path := next(paths, None):
            yield split, path


def _files(folder: Path) -> list[Path]:
    """Return all files below a folder, the less deep ones first; hidden ones and what is beside them are left out."""
    found = [
        Path(at, name)
        for at, folders, names in os.walk(folder)
        for name in names
        if not name.startswith(".") and not name.endswith((".sha256", ".part", ".broken"))
        if not any(part.startswith((".", "__MACOSX")) for part in Path(at).relative_to(folder).parts)
    ]
    return sorted(found, key=lambda path: (len(path.parts), path.name.lower(), str(path)))


def found_splits(annotation_format: str | None, folder: Path) -> dict[str, Path]:
    """Return the first file of each split that the reader of a format finds: of train, val and test.

    A format whose splits are several of a kind, or in one file, has those of its first list.
    """
    names = _FILES.get(annotation_format or "", {})
    return {split: path for split, path in _first(folder, names) if folder.is_dir()}


def wanted_files(annotation_format: str | None) -> str:
    """Return the names that the reader of a format looks for, for messages."""
    return ", ".join(patterns.partition("|")[0] for patterns in _FILES.get(annotation_format or "", {}))


def there_files(folder: Path) -> list[str]:
    """Return the names of the files below a folder of annotations."""
    return [str(path.relative_to(folder)) for path in _files(folder)]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Put what is wrong with a file into one line."""
    try:
        yield
    except KeyError as error:
        raise DualFormerError(f"annotations {str(path)!r}: an entry has no {error.args[0]!r}") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DualFormerError(f"annotations {str(path)!r} cannot be read: {reason}") from None
    except (ValueError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise DualFormerError(
            f"annotations {str(path)!r} are damaged or of another kind: {reason}; delete the file and fetch it again"
        ) from None


def _numbered(path: Path) -> Iterator[tuple[str, str]]:
    """Yield where each line is, and the line; empty ones are left out."""
    with _reading(path), path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"annotations {str(path)!r}, line {number}", line.strip()


def _lines(path: Path) -> Iterator[str]:
    return (line for _, line in _numbered(path))


def _json(path: Path) -> Any:
    with _reading(path):
        return json.loads(path.read_text(encoding="utf-8-sig"))


def _table(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield where each row of a comma-separated table is, and the row by its columns in lower case.

    Raises:
        DualFormerError: if the table lacks one of `columns`, or a row is shorter or longer than the header.
    """
    with _reading(path), path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file)
        header = [name.strip().lower() for name in next(rows, [])]
        lacking = [name for name in columns if name not in header]
        if lacking:
            raise DualFormerError(
                f"annotations {str(path)!r} have no column {lacking[0]!r}; their first line is "
                f"{','.join(header)[:100]!r} and should name {','.join(columns)}. If it is a list of paths and labels, "
                "train and eval read it as it is: --data FILE"
            )
        for row in rows:
            where = f"annotations {str(path)!r}, line {rows.line_num}"
            if any(row) and len(row) != len(header):
                raise DualFormerError(f"{where}: it has {len(row)} fields and the header {len(header)}; fetch it again")
            if any(row):
                yield where, dict(zip(header, (value.strip().strip('"') for value in row), strict=True))


def _hmdb51(folder: Path) -> Found:
    splits = {"1": "train", "2": "val", "0": None}  # 0 is not used in this split
    for path in sorted(folder.rglob("*_test_split[123].txt")):
        name, number = path.stem[: -len("_test_split1")], path.stem[-1]
        for where, line in _numbered(path):
            file, _, flag = line.rpartition(" ")
            if flag not in splits or not file:
                raise DualFormerError(f"{where}: {line!r} is not FILE FLAG with a flag of 0, 1 or 2; fetch it again")
            if split := splits[flag]:
                yield Annotation(f"{split}_{number}", (_stem(file.strip()),), (name,), where, name)


def _ucf101(folder: Path) -> Found:
    for number in "123":
        names = {patterns.replace("1", number): split for patterns, split in _FILES["ucf101"].items()}
        for split, path in _first(folder, names):
            for where, line in _numbered(path):
                at = line.lower().find(".avi")
                name, _, file = line[:at].rpartition("/")
                if at < 0 or not name:
                    raise DualFormerError(f"{where}: {line!r} is not CLASS/FILE.avi; fetch it again")
                yield Annotation(f"{split}_{number}", (file,), (name,), where, name)


def _activitynet(folder: Path) -> Found:
    splits = {"training": "train", "validation": "val", "testing": "test"}
    for _, path in _first(folder, dict.fromkeys(_FILES["activitynet"], "all")):
        content = _json(path)
        with _reading(path):
            for name, video in content["database"].items():
                parts = tuple(_part(part, video.get("duration")) for part in video.get("annotations", []))
                labels = tuple(dict.fromkeys(part.label for part in parts))
                where = f"annotations {str(path)!r}, video {name!r}"
                yield Annotation(splits[video["subset"]], (f"v_{name}", name), labels, where, parts=parts)


def _part(said: Mapping[str, Any], duration: Any) -> Part:
    """Read an annotated part of a video; one that cannot be used says why."""
    label = str(said["label"])
    try:
        start, end = (float(seconds) for seconds in said["segment"])
    except (TypeError, ValueError, KeyError):
        return Part(math.nan, math.nan, label, "have no start and end in seconds")
    if not (math.isfinite(start) and math.isfinite(end)) or start < 0:
        return Part(start, end, label, "have no start and end in seconds")
    if end <= start:
        return Part(start, end, label, "have no length")
    length = duration if isinstance(duration, int | float) and duration > 0 else math.inf
    if start >= length:
        return Part(start, end, label, "begin at or beyond the end of their video")
    return Part(start, end, label, ends_beyond=end > length)


def _kinetics(folder: Path) -> Found:
    for split, path in _first(folder, _FILES["kinetics"]):
        yield from (_kinetics_json if path.suffix == ".json" else _kinetics_csv)(path, split)


def _kinetics_csv(path: Path, split: str) -> Found:
    labelled = () if split == "test" else ("label",)
    for where, row in _table(path, (*labelled, "youtube_id", "time_start", "time_end")):
        label = row.get("label", "")
        if not label and labelled:
            raise DualFormerError(f"{where}: {row['youtube_id']!r} has no label; fetch it again")
        with _reading(path):
            names = _clip_names(row["youtube_id"], row["time_start"], row["time_end"])
        yield Annotation(split, names, (label,) if label else (), where)


def _kinetics_json(path: Path, split: str) -> Found:
    content = _json(path)
    with _reading(path):
        for name, video in content.items():
            said = video["annotations"]
            labels = (str(said["label"]),) if said.get("label") else ()
            where = f"annotations {str(path)!r}, video {name!r}"
            yield Annotation(split, _clip_names(name, *said["segment"]), labels, where)


def _clip_names(name: str, start: Any, end: Any) -> Names:
    begin, finish = round(float(start)), round(float(end))
    return f"{name}_{begin:06d}_{finish:06d}", name


def _twentybn_csv(folder: Path) -> Found:
    for split, path in _first(folder, _FILES["twentybn-csv"]):
        for where, line in _numbered(path):
            name, _, label = line.partition(";")  # labels have commas and apostrophes, but no semicolon
            if split != "test" and not label:
                raise DualFormerError(f"{where}: {line!r} is not ID;LABEL; fetch it again")
            yield Annotation(split, (name.strip(),), (label.strip(),) if label else (), where)


def _twentybn_json(folder: Path) -> Found:
    for split, path in _first(folder, _FILES["twentybn-json"]):
        answers = _answers(folder) if split == "test" else {}
        content = _json(path)
        with _reading(path):
            for number, video in enumerate(content, start=1):
                key = str(video["id"])
                # The class is the template without its brackets; "label" is what was said of this video.
                label = answers.get(key, "") if split == "test" else _without_brackets(video.get("template", ""))
                where = f"annotations {str(path)!r}, entry {number}"
                yield Annotation(split, (key,), (label,) if label else (), where)


def _answers(folder: Path) -> dict[str, str]:
    """Return the classes of test videos by id, where they are told."""
    for _, path in _first(folder, {"*test-answers.csv": "test"}):
        pairs = (line.partition(";") for line in _lines(path))
        return {name.strip(): _without_brackets(label.strip()) for name, _, label in pairs}
    return {}


def _without_brackets(template: str) -> str:
    return template.replace("[", "").replace("]", "")


def _diving48(folder: Path) -> Found:
    for split, path in _first(folder, _FILES["diving48"]):
        content = _json(path)
        with _reading(path):
            for number, video in enumerate(content, start=1):
                where = f"annotations {str(path)!r}, entry {number}"
                labels = (int(video["label"]),) if "label" in video else ()
                yield Annotation(split, (str(video["vid_name"]),), labels, where)


def _moments(folder: Path) -> Found:
    for split, path in _first(folder, _FILES["moments"]):
        for where, line in _numbered(path):
            match = _SECOND_COLUMN.fullmatch(line)
            values = [value for value in match[2].split(",") if value] if match else []
            # Moments: the class and how many people agreed; Multi-Moments: the numbers of the classes.
            is_numbered = all(value.strip().isdecimal() for value in values)
            labels = tuple(int(value) for value in values) if is_numbered else (values[0].strip(),)
            name, _, file = (match[1] if match else "").rpartition("/")
            if not file or not labels:
                raise DualFormerError(f"{where}: {line!r} is not CLASS/FILE,LABEL...; fetch it again")
            yield Annotation(split, (_stem(file),), labels, where, name.rpartition("/")[2])


def _hvu(folder: Path) -> Found:
    for split, path in _first(folder, _FILES["hvu"]):
        for where, row in _table(path, ("tags", "youtube_id", "time_start", "time_end")):
            with _reading(path):
                times = float(row["time_start"]), float(row["time_end"])
            # mmaction2 names clips in tenths of a second, HVU-Downloader in seconds.
            tenths, seconds = ("_".join(f"{int(scale * time):06d}" for time in times) for scale in (10, 1))
            tags = tuple(dict.fromkeys(tag for tag in row["tags"].split("|") if tag))
            yield Annotation(split, (f"{row['youtube_id']}_{tenths}", f"{row['youtube_id']}_{seconds}"), tags, where)


def _omnisource(folder: Path) -> Found:
    # The lists called _duplicate name videos of the web that are those of k200_val: the ones without them are taken.
    web = {"slowonly_8x8_insvideo_200_wodup.txt|slowonly_8x8_insvideo_200.txt": "train_insvideo"}
    for split, path in _first(folder, {**_FILES["omnisource"], **web}):
        for where, line in _numbered(path):
            file, _, label = line.rpartition(" ")
            if not file or not label.isdecimal():
                raise DualFormerError(f"{where}: {line!r} is not PATH LABEL; fetch it again")
            yield Annotation(split, (_stem(file),), (int(label),), where, os.path.dirname(file))
    for split, path in _first(folder, {"*kinetics_raw_200_wodup.json|*kinetics_raw_200.json": "train_raw"}):
        content = _json(path)
        with _reading(path):
            for number, video in enumerate(content, start=1):
                where = f"annotations {str(path)!r}, entry {number}"
                for part in video["positive_clip_inds"]:  # of the videos cut into pieces of 10 s
                    name = os.path.basename(video["video_dir"])
                    yield Annotation(split, (f"part_{int(part)}",), (int(video["label"]),), where, name)


def _stem(name: str) -> str:
    return os.path.splitext(os.path.basename(name))[0]


_KINETICS = "{0}.csv|kinetics*{0}.csv|k[4-7]00*{0}.csv|{0}.json|kinetics*{0}.json|k[4-7]00*{0}.json"
_FILES: Mapping[str, dict[str, str]] = {
    "hmdb51": {"*_test_split1.txt": "train"},
    "ucf101": {"trainlist01.txt": "train", "testlist01.txt": "val"},
    "activitynet": {"*activity_net*.json|*activitynet*.json|*.json": "train"},
    "kinetics": {
        _KINETICS.format("train"): "train",
        "|".join(_KINETICS.format(name) for name in ("val", "validate", "validation")): "val",
        _KINETICS.format("test"): "test",
    },
    "twentybn-csv": {"*train.csv": "train", "*validation.csv|*val.csv": "val", "*test-answers.csv|*test.csv": "test"},
    "twentybn-json": {
        "train.json|*[-_]train.json": "train",
        "validation.json|*[-_]validation.json|val.json|*[-_]val.json": "val",
        "test.json|*[-_]test.json": "test",
    },
    "diving48": {"*v2_train.json": "train", "*v2_test.json": "val"},
    "moments": {"trainingset*": "train", "validationset*": "val"},
    "hvu": {"hvu_train_v1*.csv|*train*.csv": "train", "hvu_val_v1*.csv|*val*.csv": "val"},
    "omnisource": {"k200_train.txt": "train", "k200_val.txt": "val"},
}
"""Names of the files of each format in lower case, those of the authors first, then those that other tools write."""

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
    "omnisource": _omnisource,
}


def _class_ind(folder: Path) -> Iterator[ClassIndex]:
    """UCF101: numbers from 1; a copy that circulates calls the last one 0."""
    for _, path in _first(folder, {"classind.txt": ""}):
        numbered = [line.split(None, 1) for line in _lines(path)]
        with _reading(path):
            yield _in_order(path, {name.strip(): (int(number) - 1) % len(numbered) for number, name in numbered})


def _action_names(folder: Path) -> Iterator[ClassIndex]:
    for _, path in _first(folder, {"action_name.csv": ""}):
        lines = list(_lines(path))
        yield ClassIndex(str(path), {"": lines[1:] if lines[:1] == ["action"] else lines})


def _label_lines(folder: Path) -> Iterator[ClassIndex]:
    for _, path in _first(folder, {"*labels.csv": ""}):
        yield ClassIndex(str(path), {"": list(_lines(path))})


def _label_numbers(folder: Path) -> Iterator[ClassIndex]:
    for _, path in _first(folder, {"labels.json|*[-_]labels.json": ""}):
        content = _json(path)
        with _reading(path):
            yield _in_order(path, {_without_brackets(name): int(number) for name, number in content.items()})


def _vocabulary(folder: Path) -> Iterator[ClassIndex]:
    for _, path in _first(folder, {"*vocab.json": ""}):
        content = _json(path)
        with _reading(path):
            yield ClassIndex(str(path), {"": ["+".join(parts) for parts in content]})


def _categories(folder: Path) -> Iterator[ClassIndex]:
    for _, path in _first(folder, {"moments_categories.txt|*categories*.txt": ""}):
        numbered = [line.rpartition(",") for line in _lines(path)]
        with _reading(path):
            yield _in_order(path, {name.strip(): int(number) for name, _, number in numbered})


def _tag_groups(folder: Path) -> Iterator[ClassIndex]:
    for _, path in _first(folder, {"*tags_categories*.csv|*categories*.csv": ""}):
        groups: dict[str, list[str]] = {}
        for _, row in _table(path, ("tag", "category")):
            groups.setdefault(row["category"], []).append(row["tag"])
        yield ClassIndex(str(path), {group: sorted(set(groups[group])) for group in sorted(groups)})


def _mini_kinetics(folder: Path) -> Iterator[ClassIndex]:
    for _, path in _first(folder, {"k200_actions.txt": ""}):
        yield ClassIndex(str(path), {"": list(_lines(path))})


def _in_order(path: Path, numbers: Mapping[str, int]) -> ClassIndex:
    """Return the names by their numbers.

    Raises:
        DualFormerError: if the numbers are not those from 0 up.
    """
    names = sorted(numbers, key=lambda name: numbers[name])
    for expected, name in enumerate(names):
        if numbers[name] != expected:
            raise DualFormerError(
                f"class index {str(path)!r} has no class {expected}: {name!r} is {numbers[name]}, and all numbers from "
                "the first on are needed, each once; fetch it again"
            )
    return ClassIndex(str(path), {"": names})


_INDEXES: Mapping[str, Callable[[Path], Iterator[ClassIndex]]] = {
    "ucf101": _class_ind,
    "activitynet": _action_names,
    "twentybn-csv": _label_lines,
    "twentybn-json": _label_numbers,
    "diving48": _vocabulary,
    "moments": _categories,
    "hvu": _tag_groups,
    "omnisource": _mini_kinetics,
}
