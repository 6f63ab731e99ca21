"""Random splits: by class, whole groups, the same for one seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualformer_cli.data.lists.splits import join_groups, parse_shares, split_videos
from dualformer_cli.errors import DualFormerError

SHARES = st.sampled_from([(0.8, 0.2), (0.8, 0.1, 0.1), (0.5, 0.5), (0.7, 0.0, 0.3), (1.0, 0.0)])
LABELS = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=2, unique=True), min_size=1, max_size=80)


@pytest.mark.parametrize(
    ("text", "shares"),
    [("0.8/0.2", (0.8, 0.2)), ("80/10/10", (0.8, 0.1, 0.1)), (" .7 / .3 ", (0.7, 0.3)), ("1/0", (1.0, 0.0))],
)
def test_shares_are_parts_or_percents(text: str, shares: tuple[float, ...]) -> None:
    assert parse_shares(text) == pytest.approx(shares)


@pytest.mark.parametrize("text", ["0.8", "0.8/0.3", "0.8/0.1/0.05/0.05", "a/b", "-0.2/1.2", "0/1", "nan/1", "8e-1/0.2"])
def test_other_shares_are_refused_by_name(text: str) -> None:
    with pytest.raises(DualFormerError, match=r"--split .*0\.8/0\.1/0\.1"):
        parse_shares(text)


@settings(max_examples=50, deadline=None)
@given(LABELS, st.integers(0, 12), SHARES, st.integers(0, 3))
def test_no_group_is_cut_and_every_class_is_trained(
    labels: list[list[int]], num_groups: int, shares: tuple[float, ...], seed: int
) -> None:
    groups = [f"group {number % num_groups}" if num_groups else None for number in range(len(labels))]
    splits = split_videos(labels, groups, shares, seed=seed)
    assert splits == split_videos(labels, groups, shares, seed=seed)
    assert all(shares[split] for split in splits)
    if num_groups:
        assert len(set(zip(groups, splits, strict=True))) == len(set(groups))
    trained = {label for own, split in zip(labels, splits, strict=True) if split == 0 for label in own}
    assert trained == {label for own in labels for label in own}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.sampled_from([(0.8, 0.2), (0.7, 0.2, 0.1)]))
def test_without_groups_each_class_and_the_whole_have_the_shares_to_the_video(
    sizes: list[int], shares: tuple[float, ...]
) -> None:
    labels = [[number] for number, size in enumerate(sizes) for _ in range(size)]
    splits = split_videos(labels, [None] * len(labels), shares, seed=0)
    counts = np.bincount(splits, minlength=len(shares))
    singles = sum(size == 1 for size in sizes)  # these must be trained, whatever the shares
    assert np.abs(counts - np.array(shares) * len(labels)).max() <= 1 + singles
    for number, size in enumerate(sizes):
        own = Counter(split for label, split in zip(labels, splits, strict=True) if label == [number])
        assert all(abs(own[split] - share * size) <= 2 + singles for split, share in enumerate(shares))


def test_many_classes_of_three_videos_fill_all_splits() -> None:
    labels = [[number // 3] for number in range(300)]
    assert Counter(split_videos(labels, [None] * 300, (0.8, 0.1, 0.1), seed=0)) == {0: 240, 1: 30, 2: 30}


def test_all_videos_of_a_group_count() -> None:
    groups = [name for name, count in (("a", 4), ("b", 3), ("c", 3)) for _ in range(count)]
    for seed in range(3):
        splits = split_videos([["x"]] * 10, groups, (0.5, 0.5), seed=seed)
        assert Counter(splits) == {0: 4, 1: 6}  # the largest is trained; then 1 is lacking there, and 5


def test_another_seed_gives_another_split() -> None:
    labels = [[number % 4] for number in range(200)]
    one, other = (split_videos(labels, [None] * 200, (0.8, 0.2), seed=seed) for seed in (0, 1))
    assert one != other
    assert Counter(one) == Counter(other)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c", None, None, None]), min_size=1, max_size=20), st.data())
def test_groups_are_joined_by_their_pairs_and_by_nothing_else(groups: list[str | None], data: st.DataObject) -> None:
    numbers = st.integers(0, len(groups) - 1)
    pairs = data.draw(st.lists(st.tuples(numbers, numbers), max_size=10))
    joined = join_groups(groups, pairs)
    reached = [{number} for number in range(len(groups))]  # grown until nothing changes
    links = [*pairs, *((a, b) for a in range(len(groups)) for b in range(a) if groups[a] == groups[b] is not None)]
    for _ in groups:
        for a, b in links:
            whole = reached[a] | reached[b]
            for number in whole:
                reached[number] = whole
    assert joined == [str(min(own)) if len(own) > 1 else None for own in reached]
    assert join_groups(groups, [pair[::-1] for pair in pairs[::-1]]) == joined


def test_a_class_that_others_gave_away_with_their_groups_is_trained() -> None:
    """Every group holds the rare class of one video and two others: whoever is dealt out first must not take it all."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        labels = [[int(label)] for label in rng.integers(0, 6, 24)]
        groups = [f"group {number}" for number in rng.integers(0, 6, 24)]
        for shares in ((0.5, 0.5), (0.2, 0.8), (0.1, 0.45, 0.45)):
            splits = split_videos(labels, groups, shares, seed=seed)
            trained = {label for own, split in zip(labels, splits, strict=True) if split == 0 for label in own}
            assert trained == {label for own in labels for label in own}, (seed, shares)


def test_of_a_class_that_others_gave_away_the_smallest_group_is_trained() -> None:
    """Classes 0 and 1 have a group of their own, which is trained, and one that class 2 shares, which is not."""
    rows = [(0, "own 0", 3), (0, "large", 1), (2, "large", 4), (1, "own 1", 3), (1, "small", 1), (2, "small", 2)]
    labels = [[label] for label, _, count in rows for _ in range(count)]
    groups = [group for _, group, count in rows for _ in range(count)]
    for seed in range(5):
        found = dict(zip(groups, split_videos(labels, groups, (0.5, 0.5), seed=seed), strict=True))
        assert found == {"own 0": 0, "own 1": 0, "large": 1, "small": 0}
