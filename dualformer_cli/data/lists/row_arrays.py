"""The rows of a list in arrays: some 100 bytes a row in place of a thousand, which processes can share.

Everything here is a sequence of what a row has, made when it is asked for.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, compress, islice, pairwise
from operator import eq, index
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

from dualformer_cli.data.lists.samples import USABLE, LabelSet, Sample

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

CHUNK = 8192
"""Rows that are worked on together."""
_MOST = 2**62
"""No number of a frame is larger."""
_WHOLE = ("start", "num_frames", "width", "height")
_REAL = ("fps", "duration_seconds", "start_seconds", "end_seconds")
_ABSENT: dict[str, Any] = {"start": 0}

T = TypeVar("T")
K = TypeVar("K")


class Made(dict[K, T], Generic[K, T]):
    """Values that are made once for each key."""

    def __init__(self, make: Callable[[K], T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: K) -> T:
        value = self[key] = self._make(key)
        return value


class Compact(Sequence[T]):
    """A sequence that equals any other with the same items."""

    def _item(self, row: int) -> T:
        raise NotImplementedError

    @overload
    def __getitem__(self, key: int) -> T: ...
    @overload
    def __getitem__(self, key: slice) -> list[T]: ...
    def __getitem__(self, key: int | slice) -> T | list[T]:
        if isinstance(key, slice):
            return [self._item(row) for row in range(*key.indices(len(self)))]
        row = index(key)
        row += len(self) if row < 0 else 0
        if not 0 <= row < len(self):
            raise IndexError(f"row {key} of {len(self)}")
        return self._item(row)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))


class Texts(Compact[str]):
    """Texts, one after the other in one run of bytes.

    Args:
        data: all of them in UTF-8, halves of characters included.
        ends: where each ends.
    """

    def __init__(self, data: npt.NDArray[np.uint8], ends: Array) -> None:
        self.data, self.ends = data, ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Return the texts, of which only a few thousand need to be there at a time."""
        data, ends, length, rest = bytearray(), [np.empty(0, np.int64)], 0, iter(texts)
        while chunk := list(islice(rest, CHUNK)):
            joined = "".join(chunk).encode("utf-8", "surrogatepass")
            parts: Sequence[str | bytes] = chunk
            if len(joined) != sum(map(len, chunk)):
                parts = [text.encode("utf-8", "surrogatepass") for text in chunk]
            ends.append(length + np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts))))
            data += joined
            length = len(data)
        return cls(np.frombuffer(data, np.uint8), _small(np.concatenate(ends)))

    @classmethod
    def joined(cls, parts: Sequence[Texts]) -> Texts:
        """Return the texts of all parts in one."""
        lengths = np.cumsum([0, *(len(part.data) for part in parts)])
        ends = [part.ends + length for part, length in zip(parts, lengths[:-1], strict=True)]
        return cls(np.concatenate([part.data for part in parts]), _small(np.concatenate(ends)))

    def __len__(self) -> int:
        return len(self.ends)

    def _item(self, row: int) -> str:
        start = int(self.ends[row - 1]) if row else 0
        return self.data[start : int(self.ends[row])].tobytes().decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), CHUNK):
            start = int(self.ends[first - 1]) if first else 0
            ends = [0, *(self.ends[first : first + CHUNK].astype(np.int64) - start).tolist()]
            data = self.data[start : start + ends[-1]].tobytes()
            if data.isascii():
                text = data.decode("ascii")
                yield from [text[a:b] for a, b in pairwise(ends)]
            else:
                yield from [data[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(ends)]

    def kept(self, is_kept: Mask) -> Texts:
        """Return the texts of some rows."""
        return Texts.of(compress(self, is_kept.tolist()))


class LabelSets(Compact[LabelSet]):
    """The classes of each row.

    Args:
        values: all classes, one row's after the other's.
        ends: where each row's end.
    """

    def __init__(self, values: npt.NDArray[np.int32], ends: Array) -> None:
        self.values, self.ends = values, ends

    @classmethod
    def of(cls, sets: Iterable[LabelSet]) -> LabelSets:
        """Return the classes of rows."""
        rows = list(sets)
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return cls(np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum())), _small(np.cumsum(lengths)))

    @classmethod
    def chosen(cls, sets: Sequence[LabelSet], codes: Array) -> LabelSets:
        """Return the classes of rows, each of which has one of some sets."""
        known = cls.of(sets)
        lengths = np.fromiter(map(len, sets), np.int64, len(sets))[codes]
        ends = np.cumsum(lengths)
        first = known.ends.astype(np.int64)[codes] - ends  # of a row in `values`, less its place in the result
        places = np.repeat(first, lengths) + np.arange(ends[-1] if len(ends) else 0)
        return cls(known.values[places], _small(ends))

    def __len__(self) -> int:
        return len(self.ends)

    def _item(self, row: int) -> LabelSet:
        start = int(self.ends[row - 1]) if row else 0
        return tuple(self.values[start : int(self.ends[row])].tolist())

    def __iter__(self) -> Iterator[LabelSet]:
        if len(self.values) == len(self.ends) and (np.diff(self.ends) == 1).all():
            return zip(self.values.tolist())  # one class each, which is nearly every list
        values, ends = self.values.tolist(), [0, *self.ends.tolist()]
        return (tuple(values[a:b]) for a, b in pairwise(ends))

    def used(self) -> set[int]:
        """Return the classes that some row has."""
        return set(np.unique(self.values).tolist())

    def first_row_with(self, is_such: Mask) -> int:
        """Return the first row that has one of some classes; `is_such` says of each of `values` whether it is."""
        return int(np.searchsorted(self.ends, int(np.argmax(is_such)), side="right"))

    def renumbered(self, numbers: Sequence[int]) -> LabelSets:
        """Return the same with `numbers[label]` in place of each label."""
        return LabelSets(np.asarray(numbers, np.int32)[self.values], self.ends)

    def kept(self, is_kept: Mask) -> LabelSets:
        """Return the classes of some rows."""
        return LabelSets.of(compress(self, is_kept.tolist()))


