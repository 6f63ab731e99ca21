"""Blocks and first values: what inference leaves alone, what drop path drops, where gradients of the heads go."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from dualformer_cli.kernels.add_layer_norm import add_branch
from dualformer_cli.model.attention import GlobalPyramidAttention, LocalWindowAttention
from dualformer_cli.model.blocks import Block, DropPath
from dualformer_cli.model.dualformer import DualFormer

SIZES: dict[str, Any] = {
    "mlp_ratio": 4.0,
    "dropout": 0.5,
    "drop_path": 0.0,
    "input_size": (8, 64, 64),
    "num_classes": 5,
    "embed_dims": (8, 16, 16, 32),
    "depths": (2, 2, 2, 2),
    "num_heads": (1, 2, 2, 4),
    "patch_sizes": ((2, 4, 4), (1, 2, 2), (1, 2, 2), (1, 2, 2)),
    "window_size": (2, 2, 2),
    "fine_grid": (2, 2, 2),
    "coarse_grid": (2, 2, 2),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def model_of(**changes: Any) -> DualFormer:
    torch.manual_seed(0)
    return DualFormer(**{**SIZES, **changes})


@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize("window", [(2, 4, 4), (2, 2, 4)])
def test_inference_leaves_its_tokens_alone_even_if_one_window_covers_the_grid(
    clips: int, window: tuple[int, int, int]
) -> None:
    torch.manual_seed(0)
    block = Block(8, attention=LocalWindowAttention(8, 2, window_size=window), mlp_ratio=4, drop_path=0.0).eval()
    tokens = torch.randn(clips, 2, 4, 4, 8)
    before = tokens.clone()
    with torch.no_grad():
        found = block(tokens)
    assert torch.equal(tokens, before)
    torch.testing.assert_close(found, block(tokens).detach(), atol=1e-5, rtol=1e-5)  # with gradients: not in pieces


def test_clips_of_a_batch_are_computed_as_if_alone() -> None:
    torch.manual_seed(0)
    block = Block(8, attention=GlobalPyramidAttention(8, 2, pool=None), mlp_ratio=4, drop_path=0.0).eval()
    tokens = torch.randn(3, 2, 4, 4, 8)
    with torch.no_grad():
        together, alone = block(tokens), torch.cat([block(clip[None]) for clip in tokens])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("numbers", [3 * 8, 5 * 8, 2**17])
def test_the_size_of_pieces_changes_nothing(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """32 tokens do not divide into pieces of 3 or 5."""
    from dualformer_cli.model import blocks

    monkeypatch.setattr(blocks, "PIECE_NUMBERS", numbers)
    torch.manual_seed(0)
    tokens = torch.randn(2, 2, 4, 4, 8)
    for attention in (GlobalPyramidAttention(8, 2, pool=None), LocalWindowAttention(8, 2, window_size=(2, 2, 2))):
        block = Block(8, attention=attention, mlp_ratio=4, drop_path=0.0).eval()
        with torch.no_grad():
            found = block(tokens)
        torch.testing.assert_close(found, block(tokens).detach(), atol=1e-5, rtol=1e-5)


def test_a_path_is_dropped_for_a_whole_clip_and_clip_by_clip() -> None:
    torch.manual_seed(0)
    branch = torch.ones(64, 2, 3, 3, 4)
    found = add_branch(torch.zeros_like(branch), branch, DropPath(0.25).train()(branch)).flatten(1)
    assert (found == found[:, :1]).all()
    values = found[:, 0].tolist()
    assert sorted(set(values)) == pytest.approx([0, 1 / 0.75])
    assert 4 < values.count(0.0) < 28  # 16 +- 3.5


def test_both_branches_of_a_block_are_dropped() -> None:
    torch.manual_seed(0)
    attention = LocalWindowAttention(8, 2, window_size=(1, 2, 2))
    block = Block(8, attention=attention, mlp_ratio=4, drop_path=1 - 1e-6).train()
    x = torch.randn(2, 1, 4, 4, 8)
    assert torch.equal(block(x), x)


def test_without_training_nothing_is_dropped() -> None:
    model = model_of(drop_path=0.9, dropout=0.9).eval()
    clips = torch.randn(2, 3, 8, 64, 64)
    for run in (torch.no_grad, torch.enable_grad):
        with run():
            assert torch.equal(model(clips), model(clips))


def test_fresh_linear_layers_are_small_with_biases_of_0() -> None:
    layers = [module for module in model_of(token_head=True).modules() if isinstance(module, nn.Linear)]
    values = torch.cat([layer.weight.detach().flatten() for layer in layers])
    assert values.std().item() == pytest.approx(0.02, rel=0.02)
    assert all((layer.bias == 0).all() for layer in layers)


def test_the_logits_are_those_of_the_mean_token() -> None:
    model = model_of().eval()
    clips = torch.randn(2, 3, 8, 64, 64)
    with torch.no_grad():
        mean = model.forward_tokens(clips).reshape(2, -1, 32).mean(dim=1)
        expected = mean @ model.classifier.weight.T + model.classifier.bias
        torch.testing.assert_close(model(clips), expected)


def test_losses_of_the_other_heads_reach_the_backbone_and_change_no_logits() -> None:
    model = model_of(token_head=True, motion_heads=True, dropout=0.0).train()
    clips = torch.randn(2, 3, 8, 64, 64)
    plain = model(clips)
    logits, tokens = model.forward_both_heads(clips)
    torch.testing.assert_close(logits, plain)
    first = model.stages[0].patch_embed.proj.weight  # type: ignore[union-attr]
    assert torch.autograd.grad(tokens.square().sum(), first)[0].norm() > 0  # type: ignore[arg-type]
    logits, motions = model.forward_motion(clips)
    torch.testing.assert_close(logits, plain)
    for motion in motions:
        gradient = torch.autograd.grad(motion.square().sum(), first, retain_graph=True)[0]  # type: ignore[arg-type]
        assert gradient.norm() > 0


def test_checkpointed_blocks_keep_no_activations_and_count_their_batch_once() -> None:
    found = []
    for enabled in (False, True):
        model = model_of(gradient_checkpointing=enabled, dropout=0.0).train()
        assert [bool(stage.gradient_checkpointing) for stage in model.stages] == [enabled] * 4
        model(torch.randn(2, 3, 8, 64, 64, generator=torch.Generator().manual_seed(1))).sum().backward()
        found.append(dict(model.named_buffers()))
        assert {norm.momentum for norm in model.modules() if isinstance(norm, nn.BatchNorm3d)} == {0.1}
    assert found[0]
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], msg=name)
