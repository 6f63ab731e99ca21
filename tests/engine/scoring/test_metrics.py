"""Accuracies and what a report lists, each against a plain restatement or a value worked out by hand."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualformer_cli.config.metric_table import METRICS, best_metrics, is_better
from dualformer_cli.documents.base import to_json
from dualformer_cli.engine.scoring import comparison, label_order, metrics, mistakes, summary, views_curve
from dualformer_cli.engine.scoring.mistakes import Confusion
from dualformer_cli.errors import DualFormerError

NAMES = ["pan left", "pan right", "static", "zoom in"]


def random_scores(videos: int, classes: int, seed: int = 0) -> np.ndarray:
    """Scores that sum to 1, with some ties."""
    scores = np.random.default_rng(seed).integers(0, 6, size=(videos, classes)) + 0.5
    return scores / scores.sum(axis=1, keepdims=True)


def random_labels(videos: int, classes: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, size=videos)


def single_label(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """The metrics of videos with one label each."""
    videos = metrics.ScoredVideos(scores, [(int(label),) for label in labels], len(labels))
    return metrics.measure(videos, multi_label=False)


def multi_label(scores: np.ndarray, labels: Sequence[Sequence[int]]) -> dict[str, Any]:
    return metrics.measure(metrics.ScoredVideos(scores, labels, len(labels)), multi_label=True)


def confusion_of(rows: Sequence[Sequence[int]] | np.ndarray) -> Confusion:
    """From a dense matrix (true, predicted)."""
    matrix = np.array(rows)
    true, predicted = np.nonzero(matrix)
    return Confusion(len(matrix), true, predicted, matrix[true, predicted])


@given(videos=st.integers(1, 20), classes=st.integers(1, 8), seed=st.integers(0, 1000))
def test_a_label_ranks_where_sorting_the_classes_puts_it(videos: int, classes: int, seed: int) -> None:
    scores, labels = random_scores(videos, classes, seed), random_labels(videos, classes, seed)
    order = np.argsort(-scores, axis=1, kind="stable")
    expected = [row.tolist().index(label) for row, label in zip(order, labels, strict=True)]
    assert metrics.label_ranks(scores, labels).tolist() == expected


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((2, 3)), np.array([0, 3]), "labels must be 0 to 2, got 0 to 3"),
        (np.zeros((2, 3)), np.array([-1, 0]), "labels must be 0 to 2, got -1 to 0"),
        (np.zeros((2, 3)), np.array([0]), r"scores \(2, 3\) and labels \(1,\) do not fit"),
        (np.array([[0.5, math.nan]]), np.array([0]), "a score is not a number"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused(scores: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.label_ranks(scores, labels)


def test_nothing_scored_gives_no_number() -> None:
    nothing = single_label(np.zeros((0, 3)), np.zeros(0, dtype=np.int64))
    assert math.isnan(nothing["top1"])
    assert math.isnan(nothing["mean_class_accuracy"])
    assert all(map(math.isnan, nothing["top1_interval"]))
    assert metrics.calibration(np.zeros((0, 3)), np.zeros(0, dtype=np.int64)).bins == ()


def test_class_accuracy_is_averaged_over_the_classes_that_have_videos() -> None:
    labels, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 2, 1])
    results = single_label(np.eye(3)[predicted], labels)
    assert results["top1"] == 75
    assert results["mean_class_accuracy"] == pytest.approx((200 / 3 + 100) / 2)  # class 2 was only predicted


@pytest.mark.parametrize(("num_right", "n"), [(0, 5), (5, 5), (30, 30), (1, 7), (140, 200)])
def test_the_interval_ends_where_the_score_test_refutes_the_rate(num_right: int, n: int) -> None:
    """Wilson's definition: at each end the observed rate is 1.959964 standard errors of that end away from it."""
    hits = np.arange(n) < num_right
    for end in metrics.accuracy_interval(hits):
        rate = end / 100
        distance = abs(num_right / n - rate)
        assert distance == pytest.approx(1.959964 * math.sqrt(rate * (1 - rate) / n), abs=1e-6)
    low, high = metrics.accuracy_interval(hits)
    assert 0 <= low < high <= 100
    assert low <= 100 * num_right / n <= high


