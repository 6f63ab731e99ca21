"""Two runs over one list: which videos only one of them recognises, and whether that can be chance."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dualformer_cli.documents.evaluate import Comparison, FlippedVideo, McNemar
from dualformer_cli.errors import DualFormerError


def mcnemar(only_first: int, only_second: int) -> McNemar:
    """Test whether two classifiers differ, from the numbers of videos that only one of them recognises."""
    disagreements, fewer = only_first + only_second, min(only_first, only_second)
    if not disagreements:
        return McNemar(p_value=1.0, chi_squared=0.0, p_value_chi_squared=1.0)
    ways = tail = 1
    for number in range(fewer):
        ways = ways * (disagreements - number) // (number + 1)
        tail += ways
    chi_squared = max(0, abs(only_first - only_second) - 1) ** 2 / disagreements
    return McNemar(
        p_value=min(1.0, 2 * tail / 2**disagreements),
        chi_squared=chi_squared,
        p_value_chi_squared=math.erfc(math.sqrt(chi_squared / 2)),
    )


def compare_runs(first: Mapping[str, tuple[int, int]], second: Mapping[str, tuple[int, int]]) -> Comparison:
    """Compare two runs over the videos that both scored.

    Args:
        first, second: (label, predicted class) of each video, by its path.

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
            flipped.append(FlippedVideo(path=path, label=label, first=before, second=after))
    return Comparison(
        videos=len(common),
        only_in_first=len(first) - len(common),
        only_in_second=len(second) - len(common),
        top1_first=100 * (right[True, True] + right[True, False]) / len(common),
        top1_second=100 * (right[True, True] + right[False, True]) / len(common),
        both_right=right[True, True],
        first_right=right[True, False],
        second_right=right[False, True],
        both_wrong=right[False, False],
        test=mcnemar(right[True, False], right[False, True]),
        flipped=tuple(flipped),
    )
