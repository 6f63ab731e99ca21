"""The whole network: stages of local and global blocks, a final norm and the classifier.

DualFormer, arXiv 2112.04674. Activations stay (b, t, h, w, c) from the patch embedding to the classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import lcm
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dualformer_cli.errors import ConfigError
from dualformer_cli.kernels.add_layer_norm import add_branch, adds_with_triton
from dualformer_cli.kernels.backend import Backend, Size3, compute_dtype, uses_triton
from dualformer_cli.kernels.frame_patches import frame_patches
from dualformer_cli.model.attention import GlobalPyramidAttention, LocalWindowAttention
from dualformer_cli.model.blocks import Block, PatchEmbed, PositionConv
from dualformer_cli.model.motion import MotionHead, MotionVote, start_from_motion
from dualformer_cli.model.pyramid import PyramidPool
from dualformer_cli.model.recomputing import recompute_contexts


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """Sizes of one stage that follow from the clip's size."""

    grid: Size3
    """Tokens of the stage."""
    window_size: Size3
    """Tokens of a local window."""
    fine_kernel: Size3 | None
    """Grid tokens per fine pyramid token; None where every token is attended to."""
    coarse_kernels: tuple[Size3, Size3] | None
    """Kernels of the coarse level's two convolutions; None without that level."""


def _divide(numerator: Size3, denominator: Size3, what: str) -> Size3:
    if any(n % d for n, d in zip(numerator, denominator, strict=True)):
        raise ConfigError(f"{what} {numerator} is not a multiple of {denominator}")
    t, h, w = (n // d for n, d in zip(numerator, denominator, strict=True))
    return t, h, w


def _cut(size: Size3, grid: Size3) -> Size3:
    t, h, w = (min(s, g) for s, g in zip(size, grid, strict=True))
    return t, h, w


def plan_stages(
    input_size: Size3, *, patch_sizes: Sequence[Size3], window_size: Size3, fine_grid: Size3, coarse_grid: Size3
) -> list[StagePlan]:
    """Derive every stage's grid, window and pooling kernels from the clip's size.

    Raises:
        ConfigError: if a size does not divide; the message says which stage and what does not.
    """
    plans: list[StagePlan] = []
    grid = input_size
    for index, patch_size in enumerate(patch_sizes):
        grid = _divide(grid, patch_size, f"stage {index}: grid")
        window = _cut(window_size, grid)
        _divide(grid, window, f"stage {index}: grid")
        plans.append(
            StagePlan(
                grid=grid,
                window_size=window,
                fine_kernel=_fine_kernel(grid, fine_grid, index),
                coarse_kernels=_coarse_kernels(grid, window, fine_grid, coarse_grid, index),
            )
        )
    return plans


def _fine_kernel(grid: Size3, fine_grid: Size3, index: int) -> Size3 | None:
    if grid[1] <= fine_grid[1] and grid[2] <= fine_grid[2]:
        return None
    return _divide(grid, _cut(fine_grid, grid), f"stage {index}: grid for the fine pyramid level")


def _coarse_kernels(
    grid: Size3, window: Size3, fine_grid: Size3, coarse_grid: Size3, index: int
) -> tuple[Size3, Size3] | None:
    if grid[1] < 4 * fine_grid[1] or grid[2] < 4 * fine_grid[2]:
        return None
    first = (1, window[1], window[2])
    pooled = _divide(grid, first, f"stage {index}: grid for the coarse pyramid level")
    return first, _divide(pooled, _cut(coarse_grid, pooled), f"stage {index}: coarse pyramid level")


class Stage(nn.Module):
    """Blocks at one resolution, alternately local (even) and global (odd), position after the first."""

    def __init__(
        self,
        in_dim: int,
        dim: int,
        *,
        patch_size: Size3,
        plan: StagePlan,
        num_heads: int,
        mlp_ratio: float,
        drop_paths: Sequence[float],
        kernels: Backend,
    ) -> None:
        super().__init__()
        self.kernels = kernels
        self.gradient_checkpointing = False
        self.patch_embed = PatchEmbed(in_dim, dim, patch_size=patch_size)
        self.blocks = nn.ModuleList()
        for index, drop_path in enumerate(drop_paths):
            attention: LocalWindowAttention | GlobalPyramidAttention
            if index % 2 == 0:
                attention = LocalWindowAttention(dim, num_heads, window_size=plan.window_size, kernels=kernels)
            else:
                pool = None
                if plan.fine_kernel is not None:
                    pool = PyramidPool(
                        dim, fine_kernel=plan.fine_kernel, coarse_kernels=plan.coarse_kernels, kernels=kernels
                    )
                attention = GlobalPyramidAttention(dim, num_heads, pool=pool)
            self.blocks.append(
                Block(dim, attention=attention, mlp_ratio=mlp_ratio, drop_path=drop_path, kernels=kernels)
            )
        self.position = PositionConv(dim, kernels=kernels)

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, h, w, c) to this stage's (b, t', h', w', c')."""
        return self.forward_embedded(self.patch_embed(x))

    def forward_embedded(self, x: Tensor) -> Tensor:
        """What patch embedding gives, (b, t', h', w', c'), to this stage's output."""
        return self.forward_after(self._run_blocks(x, range(1)), 0)

    def forward_until(self, x: Tensor, block: int) -> Tensor:
        """(b, t, h, w, c) to the output of a block of this stage, (b, t', h', w', c'), before position is added."""
        x = self._run_blocks(self.patch_embed(x), range(1))
        return x if block == 0 else self._run_blocks(self.position(x), range(1, block + 1))

    def forward_after(self, x: Tensor, block: int) -> Tensor:
        """The output of a block of this stage to the output of the stage, both (b, t', h', w', c')."""
        if block == 0:
            x = self.position(x)
        return self._run_blocks(x, range(block + 1, len(self.blocks)))

    def _run_blocks(self, x: Tensor, indices: range) -> Tensor:
        blocks = [cast(Block, self.blocks[index]) for index in indices]
        if self.gradient_checkpointing and torch.is_grad_enabled():
            for block in blocks:
                x = checkpoint(block, x, use_reentrant=False, context_fn=partial(recompute_contexts, block))
            return x
        if not adds_with_triton(x, self.kernels):
            for block in blocks:
                x = block(x)
            return x
        branch, factors = None, None  # of the block before, which the next one's norm adds
        for block in blocks:
            x, branch, factors = block.advance(x, branch, factors)
        return add_branch(x, branch, factors)


