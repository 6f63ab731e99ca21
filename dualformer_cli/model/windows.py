"""Token grids to local windows and back."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

from dualformer_cli.kernels.backend import Size3


def split_windows(x: Tensor, window_size: Size3) -> Tensor:
    """Group a token grid into non-overlapping local windows.

    Args:
        x: tokens on their grid, shape (b, t, h, w, c).
        window_size: tokens per window along (time, height, width).

    Returns:
        Windows, shape (b * n, l, c), windows and tokens both in (time, height, width) order.

    Raises:
        ValueError: if a grid side is not a multiple of its window side.
    """
    grid = tuple(x.shape[1:4])
    if any(side % window for side, window in zip(grid, window_size, strict=True)):
        raise ValueError(f"token grid {grid} does not divide into windows of {window_size}")
    wt, wh, ww = window_size
    return rearrange(x, "b (nt wt) (nh wh) (nw ww) c -> (b nt nh nw) (wt wh ww) c", wt=wt, wh=wh, ww=ww)


def merge_windows(windows: Tensor, window_size: Size3, grid: Size3) -> Tensor:
    """Undo `split_windows`: (b * n, l, c) back to the grid (b, t, h, w, c)."""
    wt, wh, ww = window_size
    nt, nh, nw = (side // window for side, window in zip(grid, window_size, strict=True))
    return rearrange(
        windows,
        "(b nt nh nw) (wt wh ww) c -> b (nt wt) (nh wh) (nw ww) c",
        nt=nt, nh=nh, nw=nw, wt=wt, wh=wh, ww=ww,
    )  # fmt: skip
