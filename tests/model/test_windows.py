"""Windows: splitting and merging are inverse, sizes that do not divide are named."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualformer_cli.model.windows import merge_windows, split_windows

sizes = st.tuples(*[st.integers(1, 4)] * 3)


@settings(max_examples=30, deadline=None)
@given(counts=sizes, window_size=sizes, b=st.integers(1, 3))
def test_merge_undoes_split(counts: tuple[int, int, int], window_size: tuple[int, int, int], b: int) -> None:
    grid = tuple(n * w for n, w in zip(counts, window_size, strict=True))
    x = torch.randn(b, *grid, 2)
    windows = split_windows(x, window_size)
    assert windows.shape == (b * counts[0] * counts[1] * counts[2], window_size[0] * window_size[1] * window_size[2], 2)
    assert torch.equal(merge_windows(windows, window_size, grid), x)  # type: ignore[arg-type]


def test_a_window_holds_neighbours_in_time_height_width_order() -> None:
    x = torch.arange(2 * 4 * 4).view(1, 2, 4, 4, 1)
    windows = split_windows(x, (2, 2, 2))
    assert windows[1].flatten().tolist() == [2, 3, 6, 7, 18, 19, 22, 23]


def test_windows_that_do_not_divide_the_grid_are_named() -> None:
    with pytest.raises(ValueError, match=r"token grid \(4, 7, 8\) does not divide into windows of \(4, 7, 7\)"):
        split_windows(torch.zeros(1, 4, 7, 8, 1), (4, 7, 7))
