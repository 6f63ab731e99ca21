"""The list of videos with their labels, whatever its format, and the lists of class names."""

from __future__ import annotations

import gc
import os
import re
import shlex
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest

from dualformer_cli.config.schema import ListFormat, ReadFormat
from dualformer_cli.data.lists.annotation_tools import (
    annotations_in_json,
    annotations_in_text,
    parse_annotations,
)
from dualformer_cli.data.lists.class_lists import CLASSES_FILE, class_names_beside, load_class_names
from dualformer_cli.data.lists.column_names import LABEL_NAMES, PATH_NAMES
from dualformer_cli.data.lists.json_lists import format_json, load_json, parse_json
from dualformer_cli.data.lists.line_formats import format_lines, parse_lines
from dualformer_cli.data.lists.listed_files import find_files
from dualformer_cli.data.lists.matching import ClassLookup, ClassMatch, match_classes
from dualformer_cli.data.lists.row_arrays import Columns, Files, Texts
from dualformer_cli.data.lists.samples import Labels, ParsedList, Sample, is_encodable, lines_of
from dualformer_cli.data.lists.shards import check_shards, read_shards, shards_folder
from dualformer_cli.data.lists.tables import COLUMNS, find_delimiter, format_table, parse_table, unknown_header
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.files import atomic_path
from dualformer_cli.system.words import cannot_read
from dualformer_cli.video.addresses import is_address, mask_credentials
from dualformer_cli.video.suffixes import is_video_name
from dualformer_cli.video.tar_members import is_shard_name

__all__ = [
    "ClassMatch",
    "ListFormat",
    "Manifest",
    "ReadFormat",
    "Sample",
    "match_classes",
    "read_manifest",
    "write_manifest",
]

