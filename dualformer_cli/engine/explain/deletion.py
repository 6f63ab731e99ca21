"""Whether a heatmap means anything: the class must suffer more when its hottest places go than when others do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from dualformer_cli.documents.gradcam import DeletionCurves

Clips = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]


def count_scorings(num_views: int, *, num_steps: int = 8, num_random: int = 3) -> int:
    """How often `delete` scores a clip."""
    return num_views * (2 + (num_steps - 1) * (1 + num_random))


def delete(
    score: Callable[[Clips], Values],
    clips: Clips,
    heat: npt.NDArray[np.float32],
    *,
    colour: Sequence[float],
    num_steps: int = 8,
    num_random: int = 3,
    seed: int = 0,
    on_scored: Callable[[], object] = lambda: None,
) -> DeletionCurves:
    """Delete places from clips, the hottest first and in random orders, and score the class at each step.

    A place is one token of the heatmap's grid. What is deleted takes one colour for all clips: a clip's own mean would
    tell of what was in it.

    Args:
        score: scores (v,) of the class for clips (v, T, H, W, 3).
        clips: views, shape (v, T, H, W, 3).
        heat: heatmaps on a grid that divides the clips, shape (v, t, h, w); equal values are taken in random order.
        colour: red, green, blue of what is deleted, in grey levels.
        num_steps: steps from the whole clip to nothing.
        num_random: random orders to average.
        seed: of the random orders.
        on_scored: called after each clip that was scored.
    """
    rng = np.random.default_rng(seed)
    grey = np.array(colour).round().astype(np.uint8)
    shares = np.linspace(0, 1, num_steps + 1)
    hottest, random, areas = [], [], []
    for clip, values in zip(clips, heat, strict=True):

        def course(ranks: npt.NDArray[np.int64], clip: Clips = clip) -> list[float]:
            scores = []
            for share in shares[1:-1]:
                scores.append(float(score(_without(clip, ranks < share * ranks.size, grey)[None])[0]))
                on_scored()
            return scores

        ends = [
            float(score(np.stack([whole]))[0]) for whole in (clip, _without(clip, np.ones(values.shape, bool), grey))
        ]
        on_scored()
        on_scored()
        chance = rng.random(values.size)
        hottest.append([ends[0], *course(_ranks(-values, chance)), ends[1]])
        courses = [course(_ranks(np.zeros(values.shape), rng.random(values.size))) for _ in range(num_random)]
        random.append([ends[0], *np.mean(courses, axis=0), ends[1]])
        curves = np.array([[ends[0], *own, ends[1]] for own in courses])
        areas.append(np.trapezoid(curves - hottest[-1], shares, axis=1))
    hot, by_chance = np.mean(hottest, axis=0), np.mean(random, axis=0)
    return DeletionCurves(
        score=float(np.trapezoid(by_chance, shares)) - float(np.trapezoid(hot, shares)),
        spread=float(np.std(areas, ddof=1)) if np.size(areas) > 1 else 0.0,
        shares=shares.tolist(),
        hottest_first=hot.tolist(),
        random_order=by_chance.tolist(),
    )


def _ranks(values: npt.NDArray[np.floating], ties: Values) -> npt.NDArray[np.int64]:
    """The place of each value in ascending order, in the shape of `values`."""
    ranks = np.empty(values.size, np.int64)
    ranks[np.lexsort((ties, values.reshape(-1)))] = np.arange(values.size)
    return ranks.reshape(values.shape)


def _without(clip: Clips, deleted: npt.NDArray[np.bool_], colour: Clips) -> Clips:
    """The clip (T, H, W, 3) with the marked tokens (t, h, w) in one colour."""
    for axis, (pixels, tokens) in enumerate(zip(clip.shape, deleted.shape, strict=False)):
        deleted = deleted.repeat(pixels // tokens, axis=axis)
    return np.where(deleted[..., None], colour, clip)