class Column(Generic[T]):
    """One value for each row, out of a few that are there once.

    Args:
        values: those that some row has, in the order in which they come.
        codes: which of them each row has.
    """

    def __init__(self, values: Sequence[T], codes: npt.NDArray[np.int32]) -> None:
        self.values, self.codes = values, codes

    def __iter__(self) -> Iterator[T]:
        return map(self.values.__getitem__, self.codes.tolist())

    def numbers(self, numbers: Sequence[float | None], kind: type) -> Array | None:
        """Return for each row what `numbers` has in the place of its value; None if it has nothing for any row."""
        if all(number is None for number in numbers):
            return None
        return _numbers(numbers, kind)[self.codes]

    def mapped(self, change: Callable[[T], T]) -> Column[T]:
        """Return the same with each value changed."""
        return Column([change(value) for value in self.values], self.codes)

    def first_row_of(self, value: int) -> int:
        """Return the first row that has a value, given by its place in `values`."""
        return int(np.argmax(self.codes == value))


class ColumnBuilder(Generic[T]):
    """Takes the values of a column, some rows at a time."""

    def __init__(self) -> None:
        self._known: Made[T, int] = Made(lambda value: len(self._known))
        self._codes: list[npt.NDArray[np.int32]] = []

    def add(self, values: Sequence[T]) -> ColumnBuilder[T]:
        """Take the values of some more rows."""
        self._codes.append(np.fromiter(map(self._known.__getitem__, values), np.int32, len(values)))
        return self

    def column(self) -> Column[T]:
        """Return all of them."""
        return Column(list(self._known), np.concatenate(self._codes))


