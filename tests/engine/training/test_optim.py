"""Parameter groups and learning rates of the published runs, and frozen stages."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dualformer_cli import create_model
from dualformer_cli.engine.training import optim
from dualformer_cli.engine.training.optim import (
    build_optimizer,
    freeze_stages,
    lr_at,
    parameter_groups,
    set_learning_rate,
    train_mode,
)
from dualformer_cli.model.dualformer import DualFormer

RECIPE: dict[str, Any] = {"lr": 1e-3, "backbone_lr_scale": 0.1, "weight_decay": 0.02, "decay_norms": True}


pytestmark = pytest.mark.usefixtures("one_thread")


def small_model(*, token_head: bool = False) -> DualFormer:
    """Two stages of two blocks, with a BatchNorm in the first."""
    return DualFormer(
        input_size=(4, 64, 64),
        num_classes=5,
        embed_dims=(8, 16),
        depths=(2, 2),
        num_heads=(1, 2),
        patch_sizes=((2, 4, 4), (1, 2, 2)),
        window_size=(2, 4, 4),
        fine_grid=(2, 4, 4),
        coarse_grid=(2, 2, 2),
        mlp_ratio=4.0,
        dropout=0.5,
        drop_path=0.0,
        token_head=token_head,
    )


def group_of(groups: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (group,) = [group for group in groups if name in group["names"]]
    return group


def test_groups_of_tiny_are_those_of_the_published_run(golden: Callable[[str], Any]) -> None:
    with torch.device("meta"):
        model = create_model("tiny", num_classes=400)
    counted = {
        f"lr_mult={group['lr_scale']},decay_mult={group['weight_decay'] / 0.02}": {
            "tensors": len(group["params"]),
            "elements": sum(parameter.numel() for parameter in group["params"]),
        }
        for group in parameter_groups(model, **RECIPE)
    }
    assert counted == golden("golden_recipe")["param_groups_as_run_tiny_400"]


@pytest.mark.parametrize("frozen_stages", [0, 1])
@pytest.mark.parametrize("decay_norms", [True, False])
@pytest.mark.parametrize("layer_decay", [1.0, 0.75])
def test_every_parameter_that_trains_is_in_exactly_one_group(
    layer_decay: float, decay_norms: bool, frozen_stages: int
) -> None:
    model = small_model(token_head=True)
    settings = {**RECIPE, "decay_norms": decay_norms}
    groups = parameter_groups(model, **settings, layer_decay=layer_decay, frozen_stages=frozen_stages)
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(
        name for name, _ in model.named_parameters() if not (frozen_stages and name.startswith("stages.0."))
    )
    parameters = dict(model.named_parameters())
    for group in groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            assert parameters[name] is parameter
        assert group["lr"] == RECIPE["lr"] * group["lr_scale"]


def test_classifier_and_token_head_share_the_full_rate_and_decay() -> None:
    groups = parameter_groups(small_model(token_head=True), **RECIPE)
    assert {(group["lr_scale"], group["weight_decay"]) for group in groups} == {(0.1, 0.02), (1.0, 0.0), (1.0, 0.02)}
    classifier = group_of(groups, "classifier.weight")
    assert sorted(name.split(".")[0] for name in classifier["names"]) == ["classifier"] * 2 + ["token_head"] * 6
    assert (classifier["lr_scale"], classifier["weight_decay"]) == (1.0, 0.02)


def test_norms_and_biases_decay_as_published_and_only_then() -> None:
    model = small_model()
    published = parameter_groups(model, **RECIPE)
    intended = parameter_groups(model, **{**RECIPE, "decay_norms": False})
    for name, parameter in model.named_parameters():
        if ".position." in name:
            assert group_of(published, name)["weight_decay"] == group_of(intended, name)["weight_decay"] == 0
            continue
        assert group_of(published, name)["weight_decay"] == 0.02
        assert group_of(intended, name)["weight_decay"] == (0.02 if parameter.dim() > 1 else 0)
        assert group_of(intended, name)["lr_scale"] == group_of(published, name)["lr_scale"]


def test_layer_decay_follows_the_depth_from_the_embedding_to_the_heads() -> None:
    groups = parameter_groups(small_model(), **{**RECIPE, "backbone_lr_scale": 1.0}, layer_decay=0.5)
    scales = {
        "stages.0.patch_embed.proj.weight": 0.5**5,
        "stages.0.blocks.0.norm1.weight": 0.5**4,
        "stages.0.position.weight": 0.5**4,
        "stages.0.blocks.1.attention.pool.coarse_conv.weight": 0.5**3,
        "stages.1.patch_embed.norm.bias": 0.5**2,
        "stages.1.position.bias": 0.5**2,
        "stages.1.blocks.0.attention.qkv.weight": 0.5**2,
        "stages.1.blocks.1.mlp.fc2.bias": 0.5,
        "norm.weight": 1,
        "classifier.weight": 1,
    }
    assert {name: group_of(groups, name)["lr_scale"] for name in scales} == scales
    scaled = parameter_groups(small_model(), **RECIPE, layer_decay=0.5)
    assert group_of(scaled, "stages.1.blocks.1.mlp.fc2.bias")["lr_scale"] == pytest.approx(0.05)
    assert group_of(scaled, "stages.0.position.weight")["lr_scale"] == 0.5**4


def test_frozen_stages_have_no_gradients_and_their_statistics_stay() -> None:
    torch.manual_seed(0)
    model = small_model()
    freeze_stages(model, 1)
    train_mode(model, frozen_stages=1)
    assert [model.stages[0].training, model.stages[1].training, model.dropout.training] == [False, True, True]
    before = {name: value.clone() for name, value in model.stages[0].state_dict().items()}
    model(torch.randn(1, 3, 4, 64, 64)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in model.stages[0].state_dict().items())
    assert {name.split(".")[1] for name, p in model.named_parameters() if p.grad is None} == {"0"}


def test_more_frozen_stages_than_the_model_has_are_refused() -> None:
    with pytest.raises(ValueError, match="frozen_stages must be 0 to 2, the model's stages, got 3"):
        parameter_groups(small_model(), **RECIPE, frozen_stages=3)


def test_the_learning_rate_is_that_of_the_published_runs(golden: Callable[[str], Any]) -> None:
    for run in golden("golden_recipe")["lr_schedule"]:
        for iteration, expected in run["lr_at_iter"].items():
            lr = lr_at(
                int(iteration),
                base_lr=run["base_lr"] * run["lr_mult"],
                epochs=run["epochs"],
                iterations_per_epoch=run["iters_per_epoch"],
                warmup_epochs=run["warmup_epochs"],
                warmup_ratio=run["warmup_ratio"],
            )
            assert lr == pytest.approx(expected, rel=1e-13)


@given(
    step=st.integers(0, 400),
    accumulation=st.integers(1, 16),
    steps_per_epoch=st.integers(1, 40),
    warmup_epochs=st.sampled_from([0, 0.3, 1, 2.5]),
)
def test_accumulation_does_not_change_the_rate_of_a_step(
    step: int, accumulation: int, steps_per_epoch: int, warmup_epochs: float
) -> None:
    curve: dict[str, Any] = {"base_lr": 1e-3, "epochs": 10, "warmup_epochs": warmup_epochs}
    step %= 10 * steps_per_epoch
    cut = lr_at(step * accumulation, iterations_per_epoch=steps_per_epoch * accumulation, **curve)
    whole = lr_at(step, iterations_per_epoch=steps_per_epoch, **curve)
    assert cut == pytest.approx(whole, rel=1e-9)
    assert 0 < whole <= 1e-3


def test_without_warmup_the_first_rate_is_the_peak() -> None:
    assert lr_at(0, base_lr=0.5, epochs=3, iterations_per_epoch=7, warmup_epochs=0) == 0.5


def test_the_optimizer_keeps_each_groups_rate_and_decay() -> None:
    groups = parameter_groups(small_model(), **RECIPE)
    optimizer = build_optimizer(groups, "adamw", device=torch.device("cpu"))
    set_learning_rate(optimizer, 0.5)
    assert [(group["lr"], group["weight_decay"], group["betas"]) for group in optimizer.param_groups] == [
        (0.5 * group["lr_scale"], group["weight_decay"], (0.9, 0.999)) for group in groups
    ]
    assert [group["names"] for group in optimizer.state_dict()["param_groups"]] == [group["names"] for group in groups]


def test_an_update_moves_every_parameter_by_its_own_rate() -> None:
    torch.manual_seed(0)
    model = small_model()
    before = copy.deepcopy(dict(model.named_parameters()))
    groups = parameter_groups(model, **{**RECIPE, "weight_decay": 0.0})
    optimizer = build_optimizer(groups, "adamw", device=torch.device("cpu"))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for group in groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            moved = before[name] - parameter  # AdamW's first update is lr * sign(gradient)
            torch.testing.assert_close(moved, torch.full_like(moved, group["lr"]), rtol=1e-2, atol=1e-6)


def give_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_muon_updates_the_matrices_of_blocks_evenly_and_leaves_the_rest_to_adamw() -> None:
    torch.manual_seed(0)
    model, plain = small_model(), small_model()
    plain.load_state_dict(model.state_dict())
    start = copy.deepcopy(dict(model.named_parameters()))
    recipe = {**RECIPE, "weight_decay": 0.0, "backbone_lr_scale": 1.0}
    for one, name in ((model, "muon"), (plain, "adamw")):
        optimizer = build_optimizer(parameter_groups(one, **recipe), name, device=torch.device("cpu"))
        give_gradients(one, 0)
        optimizer.step()
    of_adamw = dict(plain.named_parameters())
    matrices = 0
    for name, parameter in model.named_parameters():
        change = (parameter - start[name]).detach()
        if name.startswith("stages.") and parameter.dim() == 2:
            matrices += 1
            values = torch.linalg.svdvals(change)
            assert values.max() < 2 * values.min(), name  # of a random gradient they differ by far more
            assert change.square().mean().sqrt().item() == pytest.approx(0.2 * RECIPE["lr"], rel=0.35), name
        else:
            assert torch.equal(parameter, of_adamw[name]), name
    assert matrices == sum(isinstance(module, nn.Linear) for module in model.stages.modules())


def test_where_all_stages_are_frozen_muon_leaves_the_classifier_to_adamw() -> None:
    updated = []
    for name in ("muon", "adamw"):
        torch.manual_seed(0)
        model = small_model()
        groups = parameter_groups(model, **RECIPE, frozen_stages=len(model.stages))
        optimizer = build_optimizer(groups, name, device=torch.device("cpu"))
        for seed in range(2):
            give_gradients(model, seed)
            optimizer.step()
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        updated.append(model.state_dict())
    assert all(torch.equal(value, updated[1][name]) for name, value in updated[0].items())


def test_where_bfloat16_is_slow_muon_makes_the_librarys_updates_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    changes: list[dict[str, torch.Tensor]] = []
    for is_fast in (True, False):
        monkeypatch.setattr(optim, "multiplies_bf16", lambda is_fast=is_fast: is_fast)
        torch.manual_seed(0)
        model = small_model()
        start = copy.deepcopy(dict(model.named_parameters()))
        optimizer = build_optimizer(parameter_groups(model, **RECIPE), "muon", device=torch.device("cpu"))
        for seed in range(3):
            give_gradients(model, seed)
            optimizer.step()
        changes.append({name: (value - start[name]).detach() for name, value in model.named_parameters()})
    library, own = changes
    for name, change in own.items():
        is_matrix = name.startswith("stages.") and change.dim() == 2
        distance = (change - library[name]).norm() / library[name].norm()
        assert (0 < distance < 0.02) if is_matrix else distance == 0, name  # bfloat16 has 8 bits


def test_on_a_gpu_muon_takes_matrices_of_one_shape_in_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    changes: list[dict[str, torch.Tensor]] = []
    batches: list[torch.Size] = []
    even = optim._even_singular_values
    monkeypatch.setattr(
        optim, "_even_singular_values", lambda m, *a, **k: [batches.append(m.shape), even(m, *a, **k)][1]
    )
    monkeypatch.setattr(optim, "multiplies_bf16", lambda: True)
    for kind in ("cpu", "cuda"):  # of the optimizer; the parameters stay on the CPU
        batches.clear()
        torch.manual_seed(0)
        model = small_model()
        start = copy.deepcopy(dict(model.named_parameters()))
        optimizer = build_optimizer(parameter_groups(model, **RECIPE), "muon", device=torch.device(kind))
        for seed in range(3):
            give_gradients(model, seed)
            next(model.stages.parameters()).grad = None
            optimizer.step()
        changes.append({name: (value - start[name]).detach() for name, value in model.named_parameters()})
    shapes = [parameter.shape for parameter in optimizer.param_groups[0]["params"]]
    assert sorted(shape[-2:] for shape in batches) == sorted(3 * list(set(shapes)))
    assert sum(shape[0] for shape in batches if len(shape) == 3) + sum(len(s) == 2 for s in batches) == 3 * len(shapes)
    for name, change in changes[1].items():
        distance = (change - changes[0][name]).norm()
        assert distance <= 0.02 * changes[0][name].norm(), name  # products are added up in another order


def test_muon_takes_the_librarys_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim, "multiplies_bf16", lambda: True)
    torch.manual_seed(0)
    model = small_model()
    recipe = {**RECIPE, "lr": 0.1, "backbone_lr_scale": 1.0, "weight_decay": 0.5}
    optimizer = build_optimizer(parameter_groups(model, **recipe), "muon", device=torch.device("cpu"))
    matrices = {n: p for n, p in model.named_parameters() if n.startswith("stages.") and p.dim() == 2}
    theirs = {name: nn.Parameter(matrix.detach().clone()) for name, matrix in matrices.items()}
    library = torch.optim.Muon(theirs.values(), lr=0.1, weight_decay=0.5, adjust_lr_fn="match_rms_adamw")
    for seed in range(2):
        give_gradients(model, seed)
        for name, matrix in matrices.items():
            theirs[name].grad = matrix.grad
        optimizer.step()
        library.step()
    for name, matrix in matrices.items():
        torch.testing.assert_close(matrix.detach(), theirs[name].detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 5, 9), (3, 9, 5)])
def test_singular_values_of_a_batch_are_those_of_each_matrix(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    options = {"coefficients": (3.4445, -4.775, 2.0315), "steps": 5, "eps": 1e-7, "dtype": torch.float32}
    together = optim._even_singular_values(matrices, **options)
    alone = torch.stack([optim._even_singular_values(matrix, **options) for matrix in matrices])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_muon_goes_on_from_its_saved_state_bit_by_bit() -> None:
    torch.manual_seed(0)
    unbroken = small_model()
    optimizer = build_optimizer(parameter_groups(unbroken, **RECIPE), "muon", device=torch.device("cpu"))
    for seed in range(2):
        give_gradients(unbroken, seed)
        optimizer.step()
    resumed = small_model()
    resumed.load_state_dict(unbroken.state_dict())
    second = build_optimizer(parameter_groups(resumed, **RECIPE), "muon", device=torch.device("cpu"))
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for model, its in ((unbroken, optimizer), (resumed, second)):
        set_learning_rate(its, 0.01)
        give_gradients(model, 7)
        its.step()
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert second.param_groups[0]["lr"] == 0.01 * second.param_groups[0]["lr_scale"]
