"""One step of training: forward, loss, backward for each of its batches, then clip and update.

Data parallelism is written out: every rank adds up the gradients of its clips, the sums are added over the ranks once
a step, and the loss is divided by the number of clips that all ranks really had. So an unreadable video, a short last
batch and another number of ranks change nothing but rounding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualformer_cli.config.schema import DataConfig, RuntimeConfig, TrainConfig
from dualformer_cli.data.clips.augment_batch import augment_batch
from dualformer_cli.data.clips.loader import Batch
from dualformer_cli.data.clips.targets import one_hot, swap_flipped_labels
from dualformer_cli.data.clips.transforms import normalize
from dualformer_cli.data.lists.samples import LabelledList
from dualformer_cli.engine.parallel.devices import dtype_of
from dualformer_cli.engine.parallel.gradients import GradientSums
from dualformer_cli.engine.parallel.ranks import Ranks
from dualformer_cli.engine.parallel.reductions import gather_objects, sum_over_ranks
from dualformer_cli.engine.parallel.upload import upload
from dualformer_cli.engine.training.losses import classification_loss_sum, motion_loss_sum, token_label_loss_sum
from dualformer_cli.engine.training.optim import set_learning_rate
from dualformer_cli.engine.training.state import TrainingState
from dualformer_cli.engine.training.token_labels import TokenLabeller
from dualformer_cli.errors import DualFormerError
from dualformer_cli.model.weight_casts import kept_casts
from dualformer_cli.video.remote_videos import name_of

_LOGGER = logging.getLogger(__name__)

Losses = dict[str, float | None]
"""Means over the clips of a step, by their names; None without any clip."""


class StepRefusedError(DualFormerError):
    """Every rank refuses a step, and is in the state before it again."""


class Stepper:
    """Takes the steps of a run on this rank.

    Args:
        state: what a step changes.
        ranks: this process among the others.
        listed: the training list.
        labeller: gives tokens their labels, or None.
        precision: fp32, bf16 or fp16.
        data, train, runtime: sections of the configuration.
    """

    def __init__(
        self,
        state: TrainingState,
        ranks: Ranks,
        listed: LabelledList,
        labeller: TokenLabeller | None,
        *,
        precision: str,
        data: DataConfig,
        train: TrainConfig,
        runtime: RuntimeConfig,
    ) -> None:
        self.state, self.ranks, self.listed, self.labeller = state, ranks, listed, labeller
        self.precision, self.data, self.train, self.seed = precision, data, train, runtime.seed
        model = state.model
        self.forward: Callable[[Tensor], Any] = model if labeller is None else model.forward_both_heads
        self.forward_motion: Callable[[Tensor], Any] = model.forward_motion
        if runtime.compile:
            self.forward, self.forward_motion = torch.compile(self.forward), torch.compile(self.forward_motion)
        self.gradients = GradientSums(model.parameters())
        self.votes = torch.zeros(0)
        """What all ranks together have voted in the last step."""
        self._spent_clips: Tensor | None = None
        self._statistics = [buffer.clone() for buffer in model.buffers()]
        """Buffers as they were before the step in hand."""

    def step(
        self,
        batches: Sequence[Batch],
        lr: float,
        *,
        meanwhile: Callable[[], None] = lambda: None,
        vote: Callable[[], Tensor] = lambda: torch.zeros(0, dtype=torch.float64),
    ) -> tuple[Losses, int]:
        """Take one optimizer step, with two exchanges beside that of the gradients.

        Args:
            batches: one per forward pass.
            lr: of the parameter groups whose lr_scale is 1.
            meanwhile: called once all passes are under way, which a GPU computes by itself.
            vote: called after that; gives float64 numbers, whose sums over the ranks are `votes` then.

        Returns:
            The mean losses over all ranks, and the number of clips.

        Raises:
            StepRefusedError: if the loss or a gradient is not a number, or too many videos cannot be read.
        """
        state, optimizer = self.state, self.state.optimizer
        names = ("loss", "classification_loss", "token_loss") if self.labeller is not None else ("loss",)
        count, unreadable = map(
            int, sum_over_ranks(np.array([sum(len(b.clips) for b in batches), sum(len(b.unreadable) for b in batches)]))
        )
        self._count_unreadable(unreadable, batches)
        set_learning_rate(optimizer, lr)
        if count == 0:
            meanwhile()
            self.votes = sum_over_ranks(vote())
            return dict.fromkeys(names), 0
        optimizer.zero_grad(set_to_none=True)
        if self._statistics:
            torch._foreach_copy_(self._statistics, list(state.model.buffers()))
        losses = torch.zeros(len(names), dtype=torch.float64, device=self.ranks.device)
        last = max((number for number, batch in enumerate(batches) if len(batch.clips)), default=None)
        with kept_casts(self.ranks.device.type):
            for number, batch in enumerate(batches):
                if number == last and self.train.batch_norm != "synchronized":  # all ranks exchange in one order there
                    self.gradients.follow()
                losses += self._forward_backward(batch, number, count)
        self.gradients.send_rest()
        meanwhile()
        total = self._agree(losses.cpu(), vote(), batches)
        self._check_and_clip_gradients()
        state.scaler.step(optimizer)
        state.scaler.update()
        if state.average is not None:
            state.average.update(state.model)
        return dict(zip(names, (total / count).tolist(), strict=True)), count

    def _agree(self, own: Tensor, votes: Tensor, batches: Sequence[Batch]) -> Tensor:
        """Add up losses, votes and gradients over the ranks, and return the losses.

        Raises:
            StepRefusedError: where a rank has a loss that is not a number.
        """
        is_bad = not torch.isfinite(own).all().item()
        parts = [own, torch.tensor([is_bad], dtype=torch.float64), votes, self.gradients.present()]
        total, num_bad, self.votes, num_ranks = sum_over_ranks(torch.cat(parts)).split([len(part) for part in parts])
        self.gradients.finish(num_ranks)
        if num_bad.item():
            raise self._non_finite(is_bad, batches)
        return total

    def _forward_backward(self, batch: Batch, number: int, count: int) -> Tensor:
        """Add the gradients of one forward pass, as its share of `count` clips; return the sums of its losses.

        Nothing here waits for a GPU, so that it never waits for the next pass.
        """
        if not len(batch.clips) and self.train.batch_norm != "synchronized":
            return torch.zeros((), dtype=torch.float64)
        token_labels = None if self.labeller is None else self.labeller.labels(batch)
        data, device = self.data, self.ranks.device
        key = [self.seed, self.state.step, number, self.ranks.rank]
        rng = np.random.default_rng(key)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        clips = normalize(upload(batch.clips, device), data.mean, data.std, torch.float32, spent=self._spent_clips)
        if device.type == "cpu":
            self._spent_clips = clips  # by the next pass this one has gone backward
        targets = upload(self._targets(batch), device)
        clips, targets = augment_batch(clips, targets, self.train, rng)
        with torch.autocast(device.type, dtype_of(self.precision), enabled=self.precision != "fp32"):
            has_motion = batch.motion is not None and self.state.model.motion_heads is not None
            outputs = self.forward_motion(clips) if has_motion else self.forward(clips)
        losses = self._losses(batch, outputs, targets, token_labels, has_motion=has_motion)
        self.state.scaler.scale(losses[0] / count).backward()
        return losses.detach().double()

    def _losses(
        self, batch: Batch, outputs: Any, targets: Tensor, token_labels: Tensor | None, *, has_motion: bool
    ) -> Tensor:
        """Sums over clips: the loss, and where there are token labels its two parts."""
        data, train = self.data, self.train
        if token_labels is not None:
            logits, token_logits = outputs
            of_kinds = token_label_loss_sum(
                logits, targets, token_logits, token_labels, gamma=train.token_gamma, multi_label=data.multi_label
            )
            return torch.stack(of_kinds)
        if not has_motion:
            return classification_loss_sum(outputs, targets, multi_label=data.multi_label).unsqueeze(0)
        assert batch.motion is not None, "rendered clips know their motion"
        logits, motions = outputs
        of_motion = motion_loss_sum(motions, torch.from_numpy(batch.motion), (data.crop_size, data.crop_size))
        loss = classification_loss_sum(logits, targets, multi_label=data.multi_label)
        return (loss + train.motion_weight * of_motion).unsqueeze(0)

    def _targets(self, batch: Batch) -> Tensor:
        """Probabilities that the classifier is to give, shape (b, classes)."""
        labels = [self.listed.labels[sample] for sample in batch.samples]
        labels = swap_flipped_labels(labels, batch.flipped, self.listed.flip_pairs)
        num_classes = len(self.listed.class_names)
        targets = one_hot(labels, num_classes, self.train.label_smoothing)
        if batch.motion is not None:  # rendered clips without a motion are to be equally likely of every class
            targets[[not of_clip for of_clip in labels]] = 1 / num_classes
        return targets

    def _count_unreadable(self, unreadable: int, batches: Sequence[Batch]) -> None:
        """Say which videos are missing, and stop when they are too many."""
        if not unreadable:
            return
        own = [missing for batch in batches for missing in batch.unreadable]
        for path, reason in (missing for of_rank in gather_objects(own) for missing in of_rank):
            if self.ranks.is_main:
                _LOGGER.warning("left out: %r: %s", path, reason)
        state, listed = self.state, len(self.listed)
        total = state.unreadable + unreadable
        allowed = max(self.train.max_unreadable * listed, 1 if self.train.max_unreadable else 0)
        if total > allowed or total >= listed:
            limit = f"more than train.max_unreadable={self.train.max_unreadable:g} allows"
            raise StepRefusedError(
                f"{total} of the {listed} training videos could not be read in epoch {state.epoch + 1}, "
                f"{limit if total > allowed else 'which leaves nothing to train with'}; "
                f"see the warnings above, mend the list{', or raise it' if total > allowed else ''}"
            )
        state.unreadable = total

    def _non_finite(self, is_bad: bool, batches: Sequence[Batch]) -> StepRefusedError:
        """Return the error, on every rank, of a loss that is not a number; this one's, or another's."""
        files = sorted({name_of(self.listed.files[sample]) for batch in batches for sample in batch.samples})
        found = [(rank, names) for rank, (bad, names) in enumerate(gather_objects((is_bad, files))) if bad]
        rank, names = found[0]
        return self._back_before_the_step(
            f"the loss is not a number at step {self.state.step} on rank {rank}, with {', '.join(map(repr, names))}"
        )

    def _check_and_clip_gradients(self) -> None:
        """Stop before the update where a gradient is not a number, which would spoil every weight and moment.

        With fp16 such a step is usual while the loss scale is found, and left out.
        """
        state, limit = self.state, self.train.clip_grad_norm
        parameters = [each for each in state.model.parameters() if each.grad is not None]
        if limit is None and state.scaler.is_enabled():
            return
        state.scaler.unscale_(state.optimizer)
        norm = torch.nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])
        if not state.scaler.is_enabled() and not torch.isfinite(norm).item():
            raise self._back_before_the_step(
                f"the gradients are not numbers at step {state.step}: their norm is {norm}"
            )
        if limit is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)

    def _back_before_the_step(self, problem: str) -> StepRefusedError:
        """Undo what forward passes have changed, and return the error that says so."""
        for buffer, before in zip(self.state.model.buffers(), self._statistics, strict=True):
            buffer.copy_(before)
        return StepRefusedError(
            f"{problem}; the weights are those before this step; lower train.lr, set train.clip_grad_norm, or use "
            "--precision fp32"
        )
