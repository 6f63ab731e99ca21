"""Losses as sums over clips, against the published token labelling and against PyTorch's means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dualformer_cli.engine.training import losses
from dualformer_cli.engine.training.losses import (
    classification_loss_sum,
    motion_loss_sum,
    soft_token_labels,
    token_label_loss_sum,
)
from dualformer_cli.model.motion import compress_motion, motion_at_tokens


@pytest.fixture
def published(pattern: Callable[..., np.ndarray]) -> dict[str, Tensor]:
    """The inputs of the golden values, as its note says: 4 clips of 6 tokens, 10 classes."""
    return {
        "logits": torch.from_numpy(3 * pattern("cls_score", (4, 10))),
        "token_logits": torch.from_numpy(3 * pattern("token_preds", (24, 10))).reshape(4, 6, 10),
        "teacher": torch.from_numpy(3 * pattern("teacher_preds", (24, 10))).reshape(4, 6, 10),
        "targets": torch.tensor([3, 0, 9, 5]),
    }


def token_labels(published: dict[str, Tensor], **options: bool) -> Tensor:
    values, indices = published["teacher"].topk(5)
    return soft_token_labels(values, indices, num_classes=10, **options)


def test_token_labelling_loss_is_the_published_one(published: dict[str, Tensor], golden: Callable[[str], Any]) -> None:
    expected = golden("golden_recipe")["token_label_loss"]
    labels = token_labels(published)
    assert labels[0, 0].tolist() == pytest.approx(expected["soft_label_row0"], rel=1e-12)
    losses = token_label_loss_sum(
        published["logits"], published["targets"], published["token_logits"], labels, gamma=0.5
    )
    assert losses.classification.item() / 4 == pytest.approx(expected["class_loss"], rel=1e-12)
    assert losses.tokens.item() / 4 == pytest.approx(expected["token_loss"], rel=1e-12)
    assert losses.total.item() / 4 == pytest.approx(expected["loss"], rel=1e-12)


def test_renormalised_labels_leave_nothing_to_the_other_classes(published: dict[str, Tensor]) -> None:
    values, indices = published["teacher"].topk(5)
    labels = token_labels(published, renormalise=True)
    assert (labels > 0).sum(dim=-1).unique().tolist() == [5]
    torch.testing.assert_close(labels.gather(-1, indices), values.softmax(-1))


def test_the_share_of_the_two_losses_is_gamma(published: dict[str, Tensor]) -> None:
    labels = token_labels(published)
    losses = token_label_loss_sum(
        published["logits"], published["targets"], published["token_logits"], labels, gamma=0.25
    )
    assert losses.total.item() == pytest.approx(0.25 * losses.classification.item() + 0.75 * losses.tokens.item())


def test_a_grid_of_tokens_gives_the_loss_of_its_list(published: dict[str, Tensor]) -> None:
    labels = token_labels(published)
    arguments = published["logits"], published["targets"]
    listed = token_label_loss_sum(*arguments, published["token_logits"], labels)
    grid = token_label_loss_sum(
        *arguments, published["token_logits"].reshape(4, 3, 2, 1, 10), labels.reshape(4, 3, 2, 1, 10)
    )
    torch.testing.assert_close(grid.total, listed.total)


@pytest.mark.parametrize("cuts", [(1, 3), (2, 2), (1, 1, 1, 1)])
def test_sums_over_parts_of_a_batch_add_up_to_the_whole(published: dict[str, Tensor], cuts: tuple[int, ...]) -> None:
    arguments = (published["logits"], published["targets"], published["token_logits"], token_labels(published))
    whole = token_label_loss_sum(*arguments)
    parts = [token_label_loss_sum(*part) for part in zip(*(a.split(cuts) for a in arguments), strict=True)]
    for name in whole._fields:
        torch.testing.assert_close(sum(getattr(part, name) for part in parts), getattr(whole, name))


def test_class_numbers_one_hot_targets_and_pytorch_agree() -> None:
    torch.manual_seed(0)
    logits, numbers = torch.randn(6, 4), torch.tensor([0, 3, 1, 1, 2, 0])
    by_number = classification_loss_sum(logits, numbers)
    torch.testing.assert_close(by_number, classification_loss_sum(logits, F.one_hot(numbers, 4)))
    torch.testing.assert_close(by_number / 6, F.cross_entropy(logits, numbers))


def test_mixed_targets_give_the_mixture_of_the_losses() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 4)
    a, b = F.one_hot(torch.tensor([0, 1, 2]), 4).float(), F.one_hot(torch.tensor([3, 3, 1]), 4).float()
    mixed = classification_loss_sum(logits, 0.3 * a + 0.7 * b)
    torch.testing.assert_close(
        mixed, 0.3 * classification_loss_sum(logits, a) + 0.7 * classification_loss_sum(logits, b)
    )


def test_several_labels_are_binary_cross_entropy_over_all_classes() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(5, 7), torch.rand(5, 7).round()
    loss = classification_loss_sum(logits, targets, multi_label=True)
    torch.testing.assert_close(loss / 5, F.binary_cross_entropy_with_logits(logits, targets))


@pytest.mark.parametrize("multi_label", [False, True])
def test_half_precision_under_autocast_computes_in_float32(multi_label: bool) -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 9).bfloat16(), torch.rand(4, 9).softmax(-1)
    labels = torch.rand(4, 2, 9).softmax(-1)
    with torch.autocast("cpu", torch.bfloat16):
        losses = token_label_loss_sum(logits, targets, logits[:, None].expand(4, 2, 9), labels, multi_label=multi_label)
    exact = token_label_loss_sum(
        logits.double(), targets.double(), logits.double()[:, None].expand(4, 2, 9), labels, multi_label=multi_label
    )
    for loss, expected in zip(losses, exact, strict=True):
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_gradients_agree_with_finite_differences(published: dict[str, Tensor]) -> None:
    labels = token_labels(published)
    logits, tokens = (published[name].clone().requires_grad_() for name in ("logits", "token_logits"))
    assert torch.autograd.gradcheck(
        lambda x, y: token_label_loss_sum(x, published["targets"], y, labels).total, (logits, tokens), fast_mode=True
    )


@pytest.mark.parametrize(
    ("targets", "multi_label", "message"),
    [
        (torch.zeros(3, dtype=torch.long), False, r"logits \(2, 5\) and targets \(3,\) do not fit"),
        (torch.zeros(2, 4), False, r"logits \(2, 5\) and targets \(2, 4\) do not fit"),
        (torch.zeros(2, dtype=torch.long), True, r"logits \(2, 5\) and targets \(2,\) do not fit"),
        (torch.zeros(2), False, r"logits \(2, 5\) and targets \(2,\) do not fit"),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets: Tensor, multi_label: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classification_loss_sum(torch.zeros(2, 5), targets, multi_label=multi_label)


def test_token_labels_of_another_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"token logits \(2, 6, 5\) and labels \(2, 4, 5\) do not fit"):
        token_label_loss_sum(
            torch.zeros(2, 5), torch.zeros(2, dtype=torch.long), torch.zeros(2, 6, 5), torch.zeros(2, 4, 5)
        )


def test_motion_that_is_told_rightly_costs_nothing_and_unknown_motion_does_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    motion = torch.eye(2, 3) + 0.1 * torch.randn(3, 7, 2, 3, generator=generator)
    said = [compress_motion(motion_at_tokens(motion, grid, (32, 32))) for grid in ((4, 4, 4), (2, 2, 2))]
    assert motion_loss_sum(said, motion, (32, 32)) == 0
    wrong = [said[0] + 1, said[1]]
    loss = motion_loss_sum(wrong, motion, (32, 32))
    assert loss == pytest.approx(3 * 0.75)  # smooth L1 of 1 with a bend at 0.5, for each of three clips
    unknown = motion.clone()
    unknown[1] = torch.nan
    assert motion_loss_sum(wrong, unknown, (32, 32)) == pytest.approx(2 * 0.75)
    found = [of_stage.clone().requires_grad_() for of_stage in wrong]
    motion_loss_sum(found, unknown, (32, 32)).backward()
    assert [clip.any().item() for clip in found[0].grad] == [True, False, True]
    unknown[:] = torch.nan
    assert motion_loss_sum(wrong, unknown, (32, 32)) == 0


def test_which_motion_is_known_is_found_before_the_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded: list[Tensor] = []
    monkeypatch.setattr(losses, "upload", lambda values, device: uploaded.append(values) or values)
    motion = torch.eye(2, 3).repeat(3, 7, 1, 1)
    motion[1] = torch.nan
    motion_loss_sum([torch.zeros(3, 2, 2, 2, 2)], motion, (32, 32))
    assert [values.shape for values in uploaded] == [(2, 7, 2, 3), (2,)]
    assert uploaded[1].tolist() == [0, 2]