_MAX_LIST_BYTES = 2**30
_MOST_OF_A_HEADER = 2**20
_JSON = re.compile(r"\s*(?:\[\s*(?:\{|\]\s*$)|\{\s*(?:\"|\}\s*$))")
"""Start of a JSON list or object; names of videos start with brackets too."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Videos and labels of one list, in its order."""

    samples: Sequence[Sample]
    class_names: list[str] | None = None
    """Name of each class; None if nothing says."""
    is_multi_label: bool = False
    """Whether a row may have several labels."""
    source: str = ""
    """The list's file, as named by the user."""
    root: str = ""
    """Folder that relative paths start from."""
    warnings: tuple[str, ...] = ()
    """What the user should know about the list."""
    naming: str = ""
    """The one of the warnings that says how names of labels became numbers, which is no reason to worry."""
    other_classes: str = ""
    """The one of the warnings that says that the classes beside the list are not those given."""
    splits: list[str] | None = None
    """In lower case, what a column of splits says of each row; None if there is none, or it is not asked for."""
    has_frame_parts: bool = False
    """Whether a row that starts at frame 0 is a part of its video, and not all of it with the number of its frames."""
    places: Texts | None = None
    """What is put behind the name of each file; None if all are on this machine."""

    def __len__(self) -> int:
        return len(self.samples)

    @cached_property
    def columns(self) -> Columns:
        """The samples in arrays."""
        return Columns.of(self.samples, is_multi_label=self.is_multi_label)

    @cached_property
    def files(self) -> Files:
        """Where the file or folder of each sample is."""
        if self.places is not None:
            return Files(self.root, self.columns.paths, {}, self.places)
        return find_files(self.root, self.columns.paths)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the rows: paths as listed, labels, parts and status, in order; format and spacing are left out.

        The same rows in a folder elsewhere, or in another format that can hold them, have the same fingerprint.
        """
        return self.columns.fingerprint()


def read_manifest(
    source: str,
    *,
    root: str | None = None,
    list_format: ReadFormat = "auto",
    classes: Sequence[str] | None = None,
    label_group: str | None = None,
    with_splits: bool = False,
) -> Manifest:
    """Read a list of videos and labels.

    Class names are those in classes.txt beside the list, else `classes`. Rows that `prepare` found unusable are kept,
    with their status.

    Args:
        source: a manifest, Kinetics annotations, one of the older list formats, a file of an annotation tool, or tar
            archives as `read_shards` takes them.
        root: folder that relative paths start from; None is that of the list. Archives are where their name says.
        list_format: auto finds out, and complains where several formats fit.
        classes: class names in the order of their numbers.
        label_group: which labels of a JSON list to read whose labels come in groups; rows without any of it are left
            out.
        with_splits: whether a table may hold several splits, as a column says.

    Raises:
        DualFormerError: if the list cannot be read; the message names the line, its text and what is allowed.
    """
    if root is not None and not os.path.isdir(root):
        raise DualFormerError(
            f"folder {root!r}, where the paths of list {source!r} start, does not exist; mend the root"
        )
    are_shards = is_shard_name(source)
    folder = shards_folder(source) if are_shards else os.path.dirname(source)
    text = "" if are_shards else _decode(_read_list(source), source)
    shown = mask_credentials(source) if are_shards and is_address(source) else source
    labels, other_classes = _labels_of(shown, folder, classes, label_group)
    start = folder if root is None or are_shards else root
    with _uncollected():
        if are_shards:
            _check_group(label_group, shown, is_json=False)
            parsed = read_shards(source, labels)
        else:
            parsed = _parse(text, list_format, labels, label_group, folder=start, with_splits=with_splits)
    samples = Columns.of(parsed.samples, is_multi_label=parsed.is_multi_label)
    return Manifest(
        samples=samples,
        class_names=None if labels.classes is None else labels.classes.names,
        is_multi_label=parsed.is_multi_label,
        source=shown,
        root=start,
        splits=parsed.splits,
        has_frame_parts=parsed.has_frame_parts or samples.any_starts_later(),
        places=None if parsed.places is None else Texts.of(parsed.places),
        naming=labels.warning,
        other_classes=other_classes,
        warnings=(
            *filter(None, [other_classes, labels.warning]),
            *(f"list {shown!r}: {warning}" for warning in parsed.warnings),
        ),
    )


def is_export(source: str) -> bool:
    """Return whether a file is one that an annotation tool writes.

    Raises:
        DamagedExportError: if it is, and is damaged.
        DualFormerError: if it cannot be read, is XML of another kind, or labels no videos.
    """
    text, folder = _decode(_read_list(source), source), os.path.dirname(source)
    if source.lower().endswith(".json"):
        return annotations_in_json(load_json(text, source), source, folder) is not None
    return annotations_in_text(text, source, folder) is not None


def write_manifest(manifest: Manifest, path: str | os.PathLike[str]) -> None:
    """Write a manifest, and classes.txt beside it if class names are known.

    Relative paths are written relative to the new file's folder, so that it can be read without a root.

    Raises:
        DualFormerError: if a file cannot be written, or a classes.txt with other classes is there.
    """
    target = os.fspath(path)
    data = manifest_text(manifest, target)
    if manifest.class_names is not None:
        _write_classes(manifest.class_names, os.path.join(os.path.dirname(target), CLASSES_FILE))
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def manifest_text(manifest: Manifest, target: str) -> bytes:
    """Return what `write_manifest` would write to the file `target`.

    Raises:
        DualFormerError: if no file can have the name of a row.
    """
    folder = os.path.dirname(target)
    prefix = os.path.relpath(os.path.realpath(manifest.root), os.path.realpath(folder))
    samples: Sequence[Sample] = manifest.samples
    if prefix != os.curdir:
        samples = [replace(sample, path=os.path.join(prefix, sample.path)) for sample in samples]
    return _encode(format_table(samples, is_multi_label=manifest.is_multi_label), samples, target)


def list_text(manifest: Manifest, target: str, list_format: ListFormat) -> tuple[bytes, int]:
    """Return the content of a file `target` in one of the older list formats, and how many rows it leaves out.

    Paths are as they are listed: relative ones start from `manifest.root`. Rows that are not usable are left out, as
    these formats cannot say so; sizes and frame rates are left out too.

    Raises:
        DualFormerError: if a row would not read back as it is.
    """
    if manifest.is_multi_label and list_format in ("video", "rawframe", "rawframe_offset"):
        raise DualFormerError(
            f"cannot write {target!r}: a {list_format} list has one label a row, and this list is multi-label; "
            "write a multilabel_video, multilabel_rawframe or json list, or a manifest"
        )
    samples = [sample for sample in manifest.samples if sample.is_usable]
    text = format_json(samples) if list_format == "json" else format_lines(samples, list_format)
    lookup = None if manifest.class_names is None else ClassLookup(manifest.class_names)
    data = _encode(text, samples, target)
    _check_reads_back(data, samples, list_format, Labels(target, lookup, may_be_named=True))
    return data, len(manifest) - len(samples)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector from searching rows that are all kept: a quarter of the time of a long list."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def check_list(source: str, *, offline: bool = False) -> None:
    """Refuse a list that is not there or is a folder, before any work is done.

    Args:
        source: of `read_manifest`.
        offline: whether archives on other machines may not be asked for.

    Raises:
        DualFormerError: with what makes a list.
    """
    if is_shard_name(source):
        check_shards(source, offline=offline)
        return
    if os.path.isdir(source):
        lists = [os.path.join(source, place, "train.csv") for place in ("", "prepared")]
        found = next((path for path in lists if os.path.isfile(path)), None)
        advice = f"dualformer prepare {shlex.quote(source)}, and give the lists that it makes"
        raise DualFormerError(f"list {source!r} is a folder; " + (f"name a list in it: {found}" if found else advice))
    try:
        os.stat(source)
    except FileNotFoundError:
        raise DualFormerError(
            f"list {source!r} not found; name a list of videos and labels, or make one with dualformer prepare"
        ) from None
    except (OSError, ValueError):  # reading it will say why
        return


def _read_list(source: str) -> bytes:
    try:
        check_list(source)
        status = os.stat(source)
        if not stat.S_ISREG(status.st_mode):
            raise DualFormerError(f"list {source!r} is not a regular file")
        if status.st_size > _MAX_LIST_BYTES:
            raise DualFormerError(f"list {source!r} is larger than 1 GiB; it needs one video a line")
        with open(source, "rb") as file:
            return file.read()
    except OSError as error:
        raise DualFormerError(cannot_read("list", source, error)) from None
    except ValueError as error:
        raise DualFormerError(f"list {source!r} cannot be read: {error}") from None


def _decode(data: bytes, source: str) -> str:
    """Return the text; bytes that are not UTF-8 stay as os.fsencode expects them."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DualFormerError(f"list {source!r} is UTF-16 text; save it as UTF-8")
    if b"\0" in data:
        what = "a video" if is_video_name(source) else "no text file"
        raise DualFormerError(f"list {source!r} is {what}; a list is text, with one video a line")
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