def test_the_interval_of_thirty_hits_in_thirty_has_a_width() -> None:
    """88.65 is the lower end that R's `binom.confint(30, 30, methods = "wilson")` gives."""
    results = single_label(np.eye(2)[np.zeros(30, int)], np.zeros(30, int))
    assert results["top1_interval"] == (pytest.approx(88.65, abs=0.005), pytest.approx(100, abs=1e-9))


def test_the_interval_is_about_that_of_drawing_the_videos_again() -> None:
    hits = np.arange(200) < 140
    drawn = hits[np.random.default_rng(0).integers(0, 200, size=(1000, 200))].mean(axis=1) * 100
    assert metrics.accuracy_interval(hits) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=1)


def test_the_interval_holds_95_of_100_draws() -> None:
    """Of 400 fair coins 95% of draws have 180 to 220 heads (200 +- 1.96 * 10); 90% have 184 to 216."""
    low, high = single_label(np.eye(2)[np.arange(400) % 2], np.zeros(400, int))["top1_interval"]
    assert (low, high) == (pytest.approx(45.1, abs=0.5), pytest.approx(54.9, abs=0.5))


def average_precision_by_thresholds(scores: np.ndarray, positives: np.ndarray) -> float:
    """Sum over falling thresholds of precision times the recall that is new."""
    total, recall, result = positives.sum(), 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        taken = scores >= threshold
        found = (taken & positives).sum()
        result += found / taken.sum() * (found / total - recall)
        recall = found / total
    return float(result)


@given(videos=st.integers(1, 12), seed=st.integers(0, 1000))
def test_average_precision_steps_over_equal_scores_together(videos: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, positives = rng.integers(0, 4, size=videos) / 4, rng.random(videos) < 0.5
    positives[0] = True
    expected = average_precision_by_thresholds(scores, positives)
    assert metrics.average_precision(scores, positives) == pytest.approx(expected)


def test_map_over_classes_and_over_videos_leave_out_what_has_no_label() -> None:
    scores = np.array([[0.9, 0.2, 0.1], [0.3, 0.8, 0.5], [0.5, 0.6, 0.7]])
    positives = metrics.multi_hot([(0,), (0, 1), ()], 3)
    assert positives.tolist() == [[True, False, False], [True, True, False], [False] * 3]
    results = multi_label(scores, [(0,), (0, 1), ()])
    assert results["mean_average_precision"] == pytest.approx(100 * np.mean([(1 + 2 / 3) / 2, 1]))
    assert results["sample_average_precision"] == pytest.approx(100 * np.mean([1, (1 + 2 / 3) / 2]))
    wide = multi_label(np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]), [(0,), (1,), (1,)])
    assert wide["mean_average_precision"] == 100  # each class ranks its own videos first
    assert wide["sample_average_precision"] == pytest.approx(100 * (1 + 1 / 2 + 1) / 3)  # the second video's is second
    nothing = multi_label(scores, [(), (), ()])
    assert all(map(math.isnan, nothing.values()))


def test_labels_of_several_classes_must_be_yes_or_no() -> None:
    with pytest.raises(ValueError, match=r"scores \(2, 3\) and int64 labels \(2, 3\) do not fit"):
        metrics.class_average_precisions(np.zeros((2, 3)), np.zeros((2, 3), dtype=np.int64))


@given(videos=st.integers(0, 30), classes=st.integers(1, 6), seed=st.integers(0, 100))
def test_confusion_counts_every_video_once(videos: int, classes: int, seed: int) -> None:
    labels, predicted = random_labels(videos, classes, seed), random_labels(videos, classes, seed + 1)
    confusion = Confusion.of(labels, predicted, classes)
    expected = np.zeros((classes, classes), dtype=np.int64)
    for pair in zip(labels, predicted, strict=True):
        expected[pair] += 1
    assert confusion.pairs() == [(*pair, expected[pair]) for pair in np.ndindex(expected.shape) if expected[pair]]
    assert confusion.class_videos().tolist() == expected.sum(axis=1).tolist()
    assert confusion.class_predictions().tolist() == expected.sum(axis=0).tolist()
    assert confusion.class_hits().tolist() == expected.diagonal().tolist()
    assert [list(row) for row in confusion.table()] == expected.tolist()


