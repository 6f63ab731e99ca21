"""The card that decodes: that of the model, tried before any work, and refused in one line where there is none."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dualformer_cli.engine.parallel import devices
from dualformer_cli.engine.parallel.decoding_card import use_decoding_card
from dualformer_cli.video import torchcodec_cuda_reader
from dualformer_cli.video.sample import sample_clip
from dualformer_cli.video.torchcodec_cuda_reader import CARD_VARIABLE


@pytest.mark.parametrize(
    ("device", "environ", "card"),
    [
        ("auto", {}, "cuda:0"),
        ("cuda:1", {}, "cuda:1"),
        ("cpu", {}, "cuda:0"),
        ("auto", {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, "cuda:1"),
    ],
)
def test_workers_decode_on_the_card_of_the_model_and_the_difference_is_said_once(
    device: str,
    environ: dict[str, str],
    card: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried = []

    def difference(path: str) -> tuple[float, int]:
        tried.append((path, os.environ[CARD_VARIABLE]))
        return 0.512, 9

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torchcodec_cuda_reader, "difference_from_exact", difference)
    monkeypatch.setenv(CARD_VARIABLE, "")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.WARNING):
        use_decoding_card("torchcodec-cuda", device)
    assert tried == [(str(sample_clip()), card)]
    said = (
        "data.decoder torchcodec-cuda: frames of the sample clip differ by 0.51 of 255 grey levels from the exact "
        "ones, at most by 9"
    )
    assert caplog.messages == ([] if environ else [said])


def test_other_decoders_ask_for_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "device_of", lambda *_: pytest.fail("asked for a card"))
    monkeypatch.delenv(CARD_VARIABLE, raising=False)
    use_decoding_card("torchcodec", "auto")
    assert CARD_VARIABLE not in os.environ


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
@pytest.mark.parametrize(
    "command",
    [
        ["predict", "clip.mp4", "--preset", "camera-motion", "--output", "run"],
        ["train", "--preset", "camera-motion", "--output", "run"],
    ],
)
def test_a_machine_without_a_card_refuses_in_one_line_before_any_work(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"never read")
    arguments = [sys.executable, "-m", "dualformer_cli", *command, "--set", "data.decoder=torchcodec-cuda"]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(arguments, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "dualformer: data.decoder 'torchcodec-cuda' decodes on an NVIDIA card, and torch finds none; use --set "
        "data.decoder=auto\n"
    )
    assert not (tmp_path / "run" / "checkpoints").exists()
