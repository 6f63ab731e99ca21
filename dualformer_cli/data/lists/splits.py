"""Videos are divided into train, val and test: by class in the same proportions, and never through a group."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from dualformer_cli.errors import DualFormerError

_TRAIN = 0
Counts = np.ndarray[Any, np.dtype[np.float64]]


def parse_shares(text: str) -> tuple[float, ...]:
    """Read the shares of train, val and maybe test, such as "0.8/0.1/0.1" or "80/20".

    Raises:
        DualFormerError: if they are not two or three numbers that sum to 1 or 100, with some for train.
    """
    advice = "give the shares of train, val and maybe test, as in 0.8/0.2, 0.8/0.1/0.1 or 80/20"
    pieces = text.split("/")
    if not 2 <= len(pieces) <= 3 or not all(re.fullmatch(r"\s*[0-9]*\.?[0-9]+\s*", piece) for piece in pieces):
        raise DualFormerError(f"--split {text!r} is not two or three numbers with '/' between them; {advice}")
    shares = [float(piece) for piece in pieces]
    total = sum(shares)
    if not (abs(total - 1) < 1e-6 or abs(total - 100) < 1e-4) or not shares[_TRAIN]:
        raise DualFormerError(
            f"--split {text!r} sums to {total:g}, not to 1 or 100, or leaves nothing to train; {advice}"
        )
    return tuple(share / total for share in shares)


def split_videos(
    labels: Sequence[Sequence[Hashable]],
    groups: Sequence[Hashable | None],
    shares: Sequence[float],
    *,
    seed: int,
) -> list[int]:
    """Choose a split for every video.

    Classes are taken one after the other, the rarest first, and the groups of a class in random order, the largest
    first; each goes to the split that lacks most of this class. What a class leaves over or short is carried on to the
    next, so that many small classes together come out right too. Every class has a group in train.

    Args:
        labels: classes of each video.
        groups: name of each video's group; None is a group by itself.
        shares: of each split, train first; they sum to 1.
        seed: decides the order of groups.

    Returns:
        The number of each video's split.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for video, group in enumerate(groups):
        members[("alone", video) if group is None else ("group", group)].append(video)
    keys = list(members)
    order = np.random.default_rng(seed).permutation(len(keys))
    shuffled = [members[keys[number]] for number in order]
    content = [Counter(label for video in group for label in labels[video]) for group in shuffled]
    of_class: dict[Hashable, list[int]] = defaultdict(list)
    for number, counts in enumerate(content):
        for label in counts:
            of_class[label].append(number)
    totals = {label: sum(content[number][label] for number in numbers) for label, numbers in of_class.items()}
    chosen = _assign(of_class, totals, content, np.asarray(shares))
    result = [_TRAIN] * len(labels)
    for number, of_group in enumerate(shuffled):
        for video in of_group:
            result[video] = chosen.get(number, _TRAIN)
    return result


def join_groups(groups: Sequence[Hashable | None], pairs: Iterable[tuple[int, int]]) -> list[str | None]:
    """Join the groups of videos that belong together.

    Args:
        groups: name of each video's group; None is a group by itself.
        pairs: numbers of two videos that belong together, and with each the rest of its group.

    Returns:
        The name of each video's group: None of one that is alone, else the number of its first video.
    """
    parents = list(range(len(groups)))

    def first_of(video: int) -> int:
        while parents[video] != video:
            parents[video] = parents[parents[video]]
            video = parents[video]
        return video

    named: dict[Hashable, int] = {}
    grouped = [(named.setdefault(group, video), video) for video, group in enumerate(groups) if group is not None]
    for one, other in (*grouped, *pairs):
        low, high = sorted((first_of(one), first_of(other)))
        parents[high] = low
    firsts = [first_of(video) for video in range(len(groups))]
    sizes = Counter(firsts)
    return [str(first) if sizes[first] > 1 else None for first in firsts]


def _assign(
    of_class: dict[Hashable, list[int]],
    totals: dict[Hashable, int],
    content: Sequence[Counter[Hashable]],
    shares: Counts,
) -> dict[int, int]:
    """Return the split of each group by its number."""
    lacking = {label: total * shares for label, total in totals.items()}
    carried = np.zeros(len(shares))
    chosen: dict[int, int] = {}
    in_train: set[Hashable] = set()
    for label in sorted(of_class, key=lambda name: (totals[name], str(name))):
        lack = lacking[label]
        lack += carried
        numbers = [number for number in of_class[label] if number not in chosen]
        for number in sorted(numbers, key=lambda number: -content[number][label]):  # stable: random among equals
            split = int(np.argmax(np.where(shares > 0, lack, -np.inf))) if label in in_train else _TRAIN
            chosen[number] = split
            for other, count in content[number].items():
                lacking[other][split] -= count
                if split == _TRAIN:
                    in_train.add(other)
        carried = lack
    for label, numbers in of_class.items():  # whose groups other classes have given away
        if label not in in_train:
            smallest = min(numbers, key=lambda number: sum(content[number].values()))
            chosen[smallest] = _TRAIN
            in_train.update(content[smallest])
    return chosen
