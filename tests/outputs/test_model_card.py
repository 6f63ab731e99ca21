"""The card of a model says what its facts and its evaluation say."""

from __future__ import annotations

import pytest

from dualformer_cli.documents.export import Export, ModelFileFacts

pytest.importorskip("huggingface_hub")

from dualformer_cli.outputs.model_card import model_card

FACTS = ModelFileFacts(
    kind="dualformer",
    dualformer="1.2.3",
    config="",
    class_names=("run", "jump"),
    input_size=(8, 64, 96),
    mean=(1.0, 2.0, 3.0),
    std=(4.0, 5.0, 6.0),
    sampling="interval",
    frame_interval=2,
    num_clips=4,
    num_crops=3,
    short_side=72,
    multi_label=False,
    weights_sha256="abc",
    temperature=1.0,
)
EXPORT = Export(
    output="mine",
    format="hub",
    num_bytes=9,
    preset="p",
    weights="w.pt",
    weights_sha256="abc",
    num_classes=2,
    input_shape=(None, 3, 8, 64, 96),
    half=False,
    largest_difference=0.0,
    largest_logit=1.0,
)
EVALUATION = {
    "videos": {"listed": 10, "scored": 8},
    "top1": 62.5,
    "digest": "0123456789abcdef0",
    "num_classes": 2,
    "list": "folder/val.csv",
    "views": "4x3",
    "precision": "fp32",
}


def test_a_card_says_what_goes_into_the_model_and_how_well_it_did() -> None:
    words = " ".join(model_card(EXPORT, FACTS, EVALUATION).split())
    assert "classifies videos into 2 classes: run, jump." in words
    assert "Clips of 8 frames of 64x96 pixels, one every 2 frames of the video, 4x3 views a video." in words
    assert "grey levels [1.0, 2.0, 3.0] is subtracted, then they are divided by [4.0, 5.0, 6.0]." in words
    assert "8 of 10 videos of `val.csv`" in words
    assert "4x3 views, fp32, digest of the scores `0123456789abcdef`." in words
    assert "| top-1 | 62.50% |" in words
    assert "Not evaluated." in model_card(EXPORT, FACTS, None)
