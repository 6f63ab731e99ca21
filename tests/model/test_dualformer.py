"""The network: sizes it allows, variants, training switches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from dualformer_cli import create_model
from dualformer_cli.config.load import load_config
from dualformer_cli.engine.build import build_model
from dualformer_cli.errors import ConfigError
from dualformer_cli.kernels.add_layer_norm import add_branch
from dualformer_cli.model import attention, cpu_attention
from dualformer_cli.model.blocks import DropPath
from dualformer_cli.model.cpu_pieces import can_work_in_pieces
from dualformer_cli.model.dualformer import DualFormer

SMALL_WORLD: dict[str, Any] = {
    "mlp_ratio": 4.0,
    "dropout": 0.5,
    "drop_path": 0.0,
    "num_classes": 5,
    "embed_dims": (8, 16, 16, 32),
    "depths": (2, 2, 2, 2),
    "num_heads": (1, 2, 2, 4),
    "patch_sizes": ((2, 4, 4), (1, 2, 2), (1, 2, 2), (1, 2, 2)),
    "window_size": (2, 2, 2),
    "fine_grid": (2, 2, 2),
    "coarse_grid": (2, 2, 2),
}


def small_world(**changes: Any) -> DualFormer:
    torch.manual_seed(0)
    return DualFormer(**{"input_size": (8, 64, 64), **SMALL_WORLD, **changes})


@pytest.fixture(params=[1, 2])
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
def test_pieces_on_cpu_equal_the_path_that_trains() -> None:
    model = small_world().eval()
    clips = torch.randn(3, 3, 8, 64, 64)
    with torch.no_grad():
        in_pieces = model(clips)
    whole = model(clips)
    assert whole.requires_grad
    torch.testing.assert_close(in_pieces, whole.detach(), rtol=1e-5, atol=1e-5)


def test_an_inference_pass_leaves_its_input_alone() -> None:
    model = small_world().eval()
    clips = torch.randn(1, 3, 8, 64, 64)
    before = clips.clone()
    with torch.inference_mode():
        stages = model.forward_stages(clips)
        again = model.forward_stages(clips)
    assert torch.equal(clips, before)
    assert all(torch.equal(a, b) for a, b in zip(stages, again, strict=True))


def test_work_goes_piece_by_piece_only_where_threads_need_no_state_of_the_one_that_asks() -> None:
    x = torch.zeros(1)
    assert not can_work_in_pieces(x)
    with torch.no_grad():
        assert can_work_in_pieces(x)
        assert not can_work_in_pieces(x.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert not can_work_in_pieces(x)


def test_dropout_is_that_of_the_configuration_in_both_heads() -> None:
    model = small_world(dropout=0.25, token_head=True)
    rates = {name: part.p for name, part in model.named_modules() if isinstance(part, nn.Dropout)}
    assert rates == {"dropout": 0.25, "token_head.1": 0.25, "token_head.4": 0.25}


def test_gradient_checkpointing_changes_no_gradient_and_no_statistics() -> None:
    gradients, statistics = [], []
    for enabled in (False, True):
        model = small_world(dropout=0.0, gradient_checkpointing=enabled).train()
        model(torch.randn(2, 3, 8, 64, 64, generator=torch.Generator().manual_seed(1))).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
        statistics.append(list(model.buffers()))
    assert all(grad is not None for grad in gradients[0])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=1e-4, atol=1e-6)
    for plain, recomputed in zip(*statistics, strict=True):  # the second forward pass must not count its batch again
        torch.testing.assert_close(plain, recomputed)


def test_drop_path_rises_linearly_to_its_rate() -> None:
    model = small_world(drop_path=0.7)
    rates = [block.drop_path.drop_prob for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.1 * index for index in range(8)], abs=1e-6)


def test_drop_path_acts_in_training_only() -> None:
    model = small_world(drop_path=0.9, dropout=0.0)
    clips = torch.randn(1, 3, 8, 64, 64)
    assert not torch.equal(model.train()(clips), model(clips))
    model.eval()
    assert torch.equal(model(clips), model(clips))


@pytest.mark.parametrize(("dtype", "exact"), [(torch.bfloat16, 1e-7), (torch.float64, 1e-15)])
def test_drop_path_scales_up_as_exactly_as_the_tokens_are(dtype: torch.dtype, exact: float) -> None:
    factors = DropPath(0.1).train()(torch.ones(64, 3, dtype=dtype))
    assert factors is not None
    assert factors.unique().tolist() == pytest.approx([0, 1 / 0.9], rel=exact, abs=0)


def test_drop_path_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer = DropPath(0.25).train()
    branch = torch.ones(20_000, 2, 3)
    kept = add_branch(torch.zeros_like(branch), branch, layer(branch))
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert kept.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(kept, kept[:, :1, :1].expand_as(kept))


def test_features_are_channels_first_and_classify_to_the_logits() -> None:
    model = small_world().eval()
    clips = torch.randn(2, 3, 8, 64, 64)
    features = model.forward_features(clips)
    assert features.shape == (2, 32, 4, 2, 2)
    torch.testing.assert_close(model.classifier(features.mean(dim=(2, 3, 4))), model(clips))


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("block", range(2))
def test_a_forward_pass_can_be_cut_after_any_block(stage: int, block: int) -> None:
    model, outputs = small_world().eval(), []
    model.stages[stage].blocks[block].register_forward_hook(lambda _, inputs, output: outputs.append(output))
    clips = torch.randn(2, 3, 8, 64, 64)
    with torch.no_grad():
        tokens = model.forward_tokens(clips)
        output = model.forward_until(clips, stage, block)
        torch.testing.assert_close(output, outputs[0])
        torch.testing.assert_close(model.forward_after(output, stage, block), tokens)


def test_other_multiples_of_the_built_size_are_allowed() -> None:
    model = small_world().eval()
    with torch.inference_mode():
        assert model.forward_features(torch.randn(1, 3, 16, 128, 64)).shape == (1, 32, 8, 4, 2)


def test_a_clip_that_does_not_fit_lists_what_is_allowed() -> None:
    with pytest.raises(
        ValueError,
        match=r"clips of 8 frames, 60x64 pixels do not fit this model \(built for \(8, 64, 64\)\): "
        r"frames must be a multiple of 4, height of 64, width of 64",
    ):
        small_world()(torch.zeros(1, 3, 8, 60, 64))
    with pytest.raises(ValueError, match=r"must have shape \(b, 3, T, H, W\), got \(3, 8, 64, 64\)"):
        small_world()(torch.zeros(3, 8, 64, 64))


def test_the_second_kernel_of_the_coarse_level_decides_what_sizes_fit() -> None:
    """The first stage's coarse level has boxes of (1, 4, 4), then of (4, 2, 2), tokens of (1, 4, 4) pixels."""
    sizes = {"embed_dims": (8, 16), "depths": (2, 2), "num_heads": (1, 2), "patch_sizes": ((1, 4, 4), (1, 2, 2))}
    model = small_world(**sizes, window_size=(1, 4, 4), fine_grid=(8, 4, 4), coarse_grid=(2, 2, 2))
    with pytest.raises(ValueError, match=r"frames must be a multiple of 4, height of 32, width of 32"):
        model(torch.zeros(1, 3, 6, 64, 64))


