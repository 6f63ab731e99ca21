"""Motion at tokens, and the start from which it is learnt."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dualformer_cli.model.dualformer import DualFormer
from dualformer_cli.model.motion import MotionVote, _ballots, _drifting_gratings, compress_motion, motion_at_tokens
from dualformer_cli.model.weights import load_weights


def small_model(**options: object) -> DualFormer:
    return DualFormer(
        input_size=(8, 32, 32),
        num_classes=10,
        embed_dims=(16, 24),
        depths=(2, 2),
        num_heads=(2, 2),
        patch_sizes=((4, 8, 8), (1, 2, 2)),
        window_size=(2, 2, 2),
        fine_grid=(2, 2, 2),
        coarse_grid=(2, 2, 2),
        **{"mlp_ratio": 4.0, "dropout": 0.5, "drop_path": 0.0, **options},  # type: ignore[arg-type]
    )


@given(st.floats(-20, 20), st.floats(-20, 20))
def test_content_that_slides_moves_alike_at_every_token(dx: float, dy: float) -> None:
    motion = torch.tensor([[[1.0, 0.0, dx], [0.0, 1.0, dy]]]).expand(2, 5, 2, 3)
    moved = motion_at_tokens(motion, (3, 3, 4), (48, 64))
    assert moved.shape == (2, 3, 3, 4, 2)
    np.testing.assert_allclose(moved, torch.tensor([dx, dy]).expand(moved.shape), atol=1e-4)


def test_content_that_grows_moves_away_from_the_middle() -> None:
    motion = torch.tensor([[[1.5, 0.0, 0.0], [0.0, 1.5, 0.0]]])[None]
    moved = motion_at_tokens(motion, (1, 2, 2), (32, 64))[0, 0]
    assert moved.tolist() == [[[-8.0, -4.0], [8.0, -4.0]], [[-8.0, 4.0], [8.0, 4.0]]]


def test_a_token_has_the_mean_motion_of_its_frames() -> None:
    steps = torch.tensor([1.0, -3.0, 5.0, 7.0, 8.0])
    motion = torch.eye(2, 3).repeat(1, 5, 1, 1)
    motion[0, :, 0, 2] = steps
    moved = motion_at_tokens(motion, (3, 1, 1), (16, 16))
    np.testing.assert_allclose(moved[0, :, 0, 0], [[-1.0, 0.0], [6.0, 0.0], [8.0, 0.0]], atol=1e-6)


def test_small_motion_keeps_its_sign_and_order_when_compressed() -> None:
    pixels = torch.linspace(-30, 30, 101)
    compressed = compress_motion(pixels)
    assert (compressed.diff() > 0).all()
    np.testing.assert_allclose(compressed, -compressed.flip(0), atol=1e-5)


def test_a_pixel_a_frame_is_four_steps_of_the_compressed_scale() -> None:
    """Both ends of asinh(4 x): 4 x near 0, and the logarithm of 8 x far out."""
    assert compress_motion(torch.tensor([0.01, 1.0, 100.0])).tolist() == pytest.approx(
        [0.03999, math.log(4 + math.sqrt(17)), math.log(800)], rel=1e-3
    )


def test_the_two_gratings_of_a_pair_have_one_colour() -> None:
    colours = _drifting_gratings(40, 3, 4, 8, 8).flatten(2).norm(dim=2).view(20, 2, 3)
    torch.testing.assert_close(colours[:, 0], colours[:, 1])


def test_the_fastest_gratings_do_not_seem_to_stand_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4 pixels a frame and 3/4 of a cycle a pixel, each frame would show 3 whole cycles more."""
    monkeypatch.setattr(torch, "rand", torch.ones)
    filters = _drifting_gratings(2, 1, 4, 4, 4)
    assert (filters[:, :, 1] - filters[:, :, 0]).norm() > 0.3


def test_gratings_at_the_start_have_a_norm_of_1_shared_by_three_colours() -> None:
    """Each colour's share is 1/3, give or take a half of it: a mean over 2,000 filters is within 0.03 of it."""
    torch.manual_seed(0)
    shares = _drifting_gratings(2000, 3, 4, 8, 8).flatten(2).norm(dim=2)
    assert shares.mean().item() == pytest.approx(1 / 3, abs=0.03)


def test_filters_of_a_pair_are_a_quarter_of_a_cycle_apart() -> None:
    torch.manual_seed(0)
    pairs = _drifting_gratings(400, 1, 4, 16, 16).flatten(1).view(200, 2, -1)
    likeness = (pairs[:, 0] * pairs[:, 1]).sum(1) / pairs.norm(dim=2).prod(1)
    assert likeness.abs().max() < 0.05  # of a cosine and a sine 0 but for the borders; of two cosines 1


