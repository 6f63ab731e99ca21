"""Multiply-adds, parameters and latency of models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dualformer_cli.config.load import load_config
from dualformer_cli.config.schema import RunConfig, RuntimeConfig
from dualformer_cli.documents.base import to_json
from dualformer_cli.engine import complexity
from dualformer_cli.engine.build import build_model
from dualformer_cli.engine.complexity import KERNEL_HANDLES, Complexity, count, describe, measure_latency
from dualformer_cli.errors import DualFormerError
from dualformer_cli.model.dualformer import DualFormer

SMALL_CLIP = (3, 16, 56, 56)
SMALL_MODEL = [
    "model.embed_dims=[32, 64]",
    "model.depths=[2, 2]",
    "model.num_heads=[1, 2]",
    "model.patch_sizes=[[2, 4, 4], [1, 2, 2]]",
    "model.num_classes=10",
    "data.clip.num_frames=16",
    "data.crop_size=56",
]


def on_meta(config: RunConfig) -> DualFormer:
    with torch.device("meta"):
        return build_model(config.model, config.data)


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return load_config(None, overrides=SMALL_MODEL, environ={}).config


@pytest.fixture(scope="module")
def model(config: RunConfig) -> DualFormer:
    return build_model(config.model, config.data)


@pytest.fixture(scope="module")
def cost(model: DualFormer) -> Complexity:
    return count(model, SMALL_CLIP)


@pytest.mark.parametrize(
    ("size", "published_multiply_adds", "published_parameters"),
    [("tiny", 60.088e9, 21_767_360), ("small", 158.687e9, 48_908_064), ("base", 267.965e9, 86_837_632)],
)
def test_counts_equal_the_published_table(size: str, published_multiply_adds: float, published_parameters: int) -> None:
    config = load_config(size, environ={}).config
    published = count(on_meta(config), (3, 32, 224, 224))
    assert published.multiply_adds_per_view == pytest.approx(published_multiply_adds, rel=1e-5)
    assert published.parameters_backbone == published_parameters


def test_without_numbers_every_module_counts_the_same(config: RunConfig, cost: Complexity) -> None:
    assert count(on_meta(config), SMALL_CLIP) == cost


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_torchs_own_counter_agrees_on_products_and_convolutions(size: str) -> None:
    """It counts two operations for a multiply-add, and no norms: ours are 5 per value of LayerNorm, 2 of BatchNorm."""
    model, of_norms = on_meta(load_config(size, environ={}).config).eval(), 0

    def add(norm: nn.Module, inputs: object, output: Tensor | tuple[Tensor, Tensor]) -> None:
        nonlocal of_norms
        normed = output[1] if isinstance(output, tuple) else output  # a block's norm returns the sum, too
        of_norms += (5 if isinstance(norm, nn.LayerNorm) else 2) * normed.numel()

    hooks = [
        module.register_forward_hook(add)
        for module in model.modules()
        if isinstance(module, nn.LayerNorm | nn.modules.batchnorm._BatchNorm)
    ]
    with FlopCounterMode(display=False) as theirs, torch.no_grad():
        model(torch.zeros(1, 3, 32, 224, 224, device="meta"))
    for hook in hooks:
        hook.remove()
    ours = count(model, (3, 32, 224, 224)).multiply_adds_with_classifier
    assert ours == theirs.get_total_flops() // 2 + of_norms


def test_a_description_computes_nothing_but_for_the_latency(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    forward = DualFormer.forward
    monkeypatch.setattr(DualFormer, "forward", lambda self, x: seen.append(x.device.type) or forward(self, x))
    plain = describe(config, name="mine")
    assert set(seen) == {"meta"}
    monkeypatch.setattr(complexity, "measure_latency", lambda model, *_: next(model.parameters()).device.type)
    timed = describe(config, name="mine", with_latency=True)
    assert timed.latency == "cpu"  # type: ignore[comparison-overlap]
    assert replace(timed, latency=None) == plain


def test_the_backbone_leaves_out_the_classifier_only(cost: Complexity) -> None:
    assert cost.multiply_adds_with_classifier - cost.multiply_adds_per_view == 64 * 10
    assert cost.parameters - cost.parameters_backbone == 64 * 10 + 10


def test_the_backbone_leaves_out_the_token_head(config: RunConfig, cost: Complexity) -> None:
    with_head = count(build_model(replace(config.model, token_head=True), config.data), SMALL_CLIP)
    assert with_head.parameters > cost.parameters
    assert with_head.parameters_backbone == cost.parameters_backbone
    assert with_head.multiply_adds_per_view == cost.multiply_adds_per_view


def test_rows_of_stages_norm_and_classifier_sum_to_the_whole(cost: Complexity) -> None:
    parts = [row for row in cost.by_module if row.module in ("stages.0", "stages.1", "norm", "classifier")]
    assert sum(row.multiply_adds for row in parts) == cost.multiply_adds_with_classifier
    assert sum(row.parameters for row in parts) == cost.parameters


def test_the_row_of_an_attention_holds_its_products(cost: Complexity) -> None:
    tokens, dim, window = 8 * 14 * 14, 32, 8 * 7 * 7
    row = next(row for row in cost.by_module if row.module == "stages.0.blocks.0.attention")
    assert row.multiply_adds == tokens * dim * (4 * dim + 2 * window)


def test_counting_leaves_the_model_as_it_was(model: DualFormer) -> None:
    model.train()
    count(model, SMALL_CLIP)
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_checkpointed_models_count_the_same(config: RunConfig, cost: Complexity) -> None:
    checkpointed = replace(config, model=replace(config.model, gradient_checkpointing=True))
    assert count(build_model(checkpointed.model, checkpointed.data), SMALL_CLIP) == cost


class _Attention(nn.Module):
    """One head over the pixels of a clip, with stored scores, the library's attention, or one of its variants."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.embed = nn.Linear(3, 8)

    def forward(self, clips: Tensor) -> Tensor:
        x = self.embed(clips.flatten(2).transpose(1, 2)).unsqueeze(1)
        q, k, v = x, x[:, :, ::2].contiguous(), x[:, :, 1::2].contiguous()
        if self.how == "stored":
            return (q @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        if self.how == "library":
            return F.scaled_dot_product_attention(q, k, v)
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[0]


def test_fused_attention_counts_like_stored_scores() -> None:
    counts = {
        how: count(_Attention(how), (3, 2, 4, 4)).multiply_adds_per_view for how in ("stored", "library", "flash")
    }
    assert counts == dict.fromkeys(counts, 32 * 3 * 8 + 2 * 32 * 16 * 8)


@torch.library.custom_op("dualformer_test::window_attention", mutates_args=())
def _window_attention(qkv: Tensor, window_size: list[int], num_heads: int) -> Tensor:
    return qkv[..., : qkv.shape[-1] // 3].clone()


@torch.library.custom_op("dualformer_test::depthwise_conv3d", mutates_args=())
def _depthwise_conv3d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.clone()


@torch.library.custom_op("dualformer::test_of_an_uncounted_operation", mutates_args=())
def _uncounted(x: Tensor) -> Tensor:
    return x.clone()


class _Calls(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.weight = nn.Parameter(torch.zeros(3, 1, 3, 3, 3))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, clips: Tensor) -> Tensor:
        x = clips.permute(0, 2, 3, 4, 1)
        if self.name == "window_attention":
            return _window_attention(x, [2, 1, 2], 1)
        if self.name == "depthwise_conv3d":
            return _depthwise_conv3d(x, self.weight, self.bias)
        return _uncounted(x)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("window_attention", 2 * (4 * 4 * 4) * 4), ("depthwise_conv3d", (4 * 4 * 4) * 3 * 27)],
)
def test_our_operations_count_what_their_reference_computes(
    name: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KERNEL_HANDLES, f"dualformer_test::{name}", KERNEL_HANDLES[f"dualformer::{name}"])
    assert count(_Calls(name), (3, 4, 4, 4)).multiply_adds_per_view == expected


