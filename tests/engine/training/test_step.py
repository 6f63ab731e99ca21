"""One step of training: what the numbers of a batch become on their way to the gradients. No video is read here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dualformer_cli.config.load import load_config
from dualformer_cli.data.clips.loader import Batch
from dualformer_cli.engine.parallel.ranks import Ranks
from dualformer_cli.engine.training import step as step_module
from dualformer_cli.engine.training.loop import Trainer
from dualformer_cli.errors import DualFormerError
from dualformer_cli.model.dualformer import DualFormer

Make = Callable[..., Trainer]
PLAIN = ("train.backbone_lr_scale=0.1", "train.weight_decay=0", "train.label_smoothing=0")


@pytest.fixture
def make_trainer(toy_preset: Path, tmp_path: Path, one_thread: None) -> Make:
    """The function make_trainer(*overrides, labels=[...], ranks=(0, 1), ...) -> a Trainer over files that do not exist.

    The first weights of the classifier are large enough for logits that differ.
    """

    def make(
        *overrides: str, labels: Any = (0, 1, 2, 3, 0, 1, 2, 3), ranks: tuple[int, int] = (0, 1), **more: Any
    ) -> Any:
        rows = "".join(f"{number}.mp4,{label}\n" for number, label in enumerate(labels))
        (tmp_path / "list.csv").write_text("path,label\n" + rows)
        (tmp_path / "classes.txt").write_text("dark\nred\ngreen\nblue\n")
        flags = {"data.train_list": str(tmp_path / "list.csv")}
        resolved = load_config(str(toy_preset), overrides=[*PLAIN, *overrides], flags=flags, environ={})
        rank, world_size = ranks
        place = Ranks(rank=rank, local_rank=rank, world_size=world_size, device=torch.device("cpu"))
        trainer = Trainer(resolved, place, output=tmp_path / "run", **more)
        with torch.no_grad():
            trainer.state.model.classifier.weight.mul_(30)
        return trainer

    return make


def batch_of(*samples: int, flipped: bool = False, seed: int = 0, motion: Any = None) -> Batch:
    """Random clips of these videos of the list."""
    clips = np.random.default_rng(seed).integers(0, 256, (len(samples), 8, 64, 64, 3), dtype=np.uint8)
    marks = np.full(len(samples), flipped)
    return Batch(clips, samples, flipped=marks, unreadable=(), read_seconds=0.0, motion=motion)


def normalised(batch: Batch) -> Tensor:
    """The clips as the model takes them, with ImageNet's mean and deviation written out."""
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    values = (batch.clips.astype(np.float64) - mean) / std
    return torch.from_numpy(values.transpose(0, 4, 1, 2, 3).astype(np.float32))


