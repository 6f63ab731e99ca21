"""How the global batch is cut on the processes of a run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualformer_cli.config.schema import TrainConfig
from dualformer_cli.engine.training.global_batch import large_step, plan_recipe
from dualformer_cli.errors import ConfigError


@pytest.mark.parametrize(("world_size", "passes"), [(1, 8), (2, 4), (4, 2), (8, 1), (16, 1)])
def test_the_global_batch_is_kept_by_accumulation(world_size: int, passes: int) -> None:
    recipe = plan_recipe(TrainConfig(), world_size)
    assert (recipe.global_batch_size, recipe.lr, recipe.accumulation) == (64, 1e-3, passes)
    assert recipe.batch_size * recipe.accumulation * world_size == 64
    processes = "1 process" if world_size == 1 else f"{world_size} processes"
    assert recipe.sentence.startswith(f"64 clips per step (kept): {processes} x {recipe.batch_size} clips x {passes}")


def test_three_processes_scale_the_learning_rate_and_say_so() -> None:
    recipe = plan_recipe(TrainConfig(), 3)
    assert recipe.batch_size * recipe.accumulation * 3 == recipe.global_batch_size == 63
    assert recipe.lr == pytest.approx(1e-3 * 63 / 64)
    assert "63 clips per step (in place of 64, so lr is 0.000984375)" in recipe.sentence


@given(st.integers(1, 256), st.integers(2, 32))
def test_a_batch_that_cannot_be_shared_evenly_is_kept_as_nearly_as_one_clip_per_pass(wanted: int, world: int) -> None:
    recipe = plan_recipe(TrainConfig(batch_size=8, global_batch_size=wanted), world)
    assert abs(recipe.global_batch_size - wanted) <= max(recipe.accumulation * world / 2, world - wanted)


@given(st.integers(1, 64), st.integers(1, 256), st.integers(1, 32), st.floats(1e-6, 1))
def test_every_plan_accounts_for_its_clips_and_its_lr(batch: int, wanted: int, world_size: int, lr: float) -> None:
    recipe = plan_recipe(TrainConfig(batch_size=batch, global_batch_size=wanted, lr=lr), world_size)
    assert recipe.batch_size * recipe.accumulation * world_size == recipe.global_batch_size
    assert recipe.batch_size <= batch
    assert recipe.lr == pytest.approx(lr * recipe.global_batch_size / wanted)
    assert (recipe.global_batch_size == wanted) == ("(kept)" in recipe.sentence)


def test_repeats_must_divide_the_batch() -> None:
    with pytest.raises(ConfigError, match=r"train.repeats 3 must divide the batch of a process, 1 clip"):
        plan_recipe(TrainConfig(repeats=3, global_batch_size=24, batch_size=8), 3)
    assert plan_recipe(TrainConfig(repeats=2), 8).batch_size % 2 == 0


@pytest.mark.parametrize(("clips", "is_said"), [(17, True), (63, True), (64, False), (1000, False)])
def test_a_step_that_takes_more_than_an_epoch_has_is_said(clips: int, is_said: bool) -> None:
    recipe = plan_recipe(TrainConfig(global_batch_size=64, batch_size=8), 1)
    said = large_step(recipe, clips)
    assert len(said) == is_said
    assert all(f"an epoch has {clips} clips, less than a step takes" in sentence for sentence in said)