def test_confusion_of_many_classes_keeps_only_pairs_that_occur() -> None:
    confusion = Confusion.of(np.array([99_999, 5, 5]), np.array([3, 5, 5]), 100_000)
    assert confusion.pairs() == [(5, 5, 2), (99_999, 3, 1)]


def test_rows_of_classes_and_pairs_say_what_was_taken_for_what() -> None:
    confusion = confusion_of([[2, 1, 1, 0], [0, 4, 0, 0], [3, 0, 1, 0], [0, 0, 0, 0]])
    rows = list(map(to_json, mistakes.class_rows(confusion, NAMES)))
    assert rows[0] == {
        "label": "pan left",
        "index": 0,
        "videos": 4,
        "correct": 2,
        "accuracy": 50.0,
        "taken_for": "pan right",
        "taken_for_videos": 1,
    }
    assert [(row["accuracy"], row["taken_for"]) for row in rows[1:]] == [(100, None), (25, "pan left"), (None, None)]
    assert list(map(to_json, mistakes.confused_pairs(confusion, NAMES, most=2))) == [
        {"label": "static", "predicted": "pan left", "videos": 3, "share": 75.0},
        {"label": "pan left", "predicted": "pan right", "videos": 1, "share": 25.0},
    ]


def test_the_worst_videos_are_wrong_and_those_with_the_lowest_score_of_their_label_come_first() -> None:
    scores = np.array([[0.6, 0.4, 0, 0], [0.05, 0.9, 0.05, 0], [0.3, 0.2, 0.4, 0.1], [0.05, 0.9, 0.05, 0]])
    rows = [asdict(row) for row in mistakes.worst_videos(["d", "c", "b", "a"], scores, np.array([0, 2, 1, 0]), NAMES)]
    assert [row["path"] for row in rows] == ["a", "c", "b"]
    assert rows[0] == {
        "path": "a",
        "label": "pan left",
        "label_score": 0.05,
        "predicted": "pan right",
        "score": 0.9,
        "thumbnail": None,
    }
    assert len(mistakes.worst_videos(["d", "c", "b", "a"], scores, np.array([0, 2, 1, 0]), NAMES, most=1)) == 1


def test_calibration_compares_confidence_with_accuracy_bin_by_bin() -> None:
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.0, 1.0]])
    result = to_json(metrics.calibration(scores, np.array([0, 1, 0, 1, 1]), num_bins=5))
    assert [(row["low"], row["high"], row["videos"]) for row in result["bins"]] == [
        (0.4, 0.6, 1),
        (0.6, 0.8, 1),
        (0.8, 1.0, 3),
    ]
    last = result["bins"][2]
    assert (last["confidence"], last["accuracy"]) == (pytest.approx(280 / 3), pytest.approx(200 / 3))
    assert result["expected_calibration_error"] == pytest.approx((40 + 30 + 80) / 5)


@pytest.mark.parametrize(
    ("num_clips", "num_crops", "order"),
    [(1, 1, [0]), (4, 1, [2, 0, 1, 3]), (2, 3, [5, 2, 4, 1, 3, 0]), (3, 3, [5, 2, 8, 4, 1, 7, 3, 0, 6])],
)
def test_views_are_added_from_the_middle_outwards_centre_crops_first(
    num_clips: int, num_crops: int, order: list[int]
) -> None:
    assert views_curve.view_order(num_clips, num_crops) == order


@given(num_clips=st.integers(1, 12), num_crops=st.sampled_from([1, 3]))
def test_every_view_is_added_once(num_clips: int, num_crops: int) -> None:
    assert sorted(views_curve.view_order(num_clips, num_crops)) == list(range(num_clips * num_crops))