def logits_of(model: DualFormer, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model.train()(normalised(batch)).double()


def watch(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Collect what every pass gives the model, what comes out, and its targets."""
    seen: list[Any] = []
    forward, loss = trainer.stepper.forward, step_module.classification_loss_sum
    monkeypatch.setattr(trainer.stepper, "forward", lambda clips: seen.append(clips.clone()) or forward(clips))

    def keep(logits: Tensor, targets: Tensor, **options: Any) -> Tensor:
        seen[-1] = (seen[-1], logits.detach(), targets.clone())
        return loss(logits, targets, **options)

    monkeypatch.setattr(step_module, "classification_loss_sum", keep)
    return seen


@pytest.mark.parametrize("override", ["model.dropout=0.5", "train.random_erasing=1.0"])
def test_what_is_random_differs_between_steps_passes_ranks_and_seeds_and_comes_again(
    make_trainer: Make, override: str
) -> None:
    trainer, batch = make_trainer(override), batch_of(0, 1)
    trainer.state.model.train()

    def loss(*, step: int = 0, number: int = 0, rank: int = 0, seed: int = 42) -> float:
        trainer.state.step, trainer.stepper.ranks = step, replace(trainer.ranks, rank=rank)
        trainer.stepper.seed = seed
        return float(trainer.stepper._forward_backward(batch, number, 2)[0])

    found = [loss(), loss(step=1), loss(number=1), loss(rank=1), loss(seed=7), loss(step=1, number=1)]
    assert len(set(found)) == len(found)
    assert loss(step=1) == found[1]


def test_a_gradient_is_that_of_the_mean_loss_over_the_clips_of_all_passes(make_trainer: Make) -> None:
    trainer = make_trainer("train.batch_norm=frozen")
    batches = [batch_of(0, 1, 2, seed=1), batch_of(3, 3, seed=2)]
    slopes = []
    for batch, labels in zip(batches, ([0, 1, 2], [3, 3]), strict=True):
        slopes.append(logits_of(trainer.state.model, batch).softmax(-1) - torch.eye(4, dtype=torch.float64)[labels])
    _, count = trainer.stepper.step(batches, 0.0)
    assert count == 5
    expected = torch.cat(slopes).sum(dim=0) / 5
    torch.testing.assert_close(trainer.state.model.classifier.bias.grad.double(), expected, rtol=1e-4, atol=1e-5)
    trainer.stepper.step(batches, 0.0)
    torch.testing.assert_close(trainer.state.model.classifier.bias.grad.double(), expected, rtol=1e-4, atol=1e-5)


def test_the_loss_that_is_reported_is_the_mean_over_clips(make_trainer: Make) -> None:
    trainer, batch = make_trainer(), batch_of(0, 1, 2)
    logits = logits_of(trainer.state.model, batch)
    expected = -logits.log_softmax(-1)[[0, 1, 2], [0, 1, 2]].mean()
    losses, _ = trainer.stepper.step([batch], 0.0)
    assert losses == {"loss": pytest.approx(float(expected), rel=1e-4)}


def test_gradients_clips_and_losses_of_other_ranks_count(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another rank with the same clips: every sum is twice this rank's, and a mean is the same."""

    trainer, batch = make_trainer(), batch_of(0, 1, 2)

    def twice(num_ranks: Tensor) -> None:
        for parameter in trainer.state.model.parameters():
            if parameter.grad is not None:
                parameter.grad *= 2

    logits = logits_of(trainer.state.model, batch)
    monkeypatch.setattr(step_module, "sum_over_ranks", lambda values: values * 2)
    monkeypatch.setattr(trainer.stepper.gradients, "finish", twice)
    losses, count = trainer.stepper.step([batch], 0.0)
    assert count == 6
    assert losses["loss"] == pytest.approx(float(-logits.log_softmax(-1).diagonal().mean()), rel=1e-4)
    slope = (logits.softmax(-1) - torch.eye(4, dtype=torch.float64)[[0, 1, 2]]).mean(dim=0)
    torch.testing.assert_close(trainer.state.model.classifier.bias.grad.double(), slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("batch_norm", "expected"), [("per_rank", ["pass", "follow", "pass"]), ("synchronized", None)])
def test_gradients_are_sent_on_in_the_last_pass_that_has_clips(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch, batch_norm: str, expected: list[str] | None
) -> None:
    """Not between the exchanges of a synchronized BatchNorm, which a rank without clips may do in another order."""
    trainer, seen = make_trainer(f"train.batch_norm={batch_norm}"), []
    forward = trainer.stepper.forward
    monkeypatch.setattr(trainer.stepper, "forward", lambda clips: seen.append("pass") or forward(clips))
    monkeypatch.setattr(trainer.stepper.gradients, "follow", lambda: seen.append("follow"))
    trainer.stepper.step([batch_of(0), batch_of(1), batch_of()], 0.0)
    assert seen == (expected or ["pass"] * 3)


def test_several_labels_have_the_loss_of_a_yes_or_no_for_each_class(make_trainer: Make) -> None:
    trainer, batch = make_trainer("data.multi_label=true", labels=["0;2", "1", "1;2;3"]), batch_of(0, 1, 2)
    truth = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [0, 1, 1, 1]], dtype=torch.float64)
    probs = logits_of(trainer.state.model, batch).sigmoid()
    losses, _ = trainer.stepper.step([batch], 0.0)
    expected = -(truth * probs.log() + (1 - truth) * (1 - probs).log()).mean()
    assert losses["loss"] == pytest.approx(float(expected), rel=1e-4)
    slope = (probs - truth).sum(dim=0) / (3 * 4)
    torch.testing.assert_close(trainer.state.model.classifier.bias.grad.double(), slope, rtol=1e-4, atol=1e-5)


def test_targets_are_smoothed_and_exchanged_with_the_mirror(make_trainer: Make) -> None:
    trainer = make_trainer("train.label_smoothing=0.2")
    trainer.stepper.listed = replace(trainer.lists.training, flip_pairs=((1, 2),))
    low, high = 0.05, 0.85
    expected = [[high, low, low, low], [low, high, low, low], [low, low, high, low], [low, low, low, high]]
    torch.testing.assert_close(trainer.stepper._targets(batch_of(0, 1, 2, 3)), torch.tensor(expected))
    mirrored = [expected[0], expected[2], expected[1], expected[3]]
    torch.testing.assert_close(trainer.stepper._targets(batch_of(0, 1, 2, 3, flipped=True)), torch.tensor(mirrored))


