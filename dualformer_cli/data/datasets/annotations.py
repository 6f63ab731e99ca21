"""What the annotations of a dataset say, whatever their format: which videos there are, and of which classes.

Copies of a dataset differ in how files are named, so a video has one or several names (stems), and the folder of its
class where its names need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dualformer_cli.data.datasets.formats import (
    activitynet,
    diving48,
    hmdb51,
    hvu,
    kinetics,
    moments,
    omnisource,
    something_something,
    ucf101,
)
from dualformer_cli.data.datasets.formats.base import (
    Annotation,
    ClassIndex,
    Format,
    all_files,
    first_files,
    text_lines,
)
from dualformer_cli.errors import DualFormerError, nearest

FORMATS: Mapping[str, Format] = {
    "hmdb51": hmdb51.FORMAT,
    "ucf101": ucf101.FORMAT,
    "activitynet": activitynet.FORMAT,
    "kinetics": kinetics.FORMAT,
    "twentybn-csv": something_something.CSV,
    "twentybn-json": something_something.JSON,
    "diving48": diving48.FORMAT,
    "moments": moments.FORMAT,
    "hvu": hvu.FORMAT,
    "omnisource": omnisource.FORMAT,
}
"""Formats by the name that the facts of a dataset have."""

_USERS_INDEX = "classes.txt"


def read_annotations(annotation_format: str, folder: Path) -> list[Annotation]:
    """Return all annotations of a dataset, in the order of their files; of splits whose files are not there, none.

    Args:
        annotation_format: as the facts of the dataset have it.
        folder: where they lie.

    Raises:
        DualFormerError: if a file cannot be read or is something else; it names file, line and what was expected.
    """
    if annotation_format not in FORMATS:
        hint = nearest(annotation_format, FORMATS)
        raise DualFormerError(
            f"no annotation format is called {annotation_format!r}{hint or '.'} {', '.join(FORMATS)} are"
        )
    return list(FORMATS[annotation_format].read(folder))


def read_class_index(annotation_format: str | None, folder: Path) -> ClassIndex | None:
    """Return the class index that came with a dataset, or a classes.txt that the user has put there, which comes first.

    Raises:
        DualFormerError: if a file cannot be read or is something else.
    """
    users = folder / _USERS_INDEX
    if users.is_file():
        return ClassIndex(str(users), {"": list(text_lines(users))})
    known = FORMATS.get(annotation_format or "")
    return next(known.classes(folder), None) if known and known.classes else None


def found_splits(annotation_format: str | None, folder: Path) -> dict[str, Path]:
    """Return the first file of each split that the reader of a format finds: of train, val and test."""
    return dict(first_files(folder, _patterns(annotation_format)))


def wanted_files(annotation_format: str | None) -> str:
    """Return the names that the reader of a format looks for, for messages."""
    return ", ".join(patterns.partition("|")[0] for patterns in _patterns(annotation_format))


def there_files(folder: Path) -> list[str]:
    """Return the names of the files below a folder of annotations."""
    return [str(path.relative_to(folder)) for path in all_files(folder)]


def _patterns(annotation_format: str | None) -> Mapping[str, str]:
    known = FORMATS.get(annotation_format or "")
    return known.files if known else {}
