"""Grad-CAM: names of layers and classes, maps against plain autograd, and what a model that has learned looks at."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from dualformer_cli.config.load import load_config
from dualformer_cli.engine.build import build_model
from dualformer_cli.engine.engine import Engine
from dualformer_cli.engine.explain import gradcam
from dualformer_cli.engine.explain.deletion import delete
from dualformer_cli.engine.explain.gradcam import Layer, explain, find_class, find_layer, grad_cam, read_video
from dualformer_cli.errors import DualFormerError, VideoError
from dualformer_cli.model.dualformer import DualFormer
from dualformer_cli.system.workers import WorkerDied, WorkerPool, WorkerStartError

SMALL = (2, 2, 18, 2)


def test_a_worker_that_dies_is_the_videos_fault_and_one_that_does_not_start_is_not(
    here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(path: str, **sections: Any) -> None:
        raise WorkerDied(path, 3)

    engine: Any = SimpleNamespace(config=load_config("tiny", environ={}).config)
    with (
        WorkerPool(1, 20.0, initializer=partial(os._exit, 4)) as pool,
        pytest.raises(WorkerStartError, match="exit code 4"),
    ):
        read_video(engine, "a.mp4", pool)
    monkeypatch.setattr(gradcam, "read_views", die)
    with pytest.raises(VideoError, match=r"^'a\.mp4': decoder ended without a result \(exit code 3\)$"):
        read_video(engine, "a.mp4", here_pool())


def test_heat_is_of_the_views_that_predict_takes(here_pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("tiny", environ={}).config
    assert config.data.test != config.data.validation
    monkeypatch.setattr(gradcam, "read_views", lambda path, **sections: (path, sections))
    engine: Any = SimpleNamespace(config=config)
    asked: Any = read_video(engine, "a.mp4", here_pool())
    assert asked == ("a.mp4", {"data": config.data, "views": config.data.test})


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("3/1", Layer(3, 1)),
        ("last", Layer(3, 1)),
        ("-1/-1", Layer(3, 1)),
        ("2/-18", Layer(2, 0)),
        ("-4/1", Layer(0, 1)),
        ("backbone/blocks/2/17", Layer(2, 17)),
    ],
)
def test_a_layer_is_found_by_each_of_its_names(name: str, layer: Layer) -> None:
    assert find_layer(name, SMALL, "k400-small") == layer


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.data())
def test_every_block_has_a_name_from_the_front_and_one_from_the_back(depths: list[int], data: Any) -> None:
    stage = data.draw(st.integers(0, len(depths) - 1))
    block = data.draw(st.integers(0, depths[stage] - 1))
    expected = Layer(stage, block)
    assert find_layer(str(expected), depths, "model") == expected
    assert find_layer(f"{stage - len(depths)}/{block - depths[stage]}", depths, "model") == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("3/3", "layer '3/3' not found: k400-small has 2 blocks in stage 3: 3/0, 3/1"),
        ("3/-3", "layer '3/-3' not found: k400-small has 2 blocks in stage 3: 3/0, 3/1"),
        ("2/18", "layer '2/18' not found: k400-small has 18 blocks in stage 2: 2/0 to 2/17"),
        (
            "4/0",
            "layer '4/0' not found: k400-small has 4 stages: 0/0 to 0/1, 1/0 to 1/1, 2/0 to 2/17, 3/0 to 3/1",
        ),
        ("backbone/blocks/9/9", "layer 'backbone/blocks/9/9' not found: k400-small has 4 stages"),
        ("last/1", "layer 'last/1' is not STAGE/BLOCK, such as 3/1, -1/-1 or last; k400-small has 4 stages"),
        ("", "layer '' is not STAGE/BLOCK"),
        ("3/1 ", "layer '3/1 ' is not STAGE/BLOCK"),
        ("²/1", "layer '²/1' is not STAGE/BLOCK"),
    ],
)
def test_a_wrong_layer_names_those_that_there_are(name: str, message: str) -> None:
    with pytest.raises(DualFormerError) as error:
        find_layer(name, SMALL, "k400-small")
    assert str(error.value).startswith(message)


def test_a_stage_of_one_block_is_named_once() -> None:
    with pytest.raises(DualFormerError, match=r"4 stages: 0/0, 1/0, 2/0 to 2/1, 3/0$"):
        find_layer("9/9", (1, 1, 2, 1), "mini.yaml")


def test_layers_are_listed_with_attention_grid_and_channels() -> None:
    layers = [asdict(row) for row in gradcam.list_layers(load_config("k400-small", environ={}).config)]
    assert len(layers) == sum(SMALL)
    assert layers[0] == {"layer": "0/0", "attention": "local", "grid": (16, 56, 56), "channels": 96}
    assert layers[-1] == {"layer": "3/1", "attention": "global", "grid": (16, 7, 7), "channels": 768}


NAMES = ["riding a bike", "playing harp", "7", "juggling (balls)"]
ALL_NAMES = ": riding a bike, playing harp, 7, juggling (balls)"


@pytest.mark.parametrize(
    ("name", "index"), [("playing harp", 1), ("Playing_Harp", 1), ("juggling balls", 3), ("3", 3), ("0", 0), ("7", 2)]
)
def test_a_class_is_found_by_its_name_however_spelled_or_its_number(name: str, index: int) -> None:
    assert find_class(name, NAMES) == index


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("playing hrap", "class 'playing hrap' is none of the model's 4 classes; did you mean 'playing harp'?"),
        ("4", "class 4 not found: the model has 4 classes, 0 to 3"),
        ("xyzzy", "class 'xyzzy' is none of the model's 4 classes; give a name or a number from 0 to 3" + ALL_NAMES),
        ("-1", "class '-1' is none of the model's 4 classes; give a name or a number from 0 to 3" + ALL_NAMES),
    ],
)
def test_an_unknown_class_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(DualFormerError) as error:
        find_class(name, NAMES)
    assert str(error.value) == message


@pytest.fixture
def mini(mini_preset: Any, mini_weights: Any) -> Engine:
    return Engine(load_config(str(mini_preset), overrides=[f"weights={mini_weights}"], environ={}))


@pytest.fixture
def clips() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (2, 8, 64, 64, 3), dtype=np.uint8)


def plain_maps(model: DualFormer, x: torch.Tensor, layer: Layer, target: int, score: str, multi_label: bool) -> Any:
    """Maps by a hook on the whole model and the definition, step by step."""
    kept = []
    block = model.stages[layer.stage].blocks[layer.block]  # type: ignore[index,union-attr]
    handle = block.register_forward_hook(lambda _, inputs, output: kept.append(output))
    logits = model(x)
    handle.remove()
    scores = logits if score == "logit" else logits.sigmoid() if multi_label else logits.softmax(-1)
    (gradient,) = torch.autograd.grad(scores[:, target].sum(), kept[0])
    return F.relu((gradient.mean(dim=(2, 3), keepdim=True) * kept[0]).sum(-1)).detach()


@pytest.mark.parametrize("name", ["0/0", "0/1", "1/0", "2/1", "3/0", "3/1"])
@pytest.mark.parametrize(("score", "multi_label"), [("logit", False), ("probability", False), ("probability", True)])
def test_maps_are_those_of_plain_autograd(name: str, score: Any, multi_label: bool, mini: Engine) -> None:
    model, layer = mini.model.double(), find_layer(name, (2, 2, 2, 2), "mini")
    x = torch.randn(2, 3, 8, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        output = model.forward_until(x, layer.stage, layer.block)
    found = grad_cam(model, output, layer, 2, score=score, multi_label=multi_label)
    expected = plain_maps(model, x, layer, 2, score, multi_label)
    assert expected.max() > 0
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9 * float(expected.max()))


def test_a_probability_near_one_keeps_its_map(mini: Engine) -> None:
    with torch.no_grad():
        mini.model.classifier.weight.mul_(3)
        mini.model.classifier.bias.copy_(torch.tensor([25.0, 0, 0, 0, 0]))  # 1 - p is 1e-11, of which float32 has none
        x = torch.randn(1, 3, 8, 64, 64)
        output = mini.model.forward_until(x, 3, 0)
    found = grad_cam(mini.model, output, Layer(3, 0), 0, score="probability")
    expected = plain_maps(mini.model.double(), x.double(), Layer(3, 0), 0, "probability", False)
    stretched = (gradcam.stretch(maps.double().numpy()) for maps in (found, expected))
    np.testing.assert_allclose(*stretched, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["0/1", "2/0", "3/1"])
def test_maps_in_low_precision_are_float32_and_near(dtype: torch.dtype, name: str, mini: Engine) -> None:
    layer = find_layer(name, (2, 2, 2, 2), "mini")
    x = torch.randn(1, 3, 8, 64, 64)
    maps = []
    for kind in (torch.float32, dtype):
        model = mini.model.to(kind)
        with torch.no_grad():
            output = model.forward_until(x.to(kind), layer.stage, layer.block)
        maps.append(grad_cam(model, output, layer, 1))
    assert maps[1].dtype == torch.float32
    assert (gradcam.stretch(maps[0].numpy()) - gradcam.stretch(maps[1].numpy())).std() < 0.05


def test_a_token_head_changes_nothing(mini: Engine, mini_preset: Any, clips: Any) -> None:
    before = explain(mini, clips, Layer(2, 1))
    config = load_config(str(mini_preset), overrides=["model.token_head=true"], environ={}).config
    model = build_model(config.model, config.data).eval()
    model.load_state_dict(mini.model.state_dict(), strict=False)
    mini.model = model
    np.testing.assert_array_equal(explain(mini, clips, Layer(2, 1)).grid, before.grid)


def test_the_best_class_is_explained_and_the_model_stays_as_it_was(mini: Engine, clips: Any) -> None:
    scores, _ = mini.scorer.score(clips)
    mini.model.stages[1].gradient_checkpointing = True  # type: ignore[assignment]
    calls: list[None] = []
    found = explain(mini, clips, Layer(3, 1), on_pass=lambda: calls.append(None))
    assert found.class_index == scores.mean(axis=0).argmax()
    assert found.label == mini.class_names[found.class_index]
    np.testing.assert_allclose(found.view_scores, scores[:, found.class_index], atol=1e-6)
    assert found.score == pytest.approx(found.view_scores.mean())
    assert found.grid.shape == (2, 4, 2, 2)
    assert found.heatmaps().shape == (2, 8, 64, 64)
    assert (found.heatmaps().min(axis=(1, 2, 3)) == 0).all()
    assert (found.heatmaps().max(axis=(1, 2, 3)) == 1).all()
    assert len(calls) == 4
    assert all(parameter.requires_grad and parameter.grad is None for parameter in mini.model.parameters())
    assert [stage.gradient_checkpointing for stage in mini.model.stages] == [False, True, False, False]


def test_a_frozen_parameter_is_frozen_after_an_explanation(mini: Engine) -> None:
    weight = mini.model.classifier.weight.requires_grad_(False)
    try:
        with gradcam.prepared(mini.model):
            pass
        assert not weight.requires_grad
        assert mini.model.classifier.bias.requires_grad
    finally:
        weight.requires_grad_(True)


@pytest.mark.parametrize(
    ("multi_label", "score"),
    [
        (False, ((np.e / (np.e**2 + np.e + 3)) + np.e**3 / (np.e**3 + 4)) / 2),
        (True, (1 / (1 + np.exp(-1)) + 1 / (1 + np.exp(-3))) / 2),
    ],
)
def test_the_class_and_its_numbers_are_of_all_views(
    multi_label: bool, score: float, mini: Engine, clips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.tensor([[2.0, 1, 0, 0, 0], [0, 3, 0, 0, 0]], dtype=torch.float64)  # the first view has another best
    monkeypatch.setattr(gradcam, "_run_until", lambda *_: ([torch.ones(1, 4, 2, 2, 3)] * 2, logits))
    monkeypatch.setattr(gradcam, "grad_cam", lambda *_, **__: torch.ones(1, 4, 2, 2))
    data = replace(mini.config.data, multi_label=multi_label)
    monkeypatch.setattr(mini, "config", replace(mini.config, data=data))
    found = explain(mini, clips, Layer(3, 1))
    assert (found.class_index, found.label, found.logit) == (1, mini.class_names[1], 2)
    assert found.score == pytest.approx(score)


def test_views_do_not_depend_on_each_other(mini: Engine, clips: Any) -> None:
    together = explain(mini, clips, Layer(1, 0), class_index=3)
    alone = explain(mini, clips[1:], Layer(1, 0), class_index=3)
    np.testing.assert_allclose(together.grid[1], alone.grid[0], rtol=1e-4, atol=1e-9)


def test_an_empty_map_is_told(mini: Engine, clips: Any) -> None:
    with torch.no_grad():
        mini.model.classifier.weight[1] = 0
    found = explain(mini, clips, Layer(3, 1), class_index=1)
    assert not found.heatmaps().any()
    assert found.warnings == (
        "2 of 2 maps are empty: at layer 3/1 no place speaks for 'jumping' more than another; try another layer",
    )


def test_scores_that_are_not_numbers_are_an_error(mini: Engine, clips: Any) -> None:
    with torch.no_grad():
        mini.model.classifier.bias[0] = torch.nan
    with pytest.raises(DualFormerError, match=r"the scores are not numbers in fp32; the weights are damaged"):
        explain(mini, clips, Layer(3, 1))


def test_a_resized_map_has_its_tokens_at_their_centres() -> None:
    maps = torch.zeros(1, 2, 3, 3)
    maps[0, 1, 2, 0] = 1
    resized = gradcam.resize_maps(maps, (6, 9, 9))[0]
    assert resized.shape == (6, 9, 9)
    assert np.unravel_index(int(resized.argmax()), resized.shape) == (4, 7, 0)
    assert resized[4, 7, 1] == 1


def test_stretching_spans_0_to_1_and_leaves_a_flat_map_empty() -> None:
    assert gradcam.stretch(np.float32([2, 3, 6])).tolist() == [0, 0.25, 1]
    assert gradcam.stretch(np.float32([2, 2])).tolist() == [0, 0]


COLOURS = np.array([(220, 60, 60), (60, 220, 60), (60, 60, 220)])
FINDER_PRESET = """\
model:
  embed_dims: [16, 32, 32]
  depths: [1, 1, 1]
  num_heads: [2, 4, 4]
  patch_sizes: [[2, 4, 4], [1, 2, 2], [1, 2, 2]]
  window_size: [2, 1, 1]
  fine_grid: [2, 2, 2]
  coarse_grid: [2, 2, 2]
  num_classes: 3
  dropout: 0.0
