"""Scores and labels become numbers: accuracies in percent, intervals, comparisons, and what a report lists.

Everything here is NumPy on arrays of all videos, gathered from all ranks. The classes of a video are ranked by score;
of equal scores the lower class number comes first, as in `predict`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dualformer_cli.errors import DualFormerError

Scores = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]
Hits = npt.NDArray[np.bool_]


def _ratio(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else math.nan


def label_ranks(scores: Scores, labels: Labels) -> npt.NDArray[np.int64]:
    """How many classes come before the label, shape (n,); 0 is a top-1 hit, below 5 a top-5 hit.

    Args:
        scores: shape (n, classes).
        labels: class numbers, shape (n,).

    Raises:
        ValueError: if shapes differ, a label is no class or a score is NaN.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} do not fit")
    if len(labels) and not 0 <= labels.min() <= labels.max() < scores.shape[1]:
        raise ValueError(f"labels must be 0 to {scores.shape[1] - 1}, got {labels.min()} to {labels.max()}")
    if np.isnan(scores).any():
        raise ValueError("a score is not a number")
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    before = np.arange(scores.shape[1]) < labels[:, None]
    return np.count_nonzero((scores > own) | ((scores == own) & before), axis=1)


def accuracy(hits: Hits) -> float:
    """Percent of True; NaN of nothing."""
    return 100 * _ratio(np.count_nonzero(hits), hits.size)


def mean_class_accuracy(class_videos: npt.NDArray[Any], class_hits: npt.NDArray[Any]) -> float:
    """Mean percent of hits over the classes that have videos; NaN if none has.

    The published code also averaged in classes that were only predicted, as zeros.

    Args:
        class_videos, class_hits: counts per class, shape (classes,).
    """
    present = class_videos > 0
    return float(100 * (class_hits[present] / class_videos[present]).mean()) if present.any() else math.nan


def accuracy_interval(
    hits: Hits, *, seed: int = 0, resamples: int = 1000, confidence: float = 0.95
) -> tuple[float, float]:
    """Bootstrap interval of an accuracy in percent, from `resamples` draws of all videos with replacement.

    The hits in one such draw are binomial, so each takes one random number in place of n.
    """
    if not hits.size:
        return math.nan, math.nan
    draws = np.random.default_rng(seed).binomial(hits.size, hits.mean(), size=resamples)
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(100 * low / hits.size), float(100 * high / hits.size)


def multi_hot(labels: Sequence[Sequence[int]], num_classes: int) -> Hits:
    """Lists of class numbers to yes or no per class, shape (n, classes)."""
    table = np.zeros((len(labels), num_classes), dtype=np.bool_)
    for row, classes in zip(table, labels, strict=True):
        row[list(classes)] = True
    return table


def average_precision(scores: Scores, positives: Hits) -> float:
    """Precision averaged over the steps of recall, 0 to 1; equal scores are one step. NaN without positives.

    Args:
        scores, positives: shape (n,).
    """
    total = np.count_nonzero(positives)
    if not total:
        return math.nan
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(positives[order])
    step_ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    precision, new = found[step_ends] / (step_ends + 1), np.diff(found[step_ends], prepend=0)
    return float(np.sum(precision * new) / total)


def sample_average_precisions(scores: Scores, positives: Hits) -> npt.NDArray[np.float64]:
    """Average precision of each video's ranking of the classes, 0 to 1, for the videos that have a label."""
    _check_multi_label(scores, positives)
    rows = [average_precision(*row) for row in zip(scores, positives, strict=True)]
    precisions = np.array(rows, dtype=np.float64)
    return precisions[~np.isnan(precisions)]


def class_average_precisions(scores: Scores, positives: Hits) -> npt.NDArray[np.float64]:
    """Average precision of each class's ranking of the videos, 0 to 1, shape (classes,); NaN where no video has it."""
    _check_multi_label(scores, positives)
    return np.array([average_precision(*column) for column in zip(scores.T, positives.T, strict=True)])


def _check_multi_label(scores: Scores, positives: Hits) -> None:
    if scores.ndim != 2 or scores.shape != positives.shape or positives.dtype != np.bool_:
        raise ValueError(f"scores {scores.shape} and {positives.dtype} labels {positives.shape} do not fit")
    if np.isnan(scores).any():
        raise ValueError("a score is not a number")


def single_label_results(scores: Scores, labels: Labels, *, seed: int = 0) -> dict[str, Any]:
    """Return top1, its interval, top5 and mean_class_accuracy over all videos, in percent.

    Args:
        scores: shape (n, classes).
        labels: class numbers, shape (n,).
        seed: of the bootstrap.
    """
    ranks = label_ranks(scores, labels)
    videos = np.bincount(labels, minlength=scores.shape[1])
    hits = np.bincount(labels[ranks < 1], minlength=scores.shape[1])
    return {
        "top1": accuracy(ranks < 1),
        "top1_interval": list(accuracy_interval(ranks < 1, seed=seed)),
        "top5": accuracy(ranks < 5),
        "mean_class_accuracy": mean_class_accuracy(videos, hits),
    }