def test_a_size_that_cannot_be_built_lists_sizes_that_can() -> None:
    config = load_config("tiny", overrides=["data.crop_size=200"]).config
    with pytest.raises(ConfigError) as error:
        build_model(config.model, config.data)
    assert "clips of 32 frames, 200x200 pixels do not fit" in str(error.value)
    assert "crop_size can be" in str(error.value)
    assert "224" in str(error.value)


def test_sixteen_frames_pool_half_as_many_tokens_in_time() -> None:
    with torch.device("meta"):
        model = create_model("ucf101-tiny")
    pools = [stage.blocks[1].attention.pool for stage in model.stages]
    assert [pool and pool.fine.kernel_size for pool in pools] == [(1, 8, 8), (1, 4, 4), (1, 2, 2), None]
    assert [pool.coarse_pool.kernel_size for pool in pools[:2]] == [(2, 2, 2), (2, 1, 1)]


def test_pyramids_have_the_published_number_of_tokens() -> None:
    with torch.device("meta"):
        model = create_model("tiny")
        counts = []
        for dim, side, stage in zip((64, 128, 256), (56, 28, 14), model.stages, strict=False):
            counts.append(stage.blocks[1].attention.pool(torch.empty(1, 16, side, side, dim)).shape[1])
    assert counts == [456, 456, 392]


def test_batch_statistics_of_the_coarse_level_are_used_in_training() -> None:
    model = small_world().train()
    norm = model.stages[0].blocks[1].attention.pool.coarse_norm
    before = norm.running_mean.clone()
    model(torch.randn(2, 3, 8, 64, 64))
    assert not torch.equal(norm.running_mean, before)


def test_create_model_takes_a_number_of_classes() -> None:
    with torch.device("meta"):
        assert create_model("base", num_classes=600).classifier.weight.shape == (600, 1024)
        assert create_model("diving48-small").classifier.weight.shape == (48, 768)
        with pytest.raises(ConfigError, match=r"num_classes must be from 1 to 1,000,000, got 0"):
            create_model("tiny", num_classes=0)


@pytest.mark.parametrize("prefers_products", [True, False])
@pytest.mark.parametrize("heads", [1, 3])
def test_bfloat16_attention_in_pieces_equals_the_fused_one(
    heads: int, prefers_products: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_attention, "_prefers_products", lambda: prefers_products)
    monkeypatch.setattr(cpu_attention, "_CACHED_SCORES", 40)  # rows and heads are cut, unevenly
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, length, heads, 8, dtype=torch.bfloat16) for length in (11, 13, 13))
    with torch.inference_mode():
        found = attention.attend(q, k, v)
    expected = torch.softmax(torch.einsum("blhd,bphd->bhlp", q.double(), k.double()) * 8**-0.5, dim=-1)
    wanted = torch.einsum("bhlp,bphd->blhd", expected, v.double()).flatten(2)
    assert found.shape == wanted.shape
    assert (found.double() - wanted).abs().max() < 2e-2 * wanted.abs().max()