data:
  clip: {num_frames: 4}
  crop_size: 32
  test: {short_side: 32}
  validation: {short_side: 32}
runtime: {device: cpu}
weights: random
"""


def draw_squares(number: int, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Noisy clips (n, 4, 32, 32, 3) with a square of one of three colours in one quadrant; colours and quadrants."""
    clips = rng.normal(110, 30, (number, 4, 32, 32, 3))
    labels, quadrants = rng.integers(0, 3, number), rng.integers(0, 4, number)
    for clip, label, quadrant in zip(clips, labels, quadrants, strict=True):
        top, left = np.array(divmod(quadrant, 2)) * 16 + rng.integers(0, 5, 2)
        clip[:, top : top + 12, left : left + 12] = COLOURS[label] + rng.normal(0, 20, (4, 12, 12, 3))
    return clips.clip(0, 255).astype(np.uint8), labels, quadrants


@pytest.fixture
def colour_finder(tmp_path: Any, one_thread: None) -> Engine:
    """A model trained for seconds to name the colour of a square, wherever it is.

    Windows of one token in space: where attention mixes tokens, evidence need not stay at the place it came from.
    """
    (tmp_path / "finder.yaml").write_text(FINDER_PRESET)
    engine = Engine(load_config(str(tmp_path / "finder.yaml"), environ={}))
    model, rng = engine.model.train(), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.02)
    for _ in range(80):
        clips, labels, _ = draw_squares(16, rng)
        x = gradcam.normalize(torch.from_numpy(clips), engine.config.data.mean, engine.config.data.std, torch.float32)
        optimizer.zero_grad()
        F.cross_entropy(model(x), torch.from_numpy(labels)).backward()
        optimizer.step()
    model.eval()
    return engine


def test_the_map_of_a_model_that_has_learned_points_to_its_evidence(colour_finder: Engine) -> None:
    clips, labels, quadrants = draw_squares(12, np.random.default_rng(1))
    scores, _ = colour_finder.scorer.score(clips)
    assert (scores.argmax(axis=1) == labels).mean() > 0.9
    hits, deletion = [], []
    for number, (label, quadrant) in enumerate(zip(labels, quadrants, strict=True)):
        clip = clips[number : number + 1]
        found = explain(colour_finder, clip, Layer(1, 0), class_index=int(label))
        heat = found.heatmaps()[0].mean(axis=0).reshape(2, 16, 2, 16).mean(axis=(1, 3)).reshape(-1)
        hits.append(heat.argmax() == quadrant)
        score = partial(score_of, colour_finder, int(label))
        for grid in (found.grid, -found.grid):
            deletion.append(delete(score, clip, grid, colour=(110, 110, 110)).score)
    assert np.mean(hits) > 0.75  # 0.25 by chance
    assert np.mean(deletion[::2]) > 0.05
    assert np.mean(deletion[1::2]) < 0  # the coldest places first


def score_of(engine: Engine, index: int, clips: Any) -> Any:
    return engine.scorer.score(clips)[0][:, index]
