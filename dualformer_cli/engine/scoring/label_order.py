"""Evidence that labels and predictions number the classes differently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dualformer_cli.engine.scoring.comparison import mcnemar
from dualformer_cli.engine.scoring.mistakes import Confusion


@dataclass(frozen=True, slots=True)
class LabelPermutation:
    """Evidence that labels and predictions number the classes differently."""

    mapping: dict[int, int]
    """Class that the model predicts for each label that seems to have moved."""
    num_classes: int
    top1: float
    """Percent of all videos, as labelled."""
    top1_mapped: float
    """Percent of all videos if the moved labels are read as `mapping` says."""

    def describe(self, class_names: Sequence[str]) -> str:
        """Say in a sentence or two what seems to be permuted, with examples and, where it shows, the rule behind."""
        moved = list(self.mapping.items())
        examples = ", ".join(f"{class_names[true]!r} is predicted as {class_names[to]!r}" for true, to in moved[:3])
        rule = _rule_of(self.mapping, class_names)
        return (
            f"the labels seem to be in another order than the model's classes: {examples}"
            f"{', ...' if len(moved) > 3 else ''} ({len(moved)} of {self.num_classes} classes{rule}); top-1 is "
            f"{self.top1:.2f} and would be {self.top1_mapped:.2f} in the order that the predictions suggest"
        )


def find_permutation(confusion: Confusion) -> LabelPermutation | None:
    """Look for a permuted label order: classes that are clearly, and each for itself, predicted as another.

    A link from a label to a class needs a quarter of the label's videos and of the class's predictions, and must stay
    the largest count of its row and column without one of its videos, or chance would make links between classes
    with few videos. Links count as a permutation if they close a circle, or cover half of the labels, or (five at
    least) are all shifts by the same number; and if it explains these videos better than the labels do (exact McNemar
    test, p < 0.001). One of two classes that are simply alike does not pass.
    """
    links = _strong_links(confusion)
    moved = {true: to for true, to in links.items() if true != to}
    shifts = {to - true for true, to in moved.items()}
    num_labels = int(np.count_nonzero(confusion.class_videos()))
    if 2 * len(moved) >= max(4, num_labels) or (len(shifts) == 1 and len(moved) >= 5):
        candidates = [moved]
    else:
        candidates = _circles(moved)
    counts = {(true, to): count for true, to, count in confusion.pairs()}
    mapping: dict[int, int] = {}
    for candidate in candidates:
        mapped = sum(counts[link] for link in candidate.items())
        kept = sum(counts.get((true, true), 0) for true in candidate)
        if mapped > kept and mcnemar(mapped, kept).p_value < 0.001:
            mapping.update(candidate)
    if not mapping:
        return None
    videos, hits = int(confusion.counts.sum()), int(confusion.class_hits().sum())
    gain = sum(counts[link] - counts.get((link[0], link[0]), 0) for link in mapping.items())
    return LabelPermutation(
        dict(sorted(mapping.items())), confusion.num_classes, 100 * hits / videos, 100 * (hits + gain) / videos
    )


def _strong_links(confusion: Confusion) -> dict[int, int]:
    """The class that each label is clearly predicted as; no two labels share one."""
    rows, columns = confusion.class_videos(), confusion.class_predictions()
    row_best, row_next = _two_largest(confusion.true, confusion)
    column_best, column_next = _two_largest(confusion.predicted, confusion)
    links = {}
    for true, to, count in confusion.pairs():
        is_best = count == row_best[true] == column_best[to]
        if is_best and count - 1 > max(row_next[true], column_next[to]) and 4 * count >= max(rows[true], columns[to]):
            links[true] = to
    return links


def _two_largest(
    classes: npt.NDArray[np.int64], confusion: Confusion
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    best, following = np.zeros(confusion.num_classes, np.int64), np.zeros(confusion.num_classes, np.int64)
    for index, count in zip(classes.tolist(), confusion.counts.tolist(), strict=True):
        best[index], following[index], _ = sorted((best[index], following[index], count), reverse=True)
    return best, following


def _circles(links: Mapping[int, int]) -> list[dict[int, int]]:
    circles, seen = [], set[int]()
    for start in links:
        chain: dict[int, int] = {}
        true = start
        while true in links and true not in seen:
            seen.add(true)
            chain[true] = links[true]
            true = links[true]
        if true == start and chain:
            circles.append(chain)
    return circles


def _rule_of(mapping: Mapping[int, int], class_names: Sequence[str]) -> str:
    """Name the rule that most of a mapping follows, or return an empty string."""
    numbers = range(len(class_names))
    by_name = sorted(numbers, key=lambda index: class_names[index])
    by_digits = sorted(numbers, key=str)
    rules = {
        "; the model's classes are in alphabetical order, the labels are not": _inverse(by_name),
        "; the labels are in alphabetical order, the model's classes are not": dict(enumerate(by_name)),
        "; the model's numbers were sorted as text: 0, 1, 10, 11, ...": _inverse(by_digits),
        "; the labels' numbers were sorted as text: 0, 1, 10, 11, ...": dict(enumerate(by_digits)),
    }
    for shift in sorted({to - true for true, to in mapping.items()}):
        rules[f"; labels are {abs(shift)} too {'low' if shift > 0 else 'high'}"] = {i: i + shift for i in numbers}
    for rule, order in rules.items():
        if len(mapping) > 2 and sum(order[true] == to for true, to in mapping.items()) >= 0.8 * len(mapping):
            return rule
    return ""


def _inverse(order: Sequence[int]) -> dict[int, int]:
    return {index: place for place, index in enumerate(order)}
