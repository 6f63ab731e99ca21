"""Which class of one list of names is which class of another, however the names are spelled."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dualformer_cli.system.words import some_of

_NAMED_AT_MOST = 5


class ClassLookup:
    """Finds classes by name. Names that only differ as copies of a dataset do (see `loose_key`) are the same name."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._exact = _unique(names, str)
        self._loose = _unique(names, loose_key)
        self.most_words = max((len(name.split()) for name in names), default=0)
        """Words of the longest name."""

    def __len__(self) -> int:
        return len(self.names)

    def find(self, name: str) -> int | None:
        """Return the number of the class, or None: there is none, or several and none is spelled so."""
        index = self._exact.get(name)
        return self._loose.get(loose_key(name)) if index is None else index


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMatch:
    """How the classes of the data map to those of a model, where they are not the same list."""

    mapping: tuple[int | None, ...]
    """The model's class of each class of the data; None where it has none."""
    unmatched: tuple[str, ...]
    """Classes of the data that the model does not have."""
    missing: tuple[str, ...]
    """Classes of the model that the data does not have."""
    message: str
    """What was found, for the user."""

    @property
    def is_permutation(self) -> bool:
        """Whether both have the same classes, in another order."""
        return not self.unmatched and not self.missing


def match_classes(data_names: Sequence[str], model_names: Sequence[str]) -> ClassMatch | None:
    """Match the classes of the data with those of a model by name; None when they are the same in the same order.

    Case, quotes, parentheses, brackets, and underscores against spaces make no difference, unless two classes of a
    list differ in nothing else.
    """
    lookup, reverse = ClassLookup(model_names), ClassLookup(data_names)
    found = [lookup.find(name) for name in data_names]
    mapping = tuple(  # both ways: "pushup" is not "Pushup" where the data has both
        index if index is not None and reverse.find(model_names[index]) == position else None
        for position, index in enumerate(found)
    )
    if mapping == tuple(range(len(model_names))):
        return None
    unmatched = tuple(name for name, index in zip(data_names, mapping, strict=True) if index is None)
    matched = set(mapping)
    missing = tuple(name for index, name in enumerate(model_names) if index not in matched)
    return ClassMatch(
        mapping=mapping,
        unmatched=unmatched,
        missing=missing,
        message=_describe(data_names, model_names, mapping, unmatched, missing),
    )


def _describe(
    data_names: Sequence[str],
    model_names: Sequence[str],
    mapping: Sequence[int | None],
    unmatched: Sequence[str],
    missing: Sequence[str],
) -> str:
    moved = next(((i, index) for i, index in enumerate(mapping) if index is not None and index != i), None)
    example = f"; {data_names[moved[0]]!r} is class {moved[0]} of the data and {moved[1]} of the model" if moved else ""
    if not unmatched and not missing:
        return f"data and model have the same {len(data_names)} classes in another order{example}"
    if len(unmatched) == len(data_names):
        return (
            f"no class of the data ({_some(data_names)}) is among the "
            f"{len(model_names)} of the model ({_some(model_names)})"
        )
    found = len(data_names) - len(unmatched)
    sentences = [f"{found} of the {len(data_names)} classes of the data are among the {len(model_names)} of the model"]
    if unmatched:
        sentences.append(f"the model does not have {_some(unmatched)}")
    if missing:
        sentences.append(f"the data does not have {_some(missing)}")
    return "; ".join(sentences) + example


def _some(names: Sequence[str]) -> str:
    return some_of([repr(name) for name in names], _NAMED_AT_MOST)


def loose_key(name: str) -> str:
    """Return what all spellings of a class name share."""
    bare = re.sub(r"[\"'`\u2018\u2019\u201c\u201d()\[\]]", "", unicodedata.normalize("NFKC", name))
    return " ".join(bare.replace("_", " ").casefold().split())


def _unique(names: Iterable[str], key: Callable[[str], str]) -> dict[str, int]:
    """Map the keys that a single name has to that name's number."""
    keys = [key(name) for name in names]
    counts = Counter(keys)
    return {key: index for index, key in enumerate(keys) if counts[key] == 1}