def test_the_start_for_motion_sees_changes_and_no_brightness() -> None:
    model = small_model(start="motion")
    first = model.stages[0].patch_embed.proj  # type: ignore[union-attr]
    flat = first(torch.full((1, 3, 8, 32, 32), 2.5))
    assert flat.abs().max().item() < 1e-4
    assert first(torch.randn(1, 3, 8, 32, 32)).std().item() > 0.1
    linear = model.stages[0].blocks[0].mlp.fc1  # type: ignore[union-attr]
    assert linear.weight.std().item() == pytest.approx(16**-0.5, rel=0.15)
    assert model.classifier.weight.std().item() == pytest.approx(0.02, rel=0.3)


def test_heads_for_motion_change_no_logits_and_weights_load_without_them() -> None:
    taught = small_model(motion_heads=True, start="motion", dropout=0.0).eval()
    plain = small_model(dropout=0.0).eval()
    report = load_weights(plain, taught.state_dict())
    assert report.unused
    assert all(name.startswith("motion_heads.") for name in report.unused)
    clips = torch.randn(2, 3, 8, 32, 32)
    with torch.no_grad():
        logits, motions = taught.forward_motion(clips)
        np.testing.assert_allclose(logits, plain(clips), atol=1e-5)
    assert [tuple(motion.shape) for motion in motions] == [(2, 2, 4, 4, 2), (2, 2, 2, 2, 2)]


def test_a_model_without_heads_for_motion_cannot_tell_it() -> None:
    with pytest.raises(ValueError, match="without motion heads"):
        small_model().forward_motion(torch.randn(1, 3, 8, 32, 32))


def test_tokens_vote_for_stillness_and_for_the_ways_they_go() -> None:
    """The numbers are worked out by hand: two tokens that go outwards at 0.6, two that are so fast that all is 1."""
    tokens = torch.tensor([[[-0.6, 0.0], [0.6, 0.0]], [[0.0, 90.0], [90.0, 0.0]]])[None, None]
    ballots = _ballots(tokens)[0, 0]
    slow = [math.exp(-4), math.exp(-1), math.exp(-0.25)]
    half = math.tanh(0.6)  # twice the half of 0.6, as tokens lie at half the way to the edge
    np.testing.assert_allclose(ballots[0, 0], [*slow, -math.tanh(1.2), 0, half, -half], atol=1e-6)
    np.testing.assert_allclose(ballots[0, 1], [*slow, math.tanh(1.2), 0, half, half], atol=1e-6)
    np.testing.assert_allclose(ballots[1, 0], [0, 0, 0, 0, 1, 1, -1], atol=1e-6)
    np.testing.assert_allclose(ballots[1, 1], [0, 0, 0, 1, 0, 1, -1], atol=1e-6)


def test_a_vote_hears_the_mean_over_tokens_and_how_it_swings_in_time() -> None:
    vote = MotionVote(2)
    heard: list[torch.Tensor] = []
    vote.hidden.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    with torch.no_grad():
        vote.motion.weight.copy_(torch.eye(2))
        vote.motion.bias.zero_()
        vote(torch.tensor([[90.0, 0.0], [-90.0, 0.0], [90.0, 0.0], [90.0, 0.0]]).view(1, 4, 1, 1, 2))
    still, means, swings = heard[0][0, :3], heard[0][0, 3:7], heard[0][0, 10:14]
    assert still.tolist() == [0, 0, 0]
    np.testing.assert_allclose(means, [0.5, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(swings, [0.75, 0, 0, 0], atol=1e-6)  # of 1, -1, 1, 1: three of 0.25 and one of 2.25


def test_a_fresh_vote_changes_nothing_and_what_it_says_later_reaches_the_classes() -> None:
    voting = small_model(motion_vote=True, motion_heads=True, start="motion", dropout=0.0).eval()
    plain = small_model(dropout=0.0).eval()
    plain.load_state_dict(voting.state_dict(), strict=False)
    clips = torch.randn(2, 3, 8, 32, 32)
    assert voting.motion_vote is not None
    with torch.no_grad():
        voting.motion_vote.out.bias.zero_()
        np.testing.assert_allclose(voting(clips), plain(clips), atol=1e-5)
        logits, motions = voting.forward_motion(clips)
        tokens = voting.forward_tokens(clips)
        np.testing.assert_allclose(motions[-1], voting.motion_vote.motion(tokens), atol=1e-5)
        assert len(motions) == len(voting.stages) + 1
        voting.motion_vote.out.bias.fill_(2.0)
        shift = 2 * voting.classifier.weight.sum(dim=1)
        np.testing.assert_allclose(voting(clips), logits + shift, atol=1e-5)
        np.testing.assert_allclose(voting.pool(tokens), tokens.mean(dim=(1, 2, 3)) + 2, atol=1e-5)


def test_building_without_memory_does_not_load_the_compiler_of_torch() -> None:
    program = (
        "import sys, torch; from dualformer_cli import create_model\n"
        "with torch.device('meta'): create_model('camera-motion')\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2]).returncode == 0