def test_rendered_clips_without_motion_are_equally_likely_of_every_class(make_trainer: Make) -> None:
    trainer = make_trainer()
    trainer.stepper.listed = replace(trainer.lists.training, labels=[(2,), ()])
    targets = trainer.stepper._targets(batch_of(0, 1, motion=np.zeros((2, 7, 2, 3), np.float32)))
    assert targets.tolist() == [[0, 0, 1, 0], [0.25, 0.25, 0.25, 0.25]]


def test_the_motion_loss_counts_by_its_weight(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer("train.motion_weight=3")
    monkeypatch.setattr(step_module, "classification_loss_sum", lambda *_, **__: torch.tensor(5.0))
    monkeypatch.setattr(
        step_module, "motion_loss_sum", lambda said, motion, size: torch.tensor(float(size == (64, 64)))
    )
    batch, outputs = batch_of(0, motion=np.zeros((1, 7, 2, 3), np.float32)), (torch.zeros(1, 4), [])
    found = trainer.stepper._losses(batch, outputs, torch.zeros(1, 4), None, has_motion=True)
    assert found.tolist() == [5 + 3 * 1]


def test_mixup_blends_clips_and_targets_by_one_share(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, batch = make_trainer("train.mixup_alpha=1"), batch_of(0, 1)
    seen = watch(trainer, monkeypatch)
    trainer.stepper._forward_backward(batch, 0, 2)
    ((mixed, _, targets),) = seen
    one, other = normalised(batch)
    share = (mixed[0] - one) / (other - one)
    share = share[(other - one).abs() > 0.5]
    assert 0.01 < share.mean() < 0.99
    assert share.std() < 1e-3
    torch.testing.assert_close(
        targets[0], torch.stack([1 - share.mean(), share.mean(), *torch.zeros(2)]), atol=1e-3, rtol=0
    )


def test_cutmix_gives_a_box_of_the_other_clip_and_its_share_of_the_target(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, batch = make_trainer("train.cutmix_alpha=1"), batch_of(0, 1)
    seen = watch(trainer, monkeypatch)
    for trainer.state.step in range(4):
        trainer.stepper._forward_backward(batch, 0, 2)
    one, other = normalised(batch)
    shares = []
    for mixed, _, targets in seen:
        is_other = ((mixed[0] - other).abs() < 1e-4).all(dim=0)
        is_own = ((mixed[0] - one).abs() < 1e-4).all(dim=0)
        assert (is_other | is_own).all()
        shares.append(float(is_other.double().mean()))
        assert targets[0].tolist() == pytest.approx([1 - shares[-1], shares[-1], 0, 0], abs=1e-3)
    assert max(shares) > 0.05


def test_erased_boxes_are_0_in_all_frames(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer("train.random_erasing=1")
    seen = watch(trainer, monkeypatch)
    trainer.stepper._forward_backward(batch_of(0, 1, 2), 0, 3)
    for clip in seen[0][0]:
        erased = (clip == 0).all(dim=0)
        assert 0.01 < erased.double().mean() < 0.4
        assert (erased == erased[0]).all()


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_the_forward_pass_is_in_the_precision_that_was_asked_for(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch, precision: str, dtype: torch.dtype
) -> None:
    trainer = make_trainer(f"runtime.precision={precision}")
    assert trainer.state.scaler.is_enabled() is (precision == "fp16")
    seen = watch(trainer, monkeypatch)
    trainer.stepper._forward_backward(batch_of(0, 1), 0, 2)
    assert seen[0][1].dtype == dtype


def test_an_update_moves_weights_by_the_rate_of_the_step(make_trainer: Make) -> None:
    trainer = make_trainer()
    before = {name: value.detach().clone() for name, value in trainer.state.model.named_parameters()}
    trainer.stepper.step([batch_of(0, 1, 2, 3)], 0.01)
    after = dict(trainer.state.model.named_parameters())
    moved = {name: (after[name] - before[name]).abs().median().item() for name in before}
    assert moved["classifier.weight"] == pytest.approx(0.01, rel=0.01)  # AdamW's first update is lr * sign(gradient)
    assert moved["stages.3.blocks.1.mlp.fc2.weight"] == pytest.approx(0.001, rel=0.05)


def norm_of(trainer: Any) -> float:
    return float(torch.stack([p.grad.norm() for p in trainer.state.model.parameters() if p.grad is not None]).norm())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_gradients_are_clipped_at_their_own_norm(make_trainer: Make, precision: str) -> None:
    def norm(*overrides: str) -> float:
        trainer = make_trainer(f"runtime.precision={precision}", *overrides)
        if precision == "fp16":
            trainer.state.scaler.scale(torch.ones(1))
            trainer.state.scaler.update(16.0)  # the first scale of a run is too large for these gradients
        trainer.stepper.step([batch_of(0, 1)], 0.0)
        return norm_of(trainer)

    whole = norm()
    assert whole > 1
    assert norm("train.clip_grad_norm=0.01") == pytest.approx(0.01, rel=0.01)
    assert norm(f"train.clip_grad_norm={whole / 2}") == pytest.approx(whole / 2, rel=0.01)
    assert norm(f"train.clip_grad_norm={whole * 2}") == pytest.approx(whole, rel=0.01)


def test_the_rate_warms_up_and_falls_by_the_epoch(make_trainer: Make) -> None:
    trainer = make_trainer("train.epochs=4", "train.warmup_epochs=1", "train.batch_size=4", "train.global_batch_size=4")
    assert (trainer.batches.steps_per_epoch, trainer.recipe.lr) == (2, 0.003)
    rates = []
    for trainer.state.step in range(8):
        rates.append(trainer._learning_rate())
    cosine = [(1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]
    expected = [0.1, 0.55, *(value for value in cosine[1:] for _ in range(2))]  # warm-up from a tenth, 2 steps
    assert rates == pytest.approx([0.003 * value for value in expected], rel=1e-9)


def test_a_batch_that_cannot_be_kept_has_its_share_of_the_rate(make_trainer: Make) -> None:
    trainer = make_trainer("train.warmup_epochs=0", ranks=(1, 3))  # 8 clips on 3 ranks become 9
    assert trainer._learning_rate() == pytest.approx(0.003 * 9 / 8)
    assert trainer.state.optimizer.param_groups[-1]["lr"] == pytest.approx(0.003 * 9 / 8)


def give_token_labels(trainer: Any, labels: Tensor) -> None:
    """Have a labeller give these to every batch."""
    trainer.stepper.labeller = SimpleNamespace(labels=lambda batch: labels, sentence="", fingerprint="")
    trainer.stepper.forward = trainer.state.model.forward_both_heads


def test_unreadable_videos_of_all_steps_of_an_epoch_add_up(make_trainer: Make) -> None:
    trainer = make_trainer("train.max_unreadable=0.25")  # of 8 videos
    missing = replace(batch_of(), unreadable=(("1.mp4", "it is gone"),))
    trainer.stepper.step([missing], 0.1)
    trainer.stepper.step([missing], 0.1)
    with pytest.raises(DualFormerError, match=r"3 of the 8 training videos could not be read in epoch 1"):
        trainer.stepper.step([missing], 0.1)


def test_the_token_loss_reaches_the_backbone(make_trainer: Make) -> None:
    trainer = make_trainer("model.token_head=true", "train.token_gamma=0")
    give_token_labels(trainer, torch.from_numpy(np.random.default_rng(3).random((2, 4, 2, 2, 4), np.float32)))
    trainer.stepper.step([batch_of(0, 1)], 0.0)
    grads = {name: p.grad for name, p in trainer.state.model.named_parameters() if p.grad is not None}
    assert grads["token_head.6.weight"].norm() > 0
    assert grads["stages.0.patch_embed.proj.weight"].norm() > 0
    assert grads["classifier.weight"].norm() == 0


@pytest.mark.parametrize("is_multi", [False, True])
def test_the_loss_with_token_labels_is_what_its_formula_says(make_trainer: Make, is_multi: bool) -> None:
    labels = torch.from_numpy(np.random.default_rng(3).random((2, 4, 2, 2, 4), np.float32)).softmax(-1)
    rows = ["0;1", "1;2"] if is_multi else [0, 1]
    overrides = ["train.token_gamma=0.25", f"data.multi_label={str(is_multi).lower()}"]
    trainer, batch = make_trainer("model.token_head=true", *overrides, labels=rows), batch_of(0, 1)
    give_token_labels(trainer, labels)
    with torch.no_grad():
        logits, of_tokens = trainer.state.model.train().forward_both_heads(normalised(batch))
    if is_multi:
        truth = torch.tensor([[1.0, 1, 0, 0], [0, 1, 1, 0]])
        classification = F.binary_cross_entropy(logits.sigmoid(), truth).item()
    else:
        classification = -logits.log_softmax(-1).diagonal().mean().item()
    tokens = -(labels * of_tokens.log_softmax(-1)).sum(-1).mean().item()
    losses, _ = trainer.stepper.step([batch], 0.0)
    assert losses["classification_loss"] == pytest.approx(classification, rel=1e-4)
    assert losses["token_loss"] == pytest.approx(tokens, rel=1e-4)
    assert losses["loss"] == pytest.approx(0.25 * classification + 0.75 * tokens, rel=1e-4)


@pytest.mark.parametrize(("mode", "is_computed"), [("per_rank", False), ("frozen", False), ("synchronized", True)])
def test_a_pass_without_clips_is_computed_only_where_the_others_need_its_statistics(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch, mode: str, is_computed: bool
) -> None:
    trainer = make_trainer(f"train.batch_norm={mode}")
    seen: list[int] = []
    empty = torch.zeros(0, 4, requires_grad=True)
    monkeypatch.setattr(trainer.stepper, "forward", lambda clips: seen.append(len(clips)) or empty)
    losses = trainer.stepper._forward_backward(batch_of(), 0, 5)
    assert losses.sum() == 0
    assert seen == ([0] if is_computed else [])


def test_a_loss_that_is_not_a_number_on_another_rank_stops_this_one_too(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer()
    before = trainer.state.model.classifier.weight.clone()

    def beside_a_bad_one(own: Any) -> Any:
        """Their first exchange is of two counts, their second has the loss and after it whether it is bad."""
        return own + torch.eye(len(own), dtype=own.dtype)[1] if isinstance(own, Tensor) else own

    monkeypatch.setattr(step_module, "sum_over_ranks", beside_a_bad_one)
    monkeypatch.setattr(step_module, "gather_objects", lambda own: [own, (True, ["theirs.mp4"])])
    with pytest.raises(DualFormerError, match=r"the loss is not a number at step 0 on rank 1, with 'theirs.mp4'"):
        trainer.stepper.step([batch_of(0, 1)], 0.01)
    assert torch.equal(trainer.state.model.classifier.weight, before)


class Casts(TorchDispatchMode):
    """Count the casts of each parameter."""

    def __init__(self, model: DualFormer) -> None:
        super().__init__()
        self.names = {parameter.data_ptr(): name for name, parameter in model.named_parameters()}
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten._to_copy.default and args[0].data_ptr() in self.names:
            self.counts[self.names[args[0].data_ptr()]] += 1
        return function(*args, **(kwargs or {}))


@pytest.fixture
def backward_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[TorchDispatchMode]]:
    """Backward passes run on a thread of their own, as autograd's for a GPU, in these modes."""
    modes: list[TorchDispatchMode] = []
    backward = Tensor.backward

    def in_modes(loss: Tensor) -> None:
        with ExitStack() as stack:
            for mode in modes:
                stack.enter_context(mode)
            backward(loss)

    with ThreadPoolExecutor(1) as thread:
        monkeypatch.setattr(Tensor, "backward", lambda loss: thread.submit(in_modes, loss).result())
        yield modes


def test_weights_are_cast_once_a_step_where_blocks_are_recomputed_on_another_thread(
    make_trainer: Make, backward_thread: list[TorchDispatchMode]
) -> None:
    trainer = make_trainer("runtime.precision=bf16", "model.gradient_checkpointing=true")
    casts = Casts(trainer.state.model)
    backward_thread.append(casts)
    for step in (1, 2):  # casts of the first would be those of weights from before its update
        with casts:
            trainer.stepper.step([batch_of(0, 1), batch_of(2, 3, seed=1)], 0.01)
        assert casts.counts["stages.0.blocks.0.mlp.fc1.weight"] == step
        assert set(casts.counts.values()) == {step}


@pytest.mark.parametrize("checkpointing", ["true", "false"])
def test_weights_are_cast_once_a_step_and_get_the_gradients_of_all_passes(
    make_trainer: Make, checkpointing: str
) -> None:
    overrides = ("runtime.precision=bf16", f"model.gradient_checkpointing={checkpointing}", "model.dropout=0")
    batches = [batch_of(0, 1), batch_of(2, 3, seed=1)]
    alone = []
    for batch in batches:
        trainer = make_trainer(*overrides)
        trainer.stepper.step([batch], 0.0)
        alone.append({name: x.grad for name, x in trainer.state.model.named_parameters() if x.grad is not None})
    trainer = make_trainer(*overrides)
    with Casts(trainer.state.model) as casts:
        trainer.stepper.step(batches, 0.0)
    assert casts.counts["stages.0.blocks.0.mlp.fc1.weight"] == 1
    assert set(casts.counts.values()) == {1}
    for name, parameter in trainer.state.model.named_parameters():
        if name in alone[0]:  # of two clips of four in each pass, and halves are exact
            assert torch.equal(parameter.grad, (alone[0][name] + alone[1][name]) / 2), name