def test_the_curve_over_views_ends_at_the_accuracy_of_all() -> None:
    rng = np.random.default_rng(0)
    views, labels = rng.random((40, 4, 3)).astype(np.float32), random_labels(40, 3)
    order = views_curve.view_order(4, 1)
    hits = np.stack([views_curve.view_hits(rows, label, order) for rows, label in zip(views, labels, strict=True)])
    curve = list(map(to_json, views_curve.view_curve(hits)))
    assert [point["views"] for point in curve] == [1, 2, 3, 4]
    assert curve[0]["top1"] == metrics.accuracy(views[:, 2].argmax(axis=1) == labels)
    assert curve[3]["top1"] == metrics.accuracy(views.mean(axis=1, dtype=np.float64).argmax(axis=1) == labels)


def test_the_digest_depends_on_paths_and_scores_but_not_on_their_order() -> None:
    videos = [("b\n.mp4", np.array([0.25, 1.0])), ("a\udcff.mp4", np.array([0.1, -0.0]))]
    digest = summary.score_digest(videos)
    lines = (
        f'"b\\n.mp4" {struct.pack("<2f", 0.25, 1).hex()}\n',
        f'"a\\udcff.mp4" {struct.pack("<2f", 0.1, 0).hex()}\n',
    )
    assert digest == hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    assert summary.score_digest([videos[0], ("a\udcff.mp4", np.array([0.1, -1e-60]))]) == digest
    assert summary.score_digest(reversed(videos)) == digest
    assert summary.score_digest([(path, (scores + 1e-12).astype(np.float32)) for path, scores in videos]) != digest
    assert summary.score_digest([(path, scores.astype(np.float32)) for path, scores in videos]) == digest
    assert summary.score_digest([videos[0], ("a\udcff.mp4", np.array([0.1, 0.0]))]) == digest
    assert summary.score_digest([videos[0], ("c.mp4", videos[1][1])]) != digest
    assert summary.score_digest([videos[0], (videos[1][0], np.array([0.1000001, 0]))]) != digest
    assert summary.score_digest([]) == summary.score_digest(iter(()))


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 9), (9, 3), (40, 61), (10, 10)])
def test_mcnemar_is_the_two_sided_binomial_test(first: int, second: int) -> None:
    total = first + second
    tail = sum(math.comb(total, k) for k in range(min(first, second) + 1)) / 2**total
    result = to_json(comparison.mcnemar(first, second))
    assert result["p_value"] == pytest.approx(min(1, 2 * tail))
    assert result["p_value_chi_squared"] == pytest.approx(result["p_value"], abs=0.1 if total > 1 else 1)


def test_mcnemar_of_many_videos_has_a_known_statistic() -> None:
    result = to_json(comparison.mcnemar(121, 59))  # (62 - 1)^2 / 180 = 20.67
    assert result["chi_squared"] == pytest.approx(20.672, abs=1e-3)
    assert result["p_value_chi_squared"] == pytest.approx(5.45e-6, rel=1e-2)
    assert comparison.mcnemar(30_000, 10_000).p_value == 0


def test_two_runs_are_compared_over_the_videos_of_both() -> None:
    first = {"a": (0, 0), "b": (1, 1), "c": (2, 0), "d": (2, 1), "only": (0, 0)}
    second = {"d": (2, 0), "c": (2, 2), "b": (1, 0), "a": (0, 0)}
    result = to_json(comparison.compare_runs(first, second))
    assert {name: result[name] for name in ("videos", "only_in_first", "only_in_second")} == {
        "videos": 4,
        "only_in_first": 1,
        "only_in_second": 0,
    }
    assert (result["top1_first"], result["top1_second"]) == (50, 50)
    assert [result[name] for name in ("both_right", "first_right", "second_right", "both_wrong")] == [1, 1, 1, 1]
    assert result["flipped"] == [
        {"path": "b", "label": 1, "first": 1, "second": 0},
        {"path": "c", "label": 2, "first": 0, "second": 2},
    ]
    assert result["p_value"] == 1


