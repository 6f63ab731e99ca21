"""Learning motion from nothing: a start that responds to it, and heads that are taught it at every token.

From the published start (linear layers of standard deviation 0.02, a random patch embedding) a small network sits at
chance for tens of thousands of clips, because motion shows in no linear function of the pixels: its layers begin nearly
linear, and a patch's mean drowns its changes. Here every layer begins at full strength, the patch embedding begins as
pairs of drifting gratings, whose energy is the motion, and each stage is asked for the motion at its tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dualformer_cli.kernels.backend import Size3

PIXELS_PER_STEP = 0.25
"""Motions much smaller than this, in pixels a frame, are taught evenly; larger ones by their logarithm."""
_STILL = (0.3, 0.6, 1.2)
"""How little a token may move to count as still, as `compress_motion` gives it: 0.08, 0.16 and 0.38 pixels a frame."""
_VOTE_WIDTH = 32
_FASTEST = 4.0
"""Speed of the fastest grating in pixels a frame."""
_CYCLES_PER_PATCH = (0.5, 3.0)
_CYCLES_PER_FRAME = 0.4
"""The most that a grating drifts by; from 0.5 on it would seem to drift back."""


class MotionHead(nn.Module):
    """Tells how the content moves at each token.

    Args:
        dim: channels of a token.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-5)
        self.linear = nn.Linear(dim, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (b, t, h, w, c) to compressed motions (b, t, h, w, 2), as `compress_motion` gives."""
        motion: Tensor = self.linear(self.norm(x))
        return motion


class MotionVote(nn.Module):
    """Adds to a clip's features what most of its tokens say of the motion.

    Each token tells its motion and casts votes between 0 and 1, or -1 and 1: is it still, does it go to the right,
    down, outwards, clockwise about the middle? A token that goes fast has no more votes than one that goes slowly, so
    that one thing which moves before a still camera cannot outvote the rest of the picture.

    Args:
        dim: channels of a token and of the features.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.motion = nn.Linear(dim, 2)
        self.hidden = nn.Linear(2 * (len(_STILL) + 4), _VOTE_WIDTH)
        self.out = nn.Linear(_VOTE_WIDTH, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (b, t, h, w, c) to what is added to the features, (b, c)."""
        ballots = _ballots(self.motion(tokens.to(self.motion.weight.dtype))).mean(dim=(2, 3))  # (b, t, votes)
        swing = (ballots - ballots.mean(dim=1, keepdim=True)).square().mean(dim=1)  # a shake turns round and round
        features: Tensor = self.out(F.gelu(self.hidden(torch.cat([ballots.mean(dim=1), swing], dim=-1))))
        return features


def _ballots(motion: Tensor) -> Tensor:
    """Compressed motions (b, t, h, w, 2) to the votes of each token, (b, t, h, w, votes)."""
    h, w = motion.shape[2:4]
    across, down = motion.unbind(dim=-1)
    y, x = ((2 * torch.arange(side, device=motion.device, dtype=motion.dtype) + 1) / side - 1 for side in (h, w))
    x, y = x.expand(h, w), y[:, None].expand(h, w)
    squared = across.square() + down.square()
    still = [torch.exp(-squared / speed**2) for speed in _STILL]
    ways = (across, down, x * across + y * down, x * down - y * across)
    return torch.stack([*still, *(torch.tanh(2 * way) for way in ways)], dim=-1)


def motion_at_tokens(motion: Tensor, grid: Size3, size: tuple[int, int]) -> Tensor:
    """How the content at the middle of each token moves to the next frame, averaged over the token's frames.

    A trembling hand moves single frames by more than a slow pan does; the mean over a token's frames has little of it.

    Args:
        motion: affine maps from each frame to the next in pixels about the frame's middle, shape (b, T - 1, 2, 3).
        grid: tokens along (time, height, width); T is a multiple of the first.
        size: (height, width) of the frame in pixels.

    Returns:
        Pixels to the right and down, shape (b, t, h, w, 2); the last frame has the motion of the one before.
    """
    y, x = (
        (torch.arange(tokens, device=motion.device, dtype=motion.dtype) + 0.5) * side / tokens - side / 2
        for tokens, side in zip(grid[1:], size, strict=True)
    )
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    points = torch.stack([columns, rows, torch.ones_like(rows)], dim=-1)
    moved = torch.einsum("btij,hwj->bthwi", motion, points) - points[..., :2]
    return torch.cat([moved, moved[:, -1:]], dim=1).unflatten(1, (grid[0], -1)).mean(dim=2)


def compress_motion(pixels: Tensor) -> Tensor:
    """Pixels a frame to the scale that motion is taught in: even near 0, logarithmic further out."""
    return torch.asinh(pixels / PIXELS_PER_STEP)


@torch.no_grad()
def start_from_motion(model: nn.Module, first_embedding: nn.Conv3d, classifier: nn.Linear) -> None:
    """Give a fresh model initial values from which motion is learnt at once.

    Args:
        model: linear layers get a standard deviation of 1 over the root of their inputs.
        first_embedding: of the frames' pixels; becomes drifting gratings.
        classifier: keeps its values.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not classifier:
            nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
    first_embedding.weight.copy_(_drifting_gratings(*first_embedding.weight.shape))
    assert first_embedding.bias is not None
    first_embedding.bias.zero_()


def _drifting_gratings(num_filters: int, num_colours: int, frames: int, height: int, width: int) -> Tensor:
    """Filters in pairs, a quarter of a cycle apart, of random direction, speed and fineness, without mean, of norm 1.

    Returns:
        Shape (num_filters, num_colours, frames, height, width).
    """
    num_pairs = (num_filters + 1) // 2
    least, most = (math.log(cycles / max(height, width)) for cycles in _CYCLES_PER_PATCH)
    fineness = torch.exp(least + (most - least) * torch.rand(num_pairs))  # cycles a pixel
    direction = 2 * math.pi * torch.rand(num_pairs)
    speed = torch.sinh((2 * torch.rand(num_pairs) - 1) * math.asinh(_FASTEST))
    drift = (fineness * speed).clamp(-_CYCLES_PER_FRAME, _CYCLES_PER_FRAME)  # cycles a frame
    t, y, x = (torch.arange(side) - (side - 1) / 2 for side in (frames, height, width))
    across = torch.cos(direction)[:, None, None] * x + torch.sin(direction)[:, None, None] * y[:, None]
    cycles = (fineness[:, None, None] * across)[:, None] - (drift[:, None] * t)[:, :, None, None]
    fade = torch.cos(math.pi * x / (1.6 * width)) * torch.cos(math.pi * y / (1.6 * height))[:, None]
    waves = torch.stack([torch.cos(2 * math.pi * cycles), torch.sin(2 * math.pi * cycles)], dim=1) * fade
    waves = waves - waves.mean(dim=(2, 3, 4), keepdim=True)
    waves = waves / waves.flatten(2).norm(dim=2)[..., None, None, None]
    colours = (1 + 0.5 * torch.randn(num_pairs, 1, num_colours)) / num_colours
    filters = colours[..., None, None, None] * waves[:, :, None]
    return filters.flatten(0, 1)[:num_filters]