def multi_label_results(scores: Scores, positives: Hits) -> dict[str, Any]:
    """Return both kinds of mAP in percent: over classes (the usual one), and over videos.

    Args:
        scores: shape (n, classes).
        positives: yes or no per class, shape (n, classes).
    """
    classes, samples = class_average_precisions(scores, positives), sample_average_precisions(scores, positives)
    present = classes[~np.isnan(classes)]
    return {
        "mean_average_precision": float(100 * present.mean()) if present.size else math.nan,
        "sample_average_precision": float(100 * samples.mean()) if samples.size else math.nan,
    }


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

    def dense(self) -> npt.NDArray[np.int64]:
        """The matrix (true, predicted), shape (classes, classes)."""
        matrix = np.zeros((self.num_classes, self.num_classes), dtype=np.int64)
        matrix[self.true, self.predicted] = self.counts
        return matrix

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

    def pairs(self) -> list[tuple[int, int, int]]:
        """(true, predicted, videos) of all pairs."""
        return list(zip(self.true.tolist(), self.predicted.tolist(), self.counts.tolist(), strict=True))

    def mistakes(self) -> list[tuple[int, int, int]]:
        """(true, predicted, videos) of the wrong pairs, most videos first."""
        return sorted((pair for pair in self.pairs() if pair[0] != pair[1]), key=lambda pair: -pair[2])


