"""Mixing and erasing of batches."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualformer_cli.config.schema import TrainConfig
from dualformer_cli.data.clips.augment_batch import augment_batch, mix_batch, random_erasing
from dualformer_cli.data.clips.targets import one_hot


def batch(num_clips, height=12, width=16):
    """Clips of constant brightness i for clip i, channels last in memory as `normalize` makes them, and targets."""
    levels = torch.arange(num_clips, dtype=torch.float32)
    clips = levels.view(-1, 1, 1, 1, 1).expand(-1, 2, height, width, 3).contiguous().permute(0, 4, 1, 2, 3)
    return clips, one_hot([(i,) for i in range(num_clips)], num_clips)


@settings(max_examples=100, deadline=None)
@given(
    num_clips=st.integers(2, 6),
    alphas=st.sampled_from([(0.8, 0.0), (0.0, 1.0), (0.2, 0.7)]),
    seed=st.integers(0, 2**32 - 1),
)
def test_mixed_targets_sum_to_one_and_say_what_the_clip_shows(num_clips, alphas, seed):
    clips, targets = batch(num_clips)
    before = clips.clone()
    rng = np.random.default_rng(seed)
    got, mixed = mix_batch(clips, targets, mixup_alpha=alphas[0], cutmix_alpha=alphas[1], rng=rng)
    torch.testing.assert_close(mixed.sum(dim=1), torch.ones(num_clips))
    shown = got.mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(shown, mixed @ torch.arange(num_clips, dtype=torch.float32), rtol=1e-4, atol=1e-4)
    assert (mixed > 0).sum(dim=1).max() <= 2
    assert torch.equal(clips, before)
    assert got.stride() == clips.stride()
    assert torch.equal(got[:, :, 0], got[:, :, 1])  # all frames alike


def test_mixing_follows_from_the_generator_alone():
    clips, targets = batch(5)
    options = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}
    runs = [mix_batch(clips, targets, **options, rng=np.random.default_rng(seed)) for seed in [3, 3, 4]]
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][0], runs[2][0])


def test_both_kinds_of_mixing_take_turns():
    clips, targets = batch(3)
    rngs = [np.random.default_rng(seed) for seed in range(40)]
    mixed = [mix_batch(clips, targets, mixup_alpha=0.8, cutmix_alpha=1.0, rng=rng)[0] for rng in rngs]
    num_blended = sum(bool((clip != clip.round()).any()) for clip in mixed)
    assert 10 < num_blended < 30


def test_no_clip_of_two_is_mixed_with_itself():
    clips, targets = batch(2)
    for seed in range(20):
        _, mixed = mix_batch(clips, targets, mixup_alpha=1.0, cutmix_alpha=0.0, rng=np.random.default_rng(seed))
        assert (mixed > 0).all(), seed


def test_half_of_a_mixed_clip_is_the_others_on_average_and_most_are_nearly_one_of_them():
    clips, targets = batch(2, 2, 2)
    rng = np.random.default_rng(0)
    mixes = [mix_batch(clips, targets, mixup_alpha=0.2, cutmix_alpha=0.0, rng=rng)[1] for _ in range(400)]
    shares = torch.stack(mixes)[:, 0, 1]
    assert abs(shares.mean() - 0.5) < 0.08
    assert abs(shares.var() - 1 / (4 * (2 * 0.2 + 1))) < 0.03  # of Beta(a, a)


def test_a_box_of_cutmix_has_the_share_that_was_drawn_and_the_frames_shape():
    clips, targets = batch(2)
    draws = SimpleNamespace(beta=lambda a, b: 0.25, integers=lambda low, high=None: 1 if high else low // 2)
    mixed, shares = mix_batch(clips, targets, mixup_alpha=0.0, cutmix_alpha=1.0, rng=draws)
    expected = torch.zeros(12, 16)
    expected[3:9, 4:12] = 1
    assert torch.equal(mixed[0, 0, 0], expected)
    assert shares[0].tolist() == [0.75, 0.25]


def test_nothing_is_mixed_when_off_or_alone():
    clips, targets = batch(3)
    rng = np.random.default_rng(0)
    off = mix_batch(clips, targets, mixup_alpha=0.0, cutmix_alpha=0.0, rng=rng)
    assert off[0] is clips
    assert off[1] is targets
    alone = mix_batch(clips[:1], targets[:1], mixup_alpha=1.0, cutmix_alpha=1.0, rng=rng)
    assert torch.equal(alone[0], clips[:1])
    assert torch.equal(alone[1], targets[:1])
    nobody = mix_batch(clips[:0], targets[:0], mixup_alpha=1.0, cutmix_alpha=1.0, rng=rng)
    assert nobody[0].shape[0] == 0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_an_erased_box_is_the_same_in_all_frames_and_within_its_share(seed):
    clips = batch(3, 30, 40)[0] + 1
    got = random_erasing(clips, 1.0, np.random.default_rng(seed))
    assert torch.equal(got, random_erasing(clips, 1.0, np.random.default_rng(seed)))
    assert got.stride() == clips.stride()
    assert (clips > 0).all()
    for clip, before in zip(got, clips, strict=True):
        erased = clip == 0
        assert torch.equal(erased, erased[:1, :1].expand_as(erased))
        assert torch.equal(clip[~erased], before[~erased])
        rows, columns = erased[0, 0].nonzero(as_tuple=True)
        sides = (int(np.ptp(rows.numpy())) + 1, int(np.ptp(columns.numpy())) + 1)
        assert len(rows) == sides[0] * sides[1]
        assert 0.02 * 0.8 < len(rows) / 1200 < 1 / 3 * 1.1


def test_erased_boxes_are_as_often_wide_as_tall_up_to_the_published_ratio():
    clips = batch(300, 80, 80)[0] + 1
    erased = (random_erasing(clips, 1.0, np.random.default_rng(0)) == 0)[:, 0, 0]
    ratios = erased.any(dim=1).sum(dim=1) / erased.any(dim=2).sum(dim=1)  # columns over rows
    assert 0.4 < (ratios > 1).double().mean() < 0.6
    assert 0.25 < ratios.min() < 0.35
    assert 2.9 < ratios.max() < 4


def test_clips_are_erased_with_the_probability_given():
    clips = batch(200)[0] + 1
    assert random_erasing(clips, 0.0, np.random.default_rng(0)) is clips
    erased = (random_erasing(clips, 0.25, np.random.default_rng(0)) == 0).flatten(1).any(dim=1)
    assert 30 < int(erased.sum()) < 70


def test_a_batch_is_erased_and_then_mixed_as_the_recipe_says():
    clips, targets = batch(4)
    train = TrainConfig(random_erasing=1.0, mixup_alpha=0.8)
    rng = np.random.default_rng(3)
    erased = random_erasing(clips, 1.0, rng)
    expected = mix_batch(erased, targets, mixup_alpha=0.8, cutmix_alpha=0.0, rng=rng)
    found = augment_batch(clips, targets, train, np.random.default_rng(3))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert not torch.equal(found[0], clips)
    plain = augment_batch(clips, targets, TrainConfig(), np.random.default_rng(3))
    assert plain[0] is clips
    assert plain[1] is targets
    cut = augment_batch(clips, targets, TrainConfig(cutmix_alpha=1.0), np.random.default_rng(3))
    assert torch.equal(
        cut[0], mix_batch(clips, targets, mixup_alpha=0, cutmix_alpha=1, rng=np.random.default_rng(3))[0]
    )
