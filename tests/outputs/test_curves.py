"""The picture of a training run: what is drawn, what is left out, and that nothing in a log breaks it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dualformer_cli.errors import DualFormerError
from dualformer_cli.outputs import curves

BLUE, RED, GREEN, VIOLET = (31, 95, 168), (200, 55, 31), (43, 122, 75), (122, 79, 163)
LOSS, ACCURACY, RATE = (
    (slice(56, 371), slice(70, 977)),
    (slice(448, 651), slice(70, 557)),
    (slice(448, 651), slice(650, 977)),
)


def step(number: int, loss: float | None, lr: float | None = 1e-3) -> dict[str, Any]:
    return {"event": "step", "epoch": 0, "step": number, "loss": loss, "lr": lr, "memory_mib": 100}


def validation(number: int, **metrics: float) -> dict[str, Any]:
    return {"event": "validation", "epoch": 0, "step": number, "videos": {"listed": 3}, **metrics}


def drawn(rows: list[dict[str, Any]], folder: Path) -> np.ndarray:
    curves.write_curves(rows, folder / "curves.png")
    with Image.open(folder / "curves.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (1000, 700))
        return np.asarray(image).astype(int)


def has(pixels: np.ndarray, panel: tuple[slice, slice], colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(pixels[panel] - colour).max(axis=-1) < 8).any())


def heights(pixels: np.ndarray, panel: tuple[slice, slice], colour: tuple[int, int, int]) -> np.ndarray:
    """How far down its panel a colour is in each column; NaN where it is not."""
    found = np.abs(pixels[panel] - colour).max(axis=-1) < 40
    rows = np.arange(found.shape[0])[:, None]
    return np.where(found.any(axis=0), (found * rows).sum(axis=0) / np.maximum(found.sum(axis=0), 1), math.nan)


def test_each_series_is_in_its_own_panel(tmp_path: Path) -> None:
    rows = [step(n, 3 - n / 50) for n in range(1, 101)] + [validation(50, loss=2.5, top1=40.0, top5=70.0)]
    pixels = drawn(rows, tmp_path)
    panels = {"loss": LOSS, "accuracy": ACCURACY, "rate": RATE}
    colours = {"blue": BLUE, "red": RED, "green": GREEN, "violet": VIOLET}
    found = {(p, c) for p, panel in panels.items() for c, colour in colours.items() if has(pixels, panel, colour)}
    expected = [("loss", "blue"), ("loss", "red"), ("accuracy", "red"), ("accuracy", "violet"), ("rate", "green")]
    assert found == set(expected)
    of_five = drawn([*rows[:-1], {**rows[-1], "num_classes": 5}], tmp_path)
    assert has(of_five, ACCURACY, RED)
    assert not has(of_five, ACCURACY, VIOLET), "the label is always among the best five"


def test_a_falling_loss_falls_and_a_rising_accuracy_rises(tmp_path: Path) -> None:
    rows = [step(n, 5 * math.exp(-n / 300)) for n in range(1, 1001)]
    rows += [validation(n, top1=n / 20) for n in range(100, 1001, 100)]
    pixels = drawn(rows, tmp_path)
    loss, top1 = heights(pixels, LOSS, BLUE), heights(pixels, ACCURACY, RED)
    loss, top1 = loss[~np.isnan(loss)], top1[~np.isnan(top1)]
    assert (loss[0], loss[-1]) == (pytest.approx(15, abs=12), pytest.approx(300, abs=12))
    assert (np.diff(loss) >= -1).all()
    assert top1[0] > 150
    assert top1[-1] < 40


def noisy(num_steps: int, last: float) -> list[dict[str, Any]]:
    """A loss about 2 that ends with a value far from it."""
    noise = np.random.default_rng(0).normal(0, 0.2, num_steps)
    return [step(n + 1, last if n == num_steps - 1 else 2 + noise[n]) for n in range(num_steps)]


def test_the_smoothed_line_does_not_follow_the_noise_of_its_ends(tmp_path: Path) -> None:
    height = heights(drawn(noisy(400, 3.0), tmp_path), LOSS, BLUE)
    height = height[~np.isnan(height)]
    assert abs(height[-5:].mean() - np.median(height)) < 0.15 * (371 - 56)


def test_the_legend_names_the_end_of_the_smoothed_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    texts: list[str] = []
    monkeypatch.setattr(curves._Picture, "_text", lambda self, at, text, **_: texts.append(text))
    curves.write_curves([*noisy(400, 3.0), validation(400, loss=2.5)], tmp_path / "curves.png")
    (training,) = (float(text.removeprefix("training: ")) for text in texts if text.startswith("training: "))
    assert 1.8 < training < 2.3
    assert "validation: 2.5" in texts


def test_the_legend_names_the_last_value_and_the_best_which_of_a_loss_is_the_lowest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    texts: list[str] = []
    monkeypatch.setattr(curves._Picture, "_text", lambda self, at, text, **_: texts.append(text))
    found = [(10, 3.0, 40.0), (20, 1.0, 60.0), (30, 2.0, 50.0)]
    curves.write_curves([validation(n, loss=loss, top1=top1) for n, loss, top1 in found], tmp_path / "curves.png")
    assert {"validation: 2 (best 1)", "top-1: 50 (best 60)"} <= set(texts)


def test_several_labels_show_their_average_precision(tmp_path: Path) -> None:
    assert has(drawn([validation(5, mean_average_precision=40.0)], tmp_path), ACCURACY, RED)


def test_an_empty_log_says_that_there_is_nothing_yet(tmp_path: Path) -> None:
    pixels = drawn([], tmp_path)
    assert not any(has(pixels, panel, colour) for panel in (LOSS, ACCURACY, RATE) for colour in (BLUE, RED, GREEN))
    assert (pixels[LOSS] < 150).any()  # the words


def test_values_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    rows = [step(n, 2.0) for n in range(1, 50)]
    bad: list[Any] = [math.nan, math.inf, -math.inf, None, 1e300]
    broken = rows + [step(50 + n, value, None) for n, value in enumerate(bad)] + [step(60, 2.0)]
    assert (drawn(broken, tmp_path)[LOSS] == drawn([*rows, step(60, 2.0)], tmp_path)[LOSS]).all()


def test_of_two_rows_of_a_step_the_later_counts(tmp_path: Path) -> None:
    first, second = [step(n, 9.0) for n in range(5, 9)], [step(n, 2.0 / n) for n in range(1, 9)]
    assert (drawn(first + second, tmp_path) == drawn(second, tmp_path)).all()


def test_a_single_outlier_does_not_flatten_the_curve(tmp_path: Path) -> None:
    rows = [step(n, 2 - n / 1000) for n in range(1, 1001)]
    rows[500]["loss"] = 1e6
    loss = heights(drawn(rows, tmp_path), LOSS, BLUE)
    assert np.nanmax(loss) - np.nanmin(loss) > 200


@given(
    values=st.lists(
        st.tuples(
            st.integers(0, 10**9),
            st.floats(allow_nan=True, allow_infinity=True) | st.none(),
            st.floats() | st.none(),
            st.floats(),
        ),
        max_size=12,
    )
)
@settings(max_examples=25, deadline=None)
def test_any_log_can_be_drawn(values: list[tuple[int, float | None, float | None, float]]) -> None:
    picture = curves._Picture(max((value[0] for value in values), default=0.0))
    rows = [step(number, loss, lr) for number, loss, lr, _ in values]
    series = [curves._Series(key, curves._points(rows, key), "#000000", background="#cccccc") for key in ("loss", "lr")]
    picture.panel((70, 56, 976, 370), "both", series, limits=(0.0, 100.0))
    picture.panel((70, 448, 486, 650), "from zero", series, from_zero=True)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 100.0, ["0", "20", "40", "60", "80", "100"]),
        (0.31, 0.52, ["0.35", "0.40", "0.45", "0.50"]),
        (0.0, 0.001, ["0", "2e-4", "4e-4", "6e-4", "8e-4", "1e-3"]),
        (-1.0, 1.0, ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, labels: list[str]) -> None:
    assert curves.tick_labels(curves.round_ticks(low, high, 5)) == labels


def test_steps_are_whole_and_short() -> None:
    assert curves.round_ticks(0, 2, 10, smallest=1) == [0, 1, 2]
    assert [curves._count(n) for n in (0, 500, 2500, 20_000, 1_500_000)] == ["0", "500", "2500", "20k", "1.5M"]


def test_a_long_log_is_drawn_from_few_points() -> None:
    points = [(float(n), float(n % 7)) for n in range(50_000)]
    points[12_345] = (12_345.0, 99.0)
    assert len(curves._means(points)) <= curves._BINS
    extremes = curves._extremes(points)
    assert len(extremes) <= 2 * curves._BINS
    assert (12_345.0, 99.0) in extremes


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DualFormerError, match=r"folder '.*nowhere' does not exist; create it"):
        curves.write_curves([], tmp_path / "nowhere" / "curves.png")