def _labels_of(source: str, folder: str, given: Sequence[str] | None, label_group: str | None) -> tuple[Labels, str]:
    """Return what reads labels, and a warning if the class names beside the list are not those given, or ""."""
    beside = class_names_beside(folder)
    names = given if beside is None else beside
    classes = None if names is None else ClassLookup(list(names))
    labels = Labels(source, classes, may_be_named=label_group is None and beside is None)
    match = None if given is None or beside is None else match_classes(beside, given)
    if match is None:
        return labels, ""
    path = mask_credentials(os.path.join(folder, CLASSES_FILE))
    return labels, f"the classes are those of {path!r}, beside the list, and not those given: {match.message}"


def _parse(
    text: str,
    list_format: ReadFormat,
    labels: Labels,
    label_group: str | None = None,
    *,
    folder: str = "",
    with_splits: bool = False,
) -> ParsedList:
    first_line = next((line for line in lines_of(text) if line.strip(" \t\r")), None)
    if first_line is None:
        raise DualFormerError(f"list {labels.source!r} is empty; it needs one video a line")
    if list_format == "auto" and (annotations := annotations_in_text(text, labels.source, folder)):
        return parse_annotations(annotations, labels, with_splits=with_splits)
    delimiter = find_delimiter(first_line.rstrip("\r"))
    is_json = labels.source.lower().endswith(".json") or _JSON.match(text) is not None
    found: ReadFormat = "json" if is_json else "manifest" if delimiter else "auto"
    if list_format not in ("auto", found) and found != "auto":
        raise DualFormerError(f"list {labels.source!r} is a {found} list; set list_format to {found} or auto")
    _check_group(label_group, labels.source, is_json="json" in (list_format, found))
    if list_format == "manifest" or found == "manifest":
        if delimiter is None:
            problem = f"a manifest starts with a header that names its columns, as {','.join(COLUMNS)}"
            raise labels.error("its first line", first_line, problem)
        parsed = parse_table(text, delimiter, labels, with_splits=with_splits)
    elif list_format == "json" or found == "json":
        document = load_json(text, labels.source)
        if label_group is None and (annotations := annotations_in_json(document, labels.source, folder)):
            return parse_annotations(annotations, labels, with_splits=with_splits)
        parsed = parse_json(document, labels, label_group)
    else:
        _refuse_unknown_header(text, labels)
        parsed = parse_lines(text, None if list_format == "auto" else list_format, labels)
    if not parsed.samples:
        raise DualFormerError(f"list {labels.source!r} is empty; it needs one video a line")
    return parsed