class DualFormer(nn.Module):
    """Video classifier: clips (b, 3, T, H, W), normalised, to logits (b, num_classes).

    Args:
        input_size: the clip's (frames, height, width), from which pooling kernels follow.
        num_classes: outputs of the classifier.
        embed_dims, depths, num_heads: one value per stage.
        patch_sizes: input positions per token of each stage along (time, height, width).
        window_size: tokens of a local window, cut to the grid where that is smaller.
        fine_grid, coarse_grid: pyramid tokens of the two levels.
        mlp_ratio: hidden width of an MLP over embed_dim.
        dropout: before the classifier, in training.
        drop_path: stochastic depth of the last block, rising linearly from 0.
        token_head: add the per-token classifier of token labelling.
        motion_vote: add to a clip's features what most of its tokens say of the motion (model/motion.py).
        motion_heads: add heads that tell the motion at the tokens of every stage.
        start: initial values, as published or those from which motion is learnt (model/motion.py).
        gradient_checkpointing: recompute blocks in the backward pass instead of storing their activations.
        kernels: what computes window attention, position, pyramid, norms and GELU of the blocks; auto is Triton on
            cards that have it.

    Raises:
        ConfigError: if the clip's size does not divide into patches, windows and pools; it lists sizes that do.
    """

    preset: str | None = None
    """Name of the configuration that it was made from."""
    config: str | None = None
    """That configuration, as YAML."""
    class_names: list[str] | None = None
    """In the order of the logits; None where nobody has named them."""
    mean: tuple[float, float, float] | None = None
    """Subtracted from red, green, blue, in grey levels of 0 to 255."""
    std: tuple[float, float, float] | None = None
    """Divides red, green, blue after that."""

    def __init__(
        self,
        *,
        input_size: Size3,
        num_classes: int,
        embed_dims: Sequence[int],
        depths: Sequence[int],
        num_heads: Sequence[int],
        patch_sizes: Sequence[Size3],
        window_size: Size3,
        fine_grid: Size3,
        coarse_grid: Size3,
        mlp_ratio: float,
        dropout: float,
        drop_path: float,
        token_head: bool = False,
        motion_vote: bool = False,
        motion_heads: bool = False,
        start: Literal["published", "motion"] = "published",
        gradient_checkpointing: bool = False,
        kernels: Backend = "auto",
    ) -> None:
        super().__init__()
        plans = _plan_or_explain(
            input_size,
            patch_sizes=patch_sizes,
            window_size=window_size,
            fine_grid=fine_grid,
            coarse_grid=coarse_grid,
        )
        self.input_size, self.num_classes = input_size, num_classes
        self.size_multiples = _size_multiples(plans, patch_sizes)
        rates = (drop_path * index / max(1, sum(depths) - 1) for index in range(sum(depths)))
        self.stages = nn.ModuleList(
            Stage(
                (3, *embed_dims)[index],
                embed_dims[index],
                patch_size=patch_sizes[index],
                plan=plan,
                num_heads=num_heads[index],
                mlp_ratio=mlp_ratio,
                drop_paths=[next(rates) for _ in range(depths[index])],
                kernels=kernels,
            )
            for index, plan in enumerate(plans)
        )
        dim = embed_dims[-1]
        self.norm = nn.LayerNorm(dim, eps=1e-5)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(dim, num_classes)
        self.token_head = _token_head(dim, num_classes, dropout) if token_head else None
        self.motion_vote = MotionVote(dim) if motion_vote else None
        self.motion_heads = nn.ModuleList(map(MotionHead, embed_dims)) if motion_heads else None
        if not self.classifier.weight.is_meta:  # on meta there is nothing to set, and it would load torch's compiler
            self.apply(_initialise)
            if start == "motion":
                start_from_motion(self, cast(Stage, self.stages[0]).patch_embed.proj, self.classifier)
        if self.motion_vote is not None:
            nn.init.zeros_(self.motion_vote.out.weight)  # it begins without a voice
        self.set_gradient_checkpointing(gradient_checkpointing)

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Trade time for memory in training: recompute each block in the backward pass."""
        for stage in self.stages:
            cast(Stage, stage).gradient_checkpointing = enabled

    def forward_stages(self, clips: Tensor) -> list[Tensor]:
        """Outputs of all stages, (b, t, h, w, c) each, before the final norm.

        Raises:
            ValueError: if the clips' shape does not fit; the message lists what is allowed.
        """
        self._check(clips)
        x = clips.permute(0, 2, 3, 4, 1)
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs

    def forward_tokens(self, clips: Tensor) -> Tensor:
        """Tokens of the last stage after the final norm, (b, t, h, w, c)."""
        self._check(clips)
        x = clips.permute(0, 2, 3, 4, 1)
        for stage in self.stages:
            x = stage(x)
        return self.norm(x)

    def forward_frames(self, frames: Tensor, colours: Tensor) -> Tensor:
        """What `forward_tokens` gives for frames as they come, which are normalised on the way into the first product.

        Args:
            frames: uint8, shape (b, T, H, W, 3).
            colours: mean and std of red, green, blue, in grey levels, float32, shape (2, 3).
        """
        self._check(frames.permute(0, 4, 1, 2, 3))
        first, *others = (cast(Stage, stage) for stage in self.stages)
        embed, dtype = first.patch_embed, compute_dtype(self.classifier.weight)
        patches = frame_patches(frames, colours, embed.patch_size, dtype, backend=first.kernels)
        x = first.forward_embedded(embed.embed(patches))
        for stage in others:
            x = stage(x)
        return self.norm(x)

    def takes_frames(self) -> bool:
        """Whether `forward_frames` is faster than normalising clips first: where it has a kernel."""
        return uses_triton(cast(Stage, self.stages[0]).kernels, self.classifier.weight)

    def forward_until(self, clips: Tensor, stage: int, block: int) -> Tensor:
        """Clips (b, 3, T, H, W) to the output of one block on its grid, (b, t, h, w, c)."""
        self._check(clips)
        x = clips.permute(0, 2, 3, 4, 1)
        for before in self.stages[:stage]:
            x = before(x)
        return cast(Stage, self.stages[stage]).forward_until(x, block)

    def forward_after(self, x: Tensor, stage: int, block: int) -> Tensor:
        """The output of one block, (b, t, h, w, c), to the tokens of the last stage after the final norm."""
        x = cast(Stage, self.stages[stage]).forward_after(x, block)
        for after in self.stages[stage + 1 :]:
            x = after(x)
        return self.norm(x)

    def forward_features(self, clips: Tensor) -> Tensor:
        """Clips (b, 3, T, H, W) to features (b, c, t, h, w)."""
        return self.forward_tokens(clips).permute(0, 4, 1, 2, 3)

    def pool(self, tokens: Tensor) -> Tensor:
        """Tokens (b, t, h, w, c) to a clip's features (b, c)."""
        features = tokens.mean(dim=(1, 2, 3))
        return features if self.motion_vote is None else features + self.motion_vote(tokens)

    def classify(self, tokens: Tensor) -> Tensor:
        """Tokens (b, t, h, w, c) to logits (b, num_classes)."""
        return self.classifier(self.dropout(self.pool(tokens)))

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (b, 3, T, H, W) to logits (b, num_classes)."""
        return self.classify(self.forward_tokens(clips))

    def forward_both_heads(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Clips to the classifier's logits (b, num_classes) and the token head's (b, t, h, w, num_classes).

        Raises:
            ValueError: if the model has no token head.
        """
        if self.token_head is None:
            raise ValueError("the model has no token head; build it with token_head=True")
        tokens = self.forward_tokens(clips)
        return self.classify(tokens), self.token_head(tokens)

    def forward_motion(self, clips: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Clips (b, 3, T, H, W) to logits and what each stage, and the vote, says of the motion at its tokens.

        The motions have the shape (b, t, h, w, 2) and are compressed.

        Raises:
            ValueError: without motion heads.
        """
        if self.motion_heads is None:
            raise ValueError("the model was built without motion heads")
        outputs = self.forward_stages(clips)
        motions = [head(output) for head, output in zip(self.motion_heads, outputs, strict=True)]
        tokens = self.norm(outputs[-1])
        if self.motion_vote is not None:
            motions.append(self.motion_vote.motion(tokens))
        return self.classify(tokens), motions

    def _check(self, clips: Tensor) -> None:
        if clips.dim() != 5 or clips.shape[1] != 3:
            raise ValueError(f"clips must have shape (b, 3, T, H, W), got {tuple(clips.shape)}")
        size = tuple(clips.shape[2:])
        if any(side % multiple for side, multiple in zip(size, self.size_multiples, strict=True)):
            t, h, w = self.size_multiples
            raise ValueError(
                f"clips of {size[0]} frames, {size[1]}x{size[2]} pixels do not fit this model (built for "
                f"{self.input_size}): frames must be a multiple of {t}, height of {h}, width of {w}"
            )


def _token_head(dim: int, num_classes: int, dropout: float) -> nn.Sequential:
    """Linear(c, 2c) Dropout ReLU Linear(2c, 4c) Dropout ReLU Linear(4c, classes), as published."""
    return nn.Sequential(
        nn.Linear(dim, 2 * dim),
        nn.Dropout(dropout),
        nn.ReLU(),
        nn.Linear(2 * dim, 4 * dim),
        nn.Dropout(dropout),
        nn.ReLU(),
        nn.Linear(4 * dim, num_classes),
    )


def _initialise(module: nn.Module) -> None:
    """Linear layers: truncated normal with std 0.02, bias 0. Norms and convolutions keep PyTorch's defaults."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _size_multiples(plans: Sequence[StagePlan], patch_sizes: Sequence[Size3]) -> Size3:
    """The smallest (frames, height, width) that divides evenly everywhere; any multiple is allowed as input."""
    multiples = []
    for axis in range(3):
        multiple, pixels = 1, 1
        for plan, patch_size in zip(plans, patch_sizes, strict=True):
            pixels *= patch_size[axis]
            sides = [plan.window_size[axis]]
            if plan.fine_kernel is not None:
                sides.append(plan.fine_kernel[axis])
            if plan.coarse_kernels is not None:
                sides.append(plan.coarse_kernels[0][axis] * plan.coarse_kernels[1][axis])
            multiple = lcm(multiple, *(pixels * side for side in sides))
        multiples.append(multiple)
    return multiples[0], multiples[1], multiples[2]


def _plan_or_explain(input_size: Size3, **sizes: Sequence[Size3] | Size3) -> list[StagePlan]:
    try:
        return plan_stages(input_size, **sizes)
    except ConfigError as error:
        frames = [t for t in range(1, 129) if _fits((t, *input_size[1:]), sizes)]
        sides = [side for side in range(8, 513) if _fits((input_size[0], side, side), sizes)]
        hints = []
        if frames:
            hints.append(f"at this crop size num_frames can be {_short(frames)}")
        if sides:
            hints.append(f"at {input_size[0]} frames crop_size can be {_short(sides)}")
        advice = "; ".join(hints) or "change patch_sizes, window_size or the pyramid grids"
        raise ConfigError(
            f"clips of {input_size[0]} frames, {input_size[1]}x{input_size[2]} pixels do not fit ({error}); {advice}"
        ) from None


def _fits(input_size: Size3, sizes: dict[str, Sequence[Size3] | Size3]) -> bool:
    try:
        plan_stages(input_size, **sizes)
    except ConfigError:
        return False
    return True


def _short(values: Sequence[int]) -> str:
    shown = ", ".join(map(str, values[:8]))
    return shown + (", ..." if len(values) > 8 else "")