def test_an_operation_of_ours_without_a_count_is_named() -> None:
    with pytest.raises(ValueError, match="dualformer::test_of_an_uncounted_operation; add them to KERNEL_HANDLES"):
        count(_Calls("uncounted"), (3, 4, 4, 4))


def test_the_document_multiplies_by_the_views_of_the_test(config: RunConfig, cost: Complexity) -> None:
    assert to_json(describe(config, name="mine")) == {
        "model": "mine",
        "num_classes": 10,
        "input": [3, 16, 56, 56],
        "views": 4,
        "multiply_adds_per_view": cost.multiply_adds_per_view,
        "multiply_adds_per_video": 4 * cost.multiply_adds_per_view,
        "parameters_backbone": cost.parameters_backbone,
        "parameters": cost.parameters,
    }


def test_uniform_segments_make_one_clip_per_crop(config: RunConfig) -> None:
    clip = replace(config.data.clip, sampling="segments")
    data = replace(config.data, clip=clip, test=replace(config.data.test, num_crops=3))
    described = describe(replace(config, data=data), name="mine")
    assert described.views == 3
    assert described.multiply_adds_per_video == 3 * described.multiply_adds_per_view


def test_latency_states_its_conditions(config: RunConfig) -> None:
    runtime = RuntimeConfig(device="cpu", precision="bf16")
    latency = measure_latency(
        build_model(config.model, config.data), SMALL_CLIP, runtime, batch_size=2, measure_seconds=0
    )
    assert (latency.device, latency.precision, latency.compiled) == ("cpu", "bf16", False)
    assert (latency.batch_size, latency.num_runs, latency.num_threads) == (2, 5, torch.get_num_threads())
    assert 0 < latency.p20_ms <= latency.median_ms <= latency.p80_ms
    assert latency.clips_per_second == pytest.approx(2000 / latency.median_ms)


def test_latency_is_that_of_clips_that_lie_in_memory_as_predict_has_them() -> None:
    class Model(torch.nn.Identity):
        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            assert clips.shape == (1, *SMALL_CLIP)
            assert clips.permute(0, 2, 3, 4, 1).is_contiguous()
            return clips

    assert measure_latency(Model(), SMALL_CLIP, RuntimeConfig(device="cpu"), measure_seconds=0).num_runs == 5


@pytest.mark.skipif(torch.cuda.device_count() > 7, reason="needs a machine without an eighth GPU")
def test_a_device_that_is_not_there_is_named(model: DualFormer) -> None:
    with pytest.raises(DualFormerError, match="device 'cuda:7' is not here"):
        measure_latency(model, SMALL_CLIP, RuntimeConfig(device="cuda:7"))
