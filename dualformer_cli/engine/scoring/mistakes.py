"""What was taken for what: confusions, the classes and videos that a model gets wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dualformer_cli.documents.evaluate import ClassRow, ConfusedPair, WorstVideo
from dualformer_cli.engine.scoring.metrics import Labels, Scores, label_ranks


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many videos of one class were taken for which, as the list of pairs that occur: most of 600 x 600 do not."""

    num_classes: int
    true: npt.NDArray[np.int64]
    """True class of each pair, in order, shape (pairs,)."""
    predicted: npt.NDArray[np.int64]
    """Predicted class of each pair, in order for each true class, shape (pairs,)."""
    counts: npt.NDArray[np.int64]
    """Videos of each pair, above 0, shape (pairs,)."""

    @classmethod
    def of(cls, labels: Labels, predicted: Labels, num_classes: int) -> Confusion:
        """Count the pairs of labels (n,) and predicted classes (n,)."""
        pairs, counts = np.unique(labels.astype(np.int64) * num_classes + predicted, return_counts=True)
        return cls(num_classes, *np.divmod(pairs, num_classes), counts)

    def class_videos(self) -> npt.NDArray[np.int64]:
        """Videos of each class, shape (classes,)."""
        return self._totals(self.true, np.ones_like(self.counts))

    def class_hits(self) -> npt.NDArray[np.int64]:
        """Videos of each class that were recognised, shape (classes,)."""
        return self._totals(self.true, self.true == self.predicted)

    def class_predictions(self) -> npt.NDArray[np.int64]:
        """Videos taken for each class, shape (classes,)."""
        return self._totals(self.predicted, np.ones_like(self.counts))

    def _totals(self, classes: npt.NDArray[np.int64], counted: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        totals = np.zeros(self.num_classes, dtype=np.int64)
        np.add.at(totals, classes, self.counts * counted)
        return totals

    def table(self) -> tuple[tuple[int, ...], ...]:
        """Return the videos of the row's class that were taken for the column's class."""
        table = np.zeros((self.num_classes, self.num_classes), dtype=np.int64)
        table[self.true, self.predicted] = self.counts
        return tuple(map(tuple, table.tolist()))

    def pairs(self) -> list[tuple[int, int, int]]:
        """(true, predicted, videos) of all pairs."""
        return list(zip(self.true.tolist(), self.predicted.tolist(), self.counts.tolist(), strict=True))

    def mistakes(self) -> list[tuple[int, int, int]]:
        """(true, predicted, videos) of the wrong pairs, most videos first."""
        return sorted((pair for pair in self.pairs() if pair[0] != pair[1]), key=lambda pair: -pair[2])


def class_rows(confusion: Confusion, class_names: Sequence[str]) -> tuple[ClassRow, ...]:
    """Return a row of every class."""
    worst: dict[int, tuple[int | None, int]] = {}
    for true, predicted, count in confusion.mistakes():
        worst.setdefault(true, (predicted, count))
    rows = []
    counts = zip(confusion.class_videos().tolist(), confusion.class_hits().tolist(), strict=True)
    for index, (videos, hits) in enumerate(counts):
        taken_for, count = worst.get(index, (None, 0))
        rows.append(
            ClassRow(
                label=class_names[index],
                index=index,
                videos=videos,
                correct=hits,
                accuracy=100 * hits / videos if videos else None,
                taken_for=None if taken_for is None else class_names[taken_for],
                taken_for_videos=count,
            )
        )
    return tuple(rows)


def confused_pairs(confusion: Confusion, class_names: Sequence[str], *, most: int = 30) -> tuple[ConfusedPair, ...]:
    """Return the commonest mistakes, most videos first."""
    totals = confusion.class_videos()
    return tuple(
        ConfusedPair(
            label=class_names[true],
            predicted=class_names[predicted],
            videos=count,
            share=float(100 * count / totals[true]),
        )
        for true, predicted, count in confusion.mistakes()[:most]
    )


def worst_videos(
    paths: Sequence[str], scores: Scores, labels: Labels, class_names: Sequence[str], *, most: int = 24
) -> tuple[WorstVideo, ...]:
    """Return the wrong videos whose label has the lowest score: hard videos and wrong labels come first."""
    own = scores[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(label_ranks(scores, labels) > 0)
    rows = sorted(wrong.tolist(), key=lambda row: (own[row], paths[row]))[:most]
    best = scores.argmax(axis=1)
    return tuple(
        WorstVideo(
            path=paths[row],
            label=class_names[labels[row]],
            label_score=float(own[row]),
            predicted=class_names[best[row]],
            score=float(scores[row, best[row]]),
        )
        for row in rows
    )
