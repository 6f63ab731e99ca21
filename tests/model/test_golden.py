"""The published model's numbers: shapes, parameters, features, stages, logits."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest
import torch
from published_layout import to_published

from dualformer_cli import create_model, load_weights
from dualformer_cli.engine.explain import gradcam
from dualformer_cli.model.dualformer import DualFormer


def deviation(value: torch.Tensor, expected: dict[str, Any]) -> float:
    """Largest error at the stored positions, as a share of the tensor's largest magnitude."""
    assert list(value.shape) == expected["shape"]
    found = value.flatten().double().numpy()[expected["index"]]
    return float(np.abs(found - np.array(expected["value"])).max() / (expected["absmax"] or 1))


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_published_state_dict_has_the_same_keys_and_shapes(size: str, golden: Any) -> None:
    with torch.device("meta"):
        model = create_model(size)
    shapes = {key: list(value.shape) for key, value in to_published(model.state_dict()).items()}
    expected = golden("published_state_dict")
    if size == "tiny":
        assert shapes == expected["tiny"]
    else:
        assert len(shapes) == expected[f"{size}_num_keys"]
        assert hashlib.sha256(json.dumps(sorted(shapes.items())).encode()).hexdigest() == expected[f"{size}_sha256"]


@pytest.mark.parametrize(("size", "parameters"), [("tiny", 21_767_360), ("small", 48_908_064), ("base", 86_837_632)])
def test_backbones_have_the_published_number_of_parameters(size: str, parameters: int) -> None:
    with torch.device("meta"):
        model = create_model(size)
    counts = [sum(parameter.numel() for parameter in module.parameters()) for module in (model, model.classifier)]
    assert counts[0] - counts[1] == parameters


@pytest.mark.parametrize(
    ("size", "dtype", "bound"),
    [("tiny", torch.float32, 1e-4), ("small", torch.float32, 1e-4), ("tiny", torch.float64, 1e-9)],
)
def test_forward_pass_gives_the_published_numbers(
    size: str, dtype: torch.dtype, bound: float, golden: Any, golden_model: Any, pattern: Any
) -> None:
    expected = golden("golden_model")[size]
    model = golden_model(size, expected["num_classes"], dtype)
    clips = torch.from_numpy(pattern(expected["input"], (1, 3, 32, 224, 224))).to(dtype)
    with torch.inference_mode():
        stages = model.forward_stages(clips)
        tokens = model.norm(stages[-1])
        logits = model.classify(tokens)
    for number, stage in enumerate(stages):
        assert deviation(stage.permute(0, 4, 1, 2, 3), expected["stages"][f"stage{number}"]) < bound
    assert deviation(tokens.permute(0, 4, 1, 2, 3), expected["features"]) < bound
    assert deviation(logits, expected["logits"]) < bound
    assert logits[0].topk(5).indices.tolist() == expected["top5_index"]
    if dtype == torch.float32:  # here, because making the weights takes longer than the maps
        for name, numbers in expected["gradcam"].items():
            assert heatmap_deviation(model, [stage.clone() for stage in stages], name, numbers, expected) < 1e-5


def heatmap_deviation(
    model: DualFormer, stages: list[torch.Tensor], name: str, numbers: dict[str, Any], expected: dict[str, Any]
) -> float:
    """Deviation of the Grad-CAM map, for the best class's probability, of a layer that ends its stage."""
    layer = gradcam.find_layer(name, [len(stage.blocks) for stage in model.stages], "model")  # type: ignore[arg-type,union-attr]
    assert layer.block == len(model.stages[layer.stage].blocks) - 1  # type: ignore[arg-type,union-attr]
    with gradcam.prepared(model):
        maps = gradcam.grad_cam(model, stages[layer.stage], layer, expected["top5_index"][0], score="probability")
    heatmap = torch.from_numpy(gradcam.stretch(gradcam.resize_maps(maps, (32, 224, 224)).numpy()))
    assert float(heatmap.mean()) == pytest.approx(numbers["mean"], abs=1e-5)
    return deviation(heatmap, numbers)


def test_small_in_float64_gives_the_published_numbers_on_the_path_that_trains(
    golden: Any, golden_model: Any, pattern: Any
) -> None:
    expected = golden("golden_model")["small"]
    model = golden_model("small", expected["num_classes"], torch.float64)
    clips = torch.from_numpy(pattern(expected["input"], (1, 3, 32, 224, 224)))
    model.set_gradient_checkpointing(True)  # with gradients enabled, and without storing every activation
    features = model.forward_features(clips).detach()
    assert deviation(features, expected["features"]) < 1e-9


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_bfloat16_logits_stay_near_the_published_ones(size: str, golden: Any, golden_model: Any, pattern: Any) -> None:
    expected = golden("golden_model")[size]
    model = golden_model(size, expected["num_classes"]).to(torch.bfloat16)
    clips = torch.from_numpy(pattern(expected["input"], (1, 3, 32, 224, 224))).to(torch.bfloat16)
    with torch.inference_mode():
        assert deviation(model(clips), expected["logits"]) < 2e-2


def test_bfloat16_logits_of_base_stay_near_its_float32_ones(golden: Any, golden_model: Any, pattern: Any) -> None:
    model = golden_model("base", 400, num_frames=16)  # half the time on a processor that only emulates bfloat16
    clips = torch.from_numpy(pattern(golden("golden_model")["tiny"]["input"], (1, 3, 16, 224, 224))).float()
    with torch.inference_mode():
        exact = model(clips)
        rounded = model.to(torch.bfloat16)(clips.to(torch.bfloat16))
    assert float((rounded - exact).abs().max() / exact.abs().max()) < 2e-2


def test_inflated_image_weights_equal_the_published_inflation(golden: Any, pattern: Any) -> None:
    from dualformer_cli.model.weights import inflate_2d, own_key

    expected = golden("golden_recipe")["inflate_2d_tiny"]
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in to_published(create_model("tiny").state_dict()).items()}
    images = {}
    for key, shape in shapes.items():
        name = key.removeprefix("backbone.")
        if key.startswith("backbone.") and ".lr.3." not in key and not key.endswith("num_batches_tracked"):
            flat = shape if len(shape) < 5 else (*shape[:2], *shape[3:])
            images[name] = torch.from_numpy(pattern(f"2d:{name}", flat)).float()
    for name, shape in expected["shapes_2d"].items():
        assert list(images[name].shape) == shape
    model = create_model("tiny")
    inflated = inflate_2d(model, images)
    for name, numbers in expected["result"].items():
        assert deviation(inflated[own_key(f"backbone.{name}")], numbers) < 1e-6
    report = load_weights(model, inflated, strict=False)
    assert {key.split(".")[0] for key in report.fresh if not key.endswith("num_batches_tracked")} == {"classifier"}