class Columns(Compact[Sample]):
    """The rows of a list.

    Args:
        paths: as listed.
        labels: all classes of each row.
        is_multi_label: whether a row may have several.
        numbers: fields of samples that are numbers, by their names; no row has one that is not here.
        statuses: of each row; None if all are "ok".
    """

    def __init__(
        self,
        paths: Texts,
        labels: LabelSets,
        *,
        is_multi_label: bool = False,
        numbers: Mapping[str, Array | None] | None = None,
        statuses: Column[str] | None = None,
    ) -> None:
        self.paths, self.labels, self.is_multi_label = paths, labels, is_multi_label
        self.numbers = {name: values for name, values in (numbers or {}).items() if values is not None}
        self.statuses = None if statuses is None or set(statuses.values) == {"ok"} else statuses

    @classmethod
    def of(cls, samples: Iterable[Sample], *, is_multi_label: bool) -> Columns:
        """Return the same rows in arrays."""
        if isinstance(samples, Columns):
            return samples
        rows = list(samples)

        def column(name: str) -> Column[Any]:
            return ColumnBuilder[Any]().add([getattr(sample, name) for sample in rows]).column()

        columns = [(name, column(name), kind) for kind, names in ((int, _WHOLE), (float, _REAL)) for name in names]
        return cls(
            Texts.of(sample.path for sample in rows),
            LabelSets.of(sample.labels for sample in rows),
            is_multi_label=is_multi_label,
            numbers={name: each.numbers(each.values, kind) for name, each, kind in columns},
            statuses=column("status"),
        )

    def __len__(self) -> int:
        return len(self.paths)

    def _item(self, row: int) -> Sample:
        labels = self.labels[row]
        numbers = {name: _number(values[row].item()) for name, values in self.numbers.items()}
        status = "ok" if self.statuses is None else self.statuses.values[int(self.statuses.codes[row])]
        return Sample(self.paths[row], self._label(labels), labels, **(_ABSENT | numbers), status=status)

    def __iter__(self) -> Iterator[Sample]:
        numbers = [self._column(name) for name in (*_WHOLE, *_REAL)]
        start, frames, width, height, fps, duration, start_seconds, end_seconds = numbers
        statuses = iter(self.statuses) if self.statuses is not None else iter(["ok"] * len(self))
        labels = map(self._label, self.labels)
        columns = (start, frames, fps, width, height, duration, statuses, start_seconds, end_seconds)
        return map(Sample, self.paths, labels, self.labels, *columns)

    def _label(self, labels: LabelSet) -> int | None:
        return labels[0] if labels and not self.is_multi_label else None

    def _column(self, name: str) -> Iterator[Any]:
        """Yield what each row has for a field that is a number."""
        if name not in self.numbers:
            return iter([_ABSENT.get(name)] * len(self))
        values = self.numbers[name]
        chunks = (values[at : at + CHUNK].tolist() for at in range(0, len(self), CHUNK))
        return map(_number, chain.from_iterable(chunks))

    def any_starts_later(self) -> bool:
        """Return whether some row starts after frame 0 of its video."""
        return "start" in self.numbers and bool((self.numbers["start"] > 0).any())

    def usable(self) -> Mask:
        """Return of each row whether its file could be read when the list was made."""
        if self.statuses is None:
            return np.ones(len(self), np.bool_)
        return np.array([status in USABLE for status in self.statuses.values], np.bool_)[self.statuses.codes]

    def kept(self, is_kept: Mask) -> Columns:
        """Return some rows."""
        statuses = self.statuses
        return Columns(
            self.paths.kept(is_kept),
            self.labels.kept(is_kept),
            is_multi_label=self.is_multi_label,
            numbers={name: values[is_kept] for name, values in self.numbers.items()},
            statuses=None if statuses is None else Column(statuses.values, statuses.codes[is_kept]),
        )

    def fingerprint(self) -> str:
        """Return what `Manifest.fingerprint` says."""
        digest = hashlib.sha256()
        of_status: Made[str, str] = Made(lambda status: "" if status == "ok" else repr(status))
        statuses = iter([""] * len(self)) if self.statuses is None else map(of_status.__getitem__, self.statuses)
        if "start_seconds" in self.numbers or "end_seconds" in self.numbers:
            times = zip(self._column("start_seconds"), self._column("end_seconds"), strict=True)
            fragments: Made[tuple[float | None, float | None], str] = Made(_fragment)
            statuses = map(str.__add__, statuses, map(fragments.__getitem__, times))
        texts: Made[object, str] = Made(str)
        columns = (self.labels, self._column("start"), self._column("num_frames"))
        rows = map(
            "\0".join, zip(self.paths, *(map(texts.__getitem__, each) for each in columns), statuses, strict=True)
        )
        while chunk := list(islice(rows, CHUNK)):
            digest.update(("\n".join(chunk) + "\n").encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


class Files(Compact[str]):
    """Where the files of rows are.

    Args:
        root: folder that relative paths start from.
        paths: as listed.
        others: the paths of those rows that are elsewhere than listed.
        places: what is put behind each, for those on other machines.
    """

    def __init__(self, root: str, paths: Texts, others: Mapping[int, str], places: Texts | None = None) -> None:
        self.root, self.paths, self.others, self.places = root, paths, others, places

    def __len__(self) -> int:
        return len(self.paths)

    def _item(self, row: int) -> str:
        place = "" if self.places is None else self.places[row]
        return os.path.join(self.root, self.others.get(row) or self.paths[row]) + place

    def __iter__(self) -> Iterator[str]:
        if self.others or self.places is not None:
            return (self._item(row) for row in range(len(self)))
        folder = os.path.join(self.root, "")
        return (path if path.startswith(os.sep) else folder + path for path in self.paths)

    def kept(self, is_kept: Mask, paths: Texts) -> Files:
        """Return those of some rows, whose paths are these."""
        places = np.cumsum(is_kept) - 1
        others = {int(places[row]): path for row, path in self.others.items() if is_kept[row]}
        return Files(self.root, paths, others, None if self.places is None else self.places.kept(is_kept))


def _fragment(times: tuple[float | None, float | None]) -> str:
    return Sample("", start_seconds=times[0], end_seconds=times[1]).part.fragment


def _numbers(numbers: Sequence[float | None], kind: type) -> Array:
    """Return numbers in an array, in which -1 and nan stand for none."""
    if kind is float:
        return np.array([math.nan if number is None else number for number in numbers], np.float64)
    return _small(np.array([-1 if number is None else min(int(number), _MOST) for number in numbers], np.int64))


def _number(value: T) -> T | None:
    """Return what `_numbers` has written as a value."""
    return None if value == -1 or value != value else value


def _small(values: npt.NDArray[np.int64]) -> Array:
    """Return whole numbers in 32 bits where they fit."""
    return values.astype(np.int32) if not len(values) or values.max() < 2**31 else values
