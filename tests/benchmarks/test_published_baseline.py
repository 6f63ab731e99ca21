"""The benchmark's baseline computes what the published model computes."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor


@pytest.fixture(scope="module")
def baseline() -> ModuleType:
    path = Path(__file__).with_name("published_baseline.py")
    spec = importlib.util.spec_from_file_location("published_baseline", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_samples_equal(actual: Tensor, expected: dict[str, Any]) -> None:
    assert list(actual.shape) == expected["shape"]
    sampled = actual.flatten()[expected["index"]]
    torch.testing.assert_close(sampled, torch.tensor(expected["value"]), rtol=0, atol=1e-5 * expected["absmax"])


def test_golden_stages_features_and_logits(
    baseline: ModuleType, golden: Callable[[str], Any], pattern: Callable[..., Any]
) -> None:
    expected = golden("golden_model")["tiny"]
    model = baseline.pattern_baseline("tiny")
    clips = torch.from_numpy(pattern(expected["input"], (1, 3, 32, 224, 224))).float()
    with torch.inference_mode():
        stages = model.backbone.stages(clips)
        features = model.backbone.finish(stages[-1])
        logits = model.cls_head(features)
    for index, stage in enumerate(stages):
        assert_samples_equal(stage, expected["stages"][f"stage{index}"])
    assert_samples_equal(features, expected["features"])
    assert_samples_equal(logits, expected["logits"])


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_state_dict_names_and_shapes_are_the_published_ones(
    size: str, baseline: ModuleType, golden: Callable[[str], Any]
) -> None:
    published = golden("published_state_dict")
    with torch.device("meta"):
        state = baseline.PublishedDualFormer(size).state_dict()
    shapes = {key: list(value.shape) for key, value in state.items()}
    if size == "tiny":
        assert shapes == published["tiny"]
    else:
        digest = hashlib.sha256(json.dumps(sorted(shapes.items())).encode()).hexdigest()
        assert (len(shapes), digest) == (published[f"{size}_num_keys"], published[f"{size}_sha256"])