def class_rows(confusion: Confusion, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return {"label", "index", "videos", "correct", "accuracy", "taken_for", "taken_for_videos"} of every class.

    The accuracy is in percent, None without videos. "taken_for" is the wrong class that was predicted most, or None.
    """
    worst: dict[int, tuple[int | None, int]] = {}
    for true, predicted, count in confusion.mistakes():
        worst.setdefault(true, (predicted, count))
    rows = []
    counts = zip(confusion.class_videos().tolist(), confusion.class_hits().tolist(), strict=True)
    for index, (videos, hits) in enumerate(counts):
        taken_for, count = worst.get(index, (None, 0))
        rows.append(
            {
                "label": class_names[index],
                "index": index,
                "videos": videos,
                "correct": hits,
                "accuracy": 100 * hits / videos if videos else None,
                "taken_for": None if taken_for is None else class_names[taken_for],
                "taken_for_videos": count,
            }
        )
    return rows


def confused_pairs(confusion: Confusion, class_names: Sequence[str], *, most: int = 30) -> list[dict[str, Any]]:
    """Return the commonest mistakes, {"label", "predicted", "videos", "share"}; share is percent of the label's."""
    totals = confusion.class_videos()
    return [
        {
            "label": class_names[true],
            "predicted": class_names[predicted],
            "videos": count,
            "share": float(100 * count / totals[true]),
        }
        for true, predicted, count in confusion.mistakes()[:most]
    ]


def worst_videos(
    paths: Sequence[str], scores: Scores, labels: Labels, class_names: Sequence[str], *, most: int = 24
) -> list[dict[str, Any]]:
    """Return the wrong videos whose label has the lowest score: {"path", "label", "label_score", "predicted", "score"}.

    Hard videos and wrong labels come first.
    """
    own = scores[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(label_ranks(scores, labels) > 0)
    rows = sorted(wrong.tolist(), key=lambda row: (own[row], paths[row]))[:most]
    best = scores.argmax(axis=1)
    return [
        {
            "path": paths[row],
            "label": class_names[labels[row]],
            "label_score": float(own[row]),
            "predicted": class_names[best[row]],
            "score": float(scores[row, best[row]]),
        }
        for row in rows
    ]


def calibration(scores: Scores, labels: Labels, *, num_bins: int = 15) -> dict[str, Any]:
    """Compare confidence with accuracy in bins of equal width of the best score.

    Args:
        scores: probabilities, shape (n, classes).
        labels: class numbers, shape (n,).
        num_bins: from 0 to 1.

    Returns:
        {"expected_calibration_error", "bins": [{"low", "high", "videos", "confidence", "accuracy"}]}: the error is the
        mean distance between the two over videos, in percent points; a bin's confidence and accuracy are in percent,
        and a bin without videos is left out.
    """
    confidence, hits = scores.max(axis=1, initial=0).astype(np.float64), label_ranks(scores, labels) < 1
    places = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    videos, confidences, right = (
        np.bincount(places, weights=weights, minlength=num_bins) for weights in (None, confidence, hits)
    )
    bins = [
        {
            "low": place / num_bins,
            "high": (place + 1) / num_bins,
            "videos": int(videos[place]),
            "confidence": float(100 * confidences[place] / videos[place]),
            "accuracy": float(100 * right[place] / videos[place]),
        }
        for place in np.flatnonzero(videos).tolist()
    ]
    error = _ratio(sum(row["videos"] * abs(row["confidence"] - row["accuracy"]) for row in bins), len(labels))
    return {"expected_calibration_error": error, "bins": bins}


def view_order(num_clips: int, num_crops: int) -> list[int]:
    """In which order to add the views of a video: the middle clip, then always the one farthest from those before it.

    All centre crops come before all others. Views are numbered clip * num_crops + crop; a clip's centre crop is its
    last.
    """
    clips = [num_clips // 2]
    while len(clips) < num_clips:
        rest = [clip for clip in range(num_clips) if clip not in clips]
        clips.append(max(rest, key=lambda clip: min(abs(clip - other) for other in clips)))
    return [clip * num_crops + crop for crop in reversed(range(num_crops)) for clip in clips]


def view_hits(view_scores: Scores, label: int, order: Sequence[int]) -> Hits:
    """Whether the mean over the first 1, 2, ... views of a video in `order` recognises it, shape (v,).

    Args:
        view_scores: one row per view, shape (v, classes).
        label: class number.
        order: of the views, as `view_order` gives it.
    """
    totals = np.cumsum(view_scores[list(order)], axis=0, dtype=np.float64)
    return label_ranks(totals, np.full(len(totals), label)) < 1


def view_curve(hits: Hits) -> list[dict[str, Any]]:
    """Accuracy against cost: {"views", "top1"} for 1, 2, ... views, from the `view_hits` of all videos (n, v)."""
    return [{"views": number, "top1": accuracy(column)} for number, column in enumerate(hits.T, start=1)]


def score_digest(videos: Iterable[tuple[str, npt.NDArray[Any]]]) -> str:
    """SHA-256 over (path, scores) of all videos: equal on any number of ranks and in any order of the list.

    Scores count as float32, bit for bit; a negative zero counts as zero.
    """
    digest = hashlib.sha256()
    for line in sorted(_digest_line(path, scores) for path, scores in videos):
        digest.update(line.encode("ascii"))
    return digest.hexdigest()


def _digest_line(path: str, scores: npt.NDArray[Any]) -> str:
    rounded = scores.astype("<f4") + np.float32(0)
    return f"{json.dumps(path)} {rounded.astype('<f4').tobytes().hex()}\n"


def mcnemar(only_first: int, only_second: int) -> dict[str, float]:
    """Test whether two classifiers differ, from the videos that only one of them recognises.

    Returns:
        {"p_value", "chi_squared", "p_value_chi_squared"}: the exact two-sided binomial value, and the statistic with
        continuity correction and its value.
    """
    disagreements, fewer = only_first + only_second, min(only_first, only_second)
    if not disagreements:
        return {"p_value": 1.0, "chi_squared": 0.0, "p_value_chi_squared": 1.0}
    ways = tail = 1
    for number in range(fewer):
        ways = ways * (disagreements - number) // (number + 1)
        tail += ways
    chi_squared = max(0, abs(only_first - only_second) - 1) ** 2 / disagreements
    return {
        "p_value": min(1.0, 2 * tail / 2**disagreements),
        "chi_squared": chi_squared,
        "p_value_chi_squared": math.erfc(math.sqrt(chi_squared / 2)),
    }


def compare_runs(first: Mapping[str, tuple[int, int]], second: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """Compare two runs over the videos that both scored.

    Args:
        first, second: (label, predicted class) of each video, by its path.

    Returns:
        {"videos", "only_in_first", "only_in_second", "top1_first", "top1_second", "both_right", "first_right",
        "second_right", "both_wrong", "p_value", "chi_squared", "p_value_chi_squared", "flipped"}: counts of videos,
        percents, `mcnemar`, and the videos that only one run recognises, sorted by path, as {"path", "label", "first",
        "second"} with class numbers.

    Raises:
        DualFormerError: if the runs have no video in common, or give one different labels.
    """
    common = sorted(first.keys() & second.keys())
    if not common:
        raise DualFormerError(
            f"the two runs have no video in common ({len(first)} and {len(second)} videos); compare runs over one list"
        )
    right = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    flipped = []
    for path in common:
        (label, before), (other_label, after) = first[path], second[path]
        if label != other_label:
            raise DualFormerError(
                f"the two runs label {path!r} differently, {label} and {other_label}; compare runs over one list"
            )
        outcome = (label == before, label == after)
        right[outcome] += 1
        if outcome[0] != outcome[1]:
            flipped.append({"path": path, "label": label, "first": before, "second": after})
    return {
        "videos": len(common),
        "only_in_first": len(first) - len(common),
        "only_in_second": len(second) - len(common),
        "top1_first": 100 * (right[True, True] + right[True, False]) / len(common),
        "top1_second": 100 * (right[True, True] + right[False, True]) / len(common),
        "both_right": right[True, True],
        "first_right": right[True, False],
        "second_right": right[False, True],
        "both_wrong": right[False, False],
        **mcnemar(right[True, False], right[False, True]),
        "flipped": flipped,
    }


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
        if mapped > kept and mcnemar(mapped, kept)["p_value"] < 0.001:
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