def test_runs_over_different_lists_are_refused() -> None:
    with pytest.raises(DualFormerError, match=r"no video in common \(1 and 2 videos\); compare runs over one list"):
        comparison.compare_runs({"a": (0, 0)}, {"b": (0, 0), "c": (0, 0)})
    with pytest.raises(DualFormerError, match="the two runs label 'a' differently, 0 and 5"):
        comparison.compare_runs({"a": (0, 0)}, {"a": (5, 0)})


def noisy_predictions(labels: np.ndarray, *, classes: int, right: float, seed: int = 0) -> np.ndarray:
    """Predictions that are the label with probability `right`, else any class."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(labels)) < right, labels, rng.integers(0, classes, size=len(labels)))


@pytest.mark.parametrize(
    ("classes", "per_class", "right"), [(10, 10, 0.8), (48, 20, 0.6), (400, 25, 0.4), (4, 12, 0.9)]
)
def test_a_permuted_label_order_is_found(classes: int, per_class: int, right: float) -> None:
    order = np.roll(np.random.default_rng(5).permutation(classes), 1)
    true = np.repeat(np.arange(classes), per_class)
    predicted = noisy_predictions(true, classes=classes, right=right)
    found = label_order.find_permutation(Confusion.of(order[true], predicted, classes))
    assert found is not None
    moved = {int(order[c]): c for c in range(classes) if order[c] != c}
    assert found.mapping.items() <= moved.items()
    assert len(found.mapping) >= 0.9 * len(moved)
    assert found.top1_mapped > 5 * found.top1 or classes == 4
    assert found.top1_mapped == pytest.approx(metrics.accuracy(predicted == true), abs=5)


@given(
    classes=st.integers(2, 30),
    per_class=st.integers(1, 30),
    right=st.sampled_from([0.0, 0.1, 0.5, 0.95]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None, derandomize=True)  # 1 of 20,000 random draws passes for a permutation
def test_a_bad_model_or_few_videos_are_no_permutation(classes: int, per_class: int, right: float, seed: int) -> None:
    labels = np.repeat(np.arange(classes), per_class)
    predicted = noisy_predictions(labels, classes=classes, right=right, seed=seed)
    found = label_order.find_permutation(Confusion.of(labels, predicted, classes))
    assert found is None


@pytest.mark.parametrize(
    "rows",
    [
        [[0, 40, 0], [0, 40, 0], [0, 40, 0]],  # always the same answer
        [[15, 30, 0], [20, 25, 0], [0, 0, 45]],  # two classes that are alike
        [[0, 40, 0], [0, 5, 0], [0, 0, 45]],  # a common class that is never recognised
        [[0, 0, 0], [0, 0, 0], [0, 0, 0]],
        [[0, 5], [5, 0]],  # too few videos to be sure
    ],
)
def test_mistakes_of_other_kinds_are_no_permutation(rows: list[list[int]]) -> None:
    assert label_order.find_permutation(confusion_of(rows)) is None


@pytest.mark.parametrize(("taken", "is_found"), [(4, True), (8, False)])
def test_two_classes_that_many_others_are_taken_for_are_not_swapped(taken: int, is_found: bool) -> None:
    """All 20 videos of each are taken for the other one: of 20 + 8 * 4 or of 20 + 8 * 8 that are taken for that."""
    matrix = (20 - 2 * taken) * np.eye(10, dtype=np.int64)
    matrix[:, :2] += taken
    matrix[:2] = 0
    matrix[0, 1] = matrix[1, 0] = 20
    assert (label_order.find_permutation(confusion_of(matrix)) is not None) is is_found


def test_two_swapped_classes_among_many_are_found_and_named() -> None:
    matrix = 18 * np.eye(4, dtype=np.int64) + 1
    matrix[[0, 1]] = matrix[[1, 0]]
    found = label_order.find_permutation(confusion_of(matrix))
    assert found is not None
    assert found.mapping == {0: 1, 1: 0}
    assert found.describe(NAMES) == (
        "the labels seem to be in another order than the model's classes: 'pan left' is predicted as 'pan right', "
        "'pan right' is predicted as 'pan left' (2 of 4 classes); top-1 is 45.45 and would be 86.36 in the order that "
        "the predictions suggest"
    )


@pytest.mark.parametrize(
    ("order", "rule"),
    [
        (lambda names: [index + 1 for index in range(len(names))], "labels are 1 too high"),
        (lambda names: [index - 1 for index in range(len(names))], "labels are 1 too low"),
        (
            lambda names: [sorted(names).index(name) for name in names],
            "the labels are in alphabetical order, the model's classes are not",
        ),
        (
            lambda names: [names.index(name) for name in sorted(names)],
            "the model's classes are in alphabetical order, the labels are not",
        ),
        (
            lambda names: [sorted(map(str, range(len(names)))).index(str(index)) for index in range(len(names))],
            "the labels' numbers were sorted as text: 0, 1, 10, 11, ...",
        ),
    ],
)
def test_the_rule_behind_a_permutation_is_named(order: Any, rule: str) -> None:
    names = [f"class {chr(97 + index * 7 % 23)}" for index in range(20)]
    true = np.repeat(np.arange(1, 19), 5)  # label of a class that the model knows as `true`
    labels = np.array(order(names))[true]
    found = label_order.find_permutation(Confusion.of(labels, true, 20))
    assert found is not None
    assert f"; {rule})" in found.describe(names)


def test_the_fifth_place_is_a_top_5_hit_and_the_sixth_is_none() -> None:
    scores = np.tile(np.arange(8.0, 0, -1) / 36, (8, 1))  # class 0 first, class 7 last
    found = single_label(scores, np.arange(8))
    assert (found["top1"], found["top5"], found["mean_class_accuracy"]) == (12.5, 62.5, 12.5)


def test_a_video_taken_for_a_class_is_no_hit_of_that_class() -> None:
    """Of class 0 one of two is right; of class 1 one of two, beside which a video of class 0 is taken for it."""
    found = single_label(np.eye(3)[[0, 1, 1, 2]], np.array([0, 0, 1, 1]))
    assert found["mean_class_accuracy"] == 50


def test_calibration_has_fifteen_bins_as_papers_do() -> None:
    """0.62 and 0.66 are in the tenth of 15 bins, of 10 they would be in the seventh; 0.68 is in the eleventh."""
    best = np.array([0.62, 0.66, 0.68])
    found = to_json(metrics.calibration(np.stack([best, 1 - best], axis=1), np.array([0, 1, 0])))
    assert [(row["low"], row["videos"]) for row in found["bins"]] == [(9 / 15, 2), (10 / 15, 1)]
    assert found["expected_calibration_error"] == pytest.approx((2 * (64 - 50) + (100 - 68)) / 3)


def test_each_run_has_its_own_accuracy_in_a_comparison() -> None:
    first = {"a": (0, 0), "b": (1, 1), "c": (0, 0), "d": (1, 0)}
    second = {"a": (0, 1), "b": (1, 1), "c": (0, 1), "d": (1, 0)}
    found = to_json(comparison.compare_runs(first, second))
    assert (found["top1_first"], found["top1_second"]) == (75, 25)
    assert (found["first_right"], found["second_right"]) == (2, 0)


def test_every_metric_is_a_row_and_a_function() -> None:
    assert list(metrics.FUNCTIONS) == list(METRICS)


def test_a_loss_is_better_when_it_is_lower_and_an_accuracy_when_it_is_higher() -> None:
    assert is_better("loss", 0.5, 0.75)
    assert not is_better("loss", 0.75, 0.5)
    assert is_better("top1", 75.0, 50.0)
    assert not is_better("top1", 50.0, 75.0)
    assert not is_better("top1", 50.0, 50.0)


def test_the_best_checkpoint_is_chosen_by_metrics_of_its_kind_of_list() -> None:
    assert best_metrics(is_multi_label=False) == ["top1", "mean_class_accuracy", "loss"]
    assert best_metrics(is_multi_label=True) == ["mean_average_precision"]
