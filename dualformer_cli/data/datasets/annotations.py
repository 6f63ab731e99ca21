"""What the annotations of a dataset say, whatever their format: which videos there are, and of which classes.

Copies of a dataset differ in how files are named, so a video has one or several names (stems), and the folder of its
class where its names need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from dualformer_cli.data.datasets import formats
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
    name.replace("_", "-"): import_module(f"{formats.__name__}.{name}").FORMAT
    for _, name, _ in iter_modules(formats.__path__)
    if name != "base"
}
"""By the name that the facts of a dataset have: each is the FORMAT of `formats/NAME.py`, with _ in its name for -."""

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