def _check_group(label_group: str | None, source: str, *, is_json: bool) -> None:
    if label_group is not None and not is_json:
        raise DualFormerError(
            f"list {source!r} has no groups of labels, as JSON lists of HVU do; leave label_group ({label_group!r}) out"
        )


def _refuse_unknown_header(text: str, labels: Labels) -> None:
    first, second = [*(line for line in text[:_MOST_OF_A_HEADER].splitlines()[:100] if line.strip()), "", ""][:2]
    if names := unknown_header(first, second):
        raise DualFormerError(
            f"list {labels.source!r} begins with a header, {', '.join(map(repr, names))}, and none of its columns is "
            f"known to be the video; call that path ({', '.join(PATH_NAMES[1:5])}, ... are known too) and the other "
            f"label ({', '.join(LABEL_NAMES[2:5])}, ... are known too)"
        )


def _check_reads_back(data: bytes, samples: list[Sample], list_format: ListFormat, labels: Labels) -> None:
    """Refuse a text that says something else than the samples, or seems to when its format is not named."""
    has_counts = list_format not in ("video", "multilabel_video")
    wanted = [(sample.path, sample.labels, *_part(sample, has_counts=has_counts)) for sample in samples]
    try:
        text = _decode(data, labels.source)
        readings = [_parse(text, list_format, labels)]
    except DualFormerError as error:
        raise DualFormerError(
            f"the rows cannot be written as a {list_format} list; write a manifest ({error})"
        ) from None
    with suppress(DualFormerError):  # then a reader is asked for the format
        readings.append(_parse(text, "auto", labels))
    for parsed in readings:
        read = [(sample.path, sample.labels, *_part(sample)) for sample in parsed.samples]
        for sample, row in zip_longest(wanted, read):
            if sample != row:
                path = sample[0] if sample else row[0]
                raise DualFormerError(
                    f"{path!r} cannot be written to {labels.source!r}, a {list_format} list: its row would be read as "
                    "something else; write a manifest, which holds any name"
                )


def _part(sample: Sample, *, has_counts: bool = True) -> tuple[object, ...]:
    """Return what says which part of a video counts, without the number of frames if the format has none."""
    frames = sample.num_frames if has_counts else None
    return sample.start, frames, sample.start_seconds, sample.end_seconds


def _encode(text: str, samples: Sequence[Sample], target: str) -> bytes:
    for sample in samples:
        if not sample.path or not is_encodable(sample.path):
            raise DualFormerError(f"cannot write {target!r}: no file can have the name {sample.path!r}")
    return text.encode("utf-8", "surrogateescape")


def _write_classes(names: list[str], path: str) -> None:
    """Write class names, unless the same are there; others are not overwritten."""
    if os.path.exists(path):
        if load_class_names(path) != names:
            raise DualFormerError(f"{path!r} has other classes than the list; choose another folder, or delete it")
        return
    data = check_class_names(names)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def check_class_names(names: Sequence[str]) -> bytes:
    """Return the content of classes.txt.

    Raises:
        DualFormerError: if a name would not read back as it is, as one with a line break, or is there twice.
    """
    data = "".join(f"{name}\n" for name in names).encode("utf-8", "replace")
    read = (line.strip() for line in data.decode("utf-8-sig").splitlines())
    seen: set[str] = set()
    for name, line in zip_longest(names, read):
        if not name or name != line or name in seen:
            reason = "it is there twice" if name in seen else "it starts or ends with a space"
            if name.strip() == name not in seen:
                reason = "it is empty, or holds a line break or what is not text"
            raise DualFormerError(
                f"class name {name!r} cannot be a line of its own in classes.txt: {reason}; rename it"
            )
        seen.add(name)
    return data
