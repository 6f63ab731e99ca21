"""From which score on a best label says something; below it, people read "unsure"."""

from __future__ import annotations

from collections.abc import Sequence

from dualformer_cli.documents.predict import ScoredLabel, Segment


def least_score(given: float | None, num_classes: int, *, multi_label: bool) -> float:
    """Return the score below which a best label is unsure: the given one, or what `sure_from` says.

    Labels that do not exclude each other have no score of chance, and so no limit but a given one.
    """
    if given is not None:
        return given
    return 0.0 if multi_label else sure_from(num_classes)


def sure_from(num_classes: int) -> float:
    """Return the score from which a best label says more than chance: a tenth of the way from 1 / classes to 1."""
    chance = 1 / num_classes
    return chance + (1 - chance) / 10


def unsure_below(
    predictions: Sequence[ScoredLabel], segments: Sequence[Segment] | None, min_score: float
) -> float | None:
    """Return `min_score` if the best label or a part of the timeline does not reach it, else None."""
    scores = [*(each.score for each in predictions[:1]), *(each.score for each in segments or ())]
    return min_score if any(score < min_score for score in scores) else None
