"""Training losses as sums over clips, which add up over micro-batches and ranks before one division by their count.

All are computed in float32, or in float64 where the logits are, whatever autocast made of the layers before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from dualformer_cli.engine.parallel.devices import widened
from dualformer_cli.engine.parallel.upload import upload
from dualformer_cli.model.motion import compress_motion, motion_at_tokens


def classification_loss_sum(logits: Tensor, targets: Tensor, *, multi_label: bool = False) -> Tensor:
    """Cross-entropy, or binary cross-entropy averaged over classes, summed over clips.

    Args:
        logits: shape (b, classes).
        targets: class numbers, shape (b,), or a probability per class, shape (b, classes), from multi-hot labels,
            smoothing or mixing; `multi_label` takes the latter only.
        multi_label: each class is a yes or no of its own.

    Returns:
        A scalar.

    Raises:
        ValueError: if the shapes do not belong together.
    """
    has_numbers = targets.shape == logits.shape[:1] and not targets.is_floating_point()
    if logits.dim() != 2 or not (targets.shape == logits.shape or (has_numbers and not multi_label)):
        raise ValueError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} do not fit")
    logits = widened(logits)
    if has_numbers:
        return F.cross_entropy(logits, targets, reduction="sum")
    if multi_label:
        losses = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
        return losses.mean(dim=1).sum()
    return F.cross_entropy(logits, targets.to(logits.dtype), reduction="sum")


class TokenLabelLosses(NamedTuple):
    """Sums over clips: gamma * classification + (1 - gamma) * tokens, and the two."""

    total: Tensor
    classification: Tensor
    tokens: Tensor


def token_label_loss_sum(
    logits: Tensor,
    targets: Tensor,
    token_logits: Tensor,
    token_labels: Tensor,
    *,
    gamma: float = 0.5,
    multi_label: bool = False,
) -> TokenLabelLosses:
    """Loss of token labelling: the classifier against the clip's label, the token head against a teacher's.

    Args:
        logits, targets, multi_label: as in `classification_loss_sum`.
        token_logits: of the student's token head, shape (b, ..., classes), any token grid between.
        token_labels: probabilities of the teacher, the same shape; `soft_token_labels` makes them.
        gamma: share of the classification loss.

    Raises:
        ValueError: if the shapes do not belong together.
    """
    if token_logits.shape != token_labels.shape or token_logits.shape[0] != logits.shape[0] or token_logits.dim() < 3:
        raise ValueError(f"token logits {tuple(token_logits.shape)} and labels {tuple(token_labels.shape)} do not fit")
    classification = classification_loss_sum(logits, targets, multi_label=multi_label)
    token_logits = widened(token_logits)
    losses = -(token_labels.to(token_logits.dtype) * token_logits.log_softmax(dim=-1)).sum(dim=-1)
    tokens = losses.flatten(1).mean(dim=1).sum()
    return TokenLabelLosses(gamma * classification + (1 - gamma) * tokens, classification, tokens)


def soft_token_labels(values: Tensor, indices: Tensor, *, num_classes: int, renormalise: bool = False) -> Tensor:
    """A teacher's best logits per token, as `logits.topk(k)` gives them, to probabilities of all classes.

    The published runs set the logits of all other classes to 0, so that each keeps exp(0) of mass: with 400 classes
    that is most of it unless the best five logits are above 4.4 (5 e^4.4 is 407, the other 395 have 1 each).

    Args:
        values, indices: the best logits and their classes, shape (..., k).
        num_classes: of the teacher.
        renormalise: share the mass among the best k only, in place of the published rule.

    Returns:
        Shape (..., num_classes), float32 (float64 from float64).
    """
    values = widened(values)
    others = float("-inf") if renormalise else 0.0
    logits = values.new_full((*values.shape[:-1], num_classes), others)
    return logits.scatter(-1, indices, values).softmax(dim=-1)


def motion_loss_sum(found: Sequence[Tensor], motion: Tensor, size: tuple[int, int]) -> Tensor:
    """How wrong the motion heads are: a smooth L1 distance, averaged over tokens, summed over stages and clips.

    Args:
        found: compressed motion of each stage's tokens, shape (b, t, h, w, 2), as the motion heads give it.
        motion: true affine maps from frame to frame, shape (b, T - 1, 2, 3), in this computer's memory; clips without
            numbers do not count.
        size: (height, width) of the clips in pixels.

    Returns:
        A scalar.
    """
    known = motion.isfinite().flatten(1).all(dim=1).nonzero().flatten()  # before the upload: a GPU would be waited for
    device = found[0].device
    motion, known = upload(motion[known], device), upload(known, device)
    total = motion.new_zeros(())
    for of_stage in found:
        t, h, w = of_stage.shape[1:4]
        wanted = compress_motion(motion_at_tokens(motion, (t, h, w), size))
        losses = F.smooth_l1_loss(widened(of_stage).index_select(0, known), wanted, reduction="none", beta=0.5)
        total = total + losses.flatten(1).mean(dim=1).sum()
    return total
