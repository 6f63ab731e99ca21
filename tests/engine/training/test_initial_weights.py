"""Where training starts from: what is kept of other weights, what is adapted, and what is said about it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import serve
from published_layout import to_published
from torch import Tensor

from dualformer_cli import create_model
from dualformer_cli.config.load import load_config
from dualformer_cli.config.schema import TrainConfig
from dualformer_cli.engine.build import build_model
from dualformer_cli.engine.training import initial_weights
from dualformer_cli.engine.training.initial_weights import (
    note_of_classes,
    start,
    start_from_images,
    start_from_video,
)
from dualformer_cli.errors import DualFormerError, WeightsError
from dualformer_cli.model.dualformer import DualFormer

NAMES = ["dark", "red", "green", "blue"]


@pytest.fixture
def make_model(toy_preset: Path) -> Callable[..., DualFormer]:
    """The function make_model(*overrides, seed=0) -> toy model in eval mode, with pools of several frames."""

    def make(*overrides: str, seed: int = 0) -> DualFormer:
        torch.manual_seed(seed)
        grids = ["model.window_size=[4,2,2]", "model.fine_grid=[4,2,2]"]
        config = load_config(str(toy_preset), overrides=[*grids, *overrides], environ={}).config
        return build_model(config.model, config.data).eval()

    return make


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    def to_file(model: DualFormer, **beside: Any) -> str:
        path = tmp_path / "weights.pt"
        torch.save({"state_dict": to_published(model.state_dict()), **beside}, path)
        return str(path)

    return to_file


def test_weights_of_another_network_start_nothing(make_model: Any, tmp_path: Path) -> None:
    tensors = {"backbone.conv1.weight": torch.zeros(2), "cls_head.fc_cls.weight": torch.zeros(4, 32)}
    torch.save({"state_dict": tensors}, tmp_path / "tsn.pth")
    with pytest.raises(WeightsError, match=r"tsn\.pth' are not DualFormer weights \(it has backbone\.conv1\.weight\)"):
        start_from_video(make_model(), str(tmp_path / "tsn.pth"), class_names=NAMES)


def test_own_classes_are_one_sentence_with_the_weights_that_would_help() -> None:
    preset = load_config("k400-small", environ={}).config
    own = replace(preset, model=replace(preset.model, num_classes=2))
    assert note_of_classes(own, preset=preset.model) == [
        "the classifier starts anew, with the list's 2 classes; to fine-tune the Kinetics model: --init-from k400-small"
    ]
    assert note_of_classes(preset, preset=preset.model) == []
    started = replace(own, train=replace(own.train, pretrained_2d=None, init_from="k400-small"))
    assert note_of_classes(started, preset=preset.model) == []
    other = replace(own, model=replace(own.model, embed_dims=(48, 96, 192, 384)))
    assert note_of_classes(other, preset=preset.model) == ["the classifier starts anew, with the list's 2 classes"]


def test_the_same_classes_keep_the_whole_classifier(make_model: Any, save: Any) -> None:
    old, new = make_model(), make_model(seed=1)
    said = start_from_video(new, save(old, class_names=NAMES), class_names=NAMES)
    assert said[-1] == "the classifier is kept: all classes are known by name"
    for name, value in old.state_dict().items():
        assert torch.equal(value, new.state_dict()[name]), name


def test_other_classes_keep_the_rows_of_the_same_names_and_say_so(make_model: Any, save: Any) -> None:
    old, new = make_model(), make_model("model.num_classes=3", seed=1)
    with torch.no_grad():
        old.classifier.bias.copy_(torch.tensor([1.0, 2, 3, 4]))
    fresh = new.classifier.weight.detach().clone()
    source = save(old, class_names=NAMES)
    said = start_from_video(new, source, class_names=["blue", "purple", "red"])
    assert said[0].startswith(f"started from {source}: ")
    assert "the classifier keeps 2 classes of the same name and has 1 fresh" in said
    assert torch.equal(new.classifier.weight[0], old.classifier.weight[3])
    assert torch.equal(new.classifier.weight[1], fresh[1])
    assert torch.equal(new.classifier.weight[2], old.classifier.weight[1])
    assert new.classifier.bias.tolist() == [4, 0, 2]


def test_weights_without_names_keep_a_classifier_of_the_same_size_only(make_model: Any, save: Any) -> None:
    old, new = make_model(), make_model(seed=1)
    said = start_from_video(new, save(old), class_names=NAMES)
    assert "the classifier is kept: as many classes, but the weights do not say which" in said
    assert torch.equal(new.classifier.weight, old.classifier.weight)
    wider = make_model("model.num_classes=6", seed=1)
    said = start_from_video(wider, save(old), class_names=[*NAMES, "e", "f"])
    assert "the classifier is fresh: 4 classes before, 6 now" in said


def test_weights_of_another_size_are_refused_in_one_line(make_model: Any, save: Any) -> None:
    source = save(make_model())
    with pytest.raises(
        WeightsError,
        match=r"do not fit the model: missing or of another shape: .* and \d+ more; start .* weights of the same",
    ) as refused:
        start_from_video(make_model("model.embed_dims=[8,16,32,32]"), source, class_names=NAMES)
    assert "\n" not in str(refused.value)


def test_one_tensor_that_is_missing_is_named_alone(make_model: Any, tmp_path: Path) -> None:
    model = make_model()
    tensors = {name: value for name, value in model.state_dict().items() if name != "norm.weight"}
    torch.save(tensors, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"do not fit the model: missing or of another shape: norm\.weight; start "):
        start_from_video(model, str(tmp_path / "w.pt"), class_names=NAMES)


def test_neighbouring_taps_of_a_kernel_are_added_up() -> None:
    kernel = torch.tensor([1.0, 2, 3, 4]).view(1, 1, 4, 1, 1)
    assert initial_weights._fit_frames(kernel, torch.zeros(1, 1, 2, 1, 1)).flatten().tolist() == [3, 7]


def test_a_model_of_fewer_frames_sees_a_still_picture_as_the_longer_one(make_model: Any, save: Any) -> None:
    longer, shorter = make_model("data.clip.num_frames=32"), make_model("data.clip.num_frames=16", seed=1)
    with torch.no_grad():
        for name, value in longer.state_dict().items():
            if name.endswith("position.weight"):  # its zero padding tells the first and last frame from the others
                value[:, :, [0, 2]] = 0
    said = start_from_video(shorter, save(longer, class_names=NAMES), class_names=NAMES)
    assert sum("frames added up to" in sentence for sentence in said) >= 2
    picture = torch.randn(1, 3, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = longer(picture.expand(-1, -1, 32, -1, -1))
        torch.testing.assert_close(shorter(picture.expand(-1, -1, 16, -1, -1)), expected, rtol=1e-4, atol=1e-5)


def test_a_token_head_that_the_weights_lack_is_fresh(make_model: Any, save: Any) -> None:
    new = make_model("model.token_head=true", seed=1)
    said = start_from_video(new, save(make_model(), class_names=NAMES), class_names=NAMES)
    assert said[-1] == "the token head is fresh (6 tensors)"


def test_a_motion_vote_that_the_weights_lack_is_fresh(make_model: Any, save: Any) -> None:
    new = make_model("model.motion_vote=true", seed=1)
    said = start_from_video(new, save(make_model(), class_names=NAMES), class_names=NAMES)
    assert said[-1] == "the motion vote is fresh (6 tensors)"


def test_a_preset_that_is_not_here_is_refused_offline(
    make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUALFORMER_CACHE", str(tmp_path))
    with pytest.raises(DualFormerError, match="k400-tiny"):
        start_from_video(make_model(), "k400-tiny", class_names=NAMES, offline=True)
    with pytest.raises(WeightsError, match=r"weights 'nowhere\.pt' not found"):
        start_from_video(make_model(), "nowhere.pt", class_names=NAMES)


def flat(model: DualFormer) -> dict[str, Tensor]:
    """Image weights whose inflation is as large as the model's."""
    tensors = to_published(model.state_dict())
    return {name: value.sum(2) if value.dim() == 5 else value for name, value in tensors.items()}


def test_image_weights_are_inflated_and_see_a_still_picture_alike(make_model: Any, tmp_path: Path) -> None:
    old, new = make_model(), make_model(seed=1)
    torch.save(flat(old), tmp_path / "image.pt")
    said = start_from_images(new, str(tmp_path / "image.pt"))
    assert said[0].startswith(f"inflated image weights {tmp_path / 'image.pt'}: ")
    for name, value in new.state_dict().items():
        source = old.state_dict()[name]
        if ".coarse_pool." in name:
            is_weight = name.endswith("weight")
            expected = torch.full_like(value, 1 / value[0].numel()) if is_weight else torch.zeros_like(value)
            assert torch.equal(value, expected), name
        elif value.dim() == 5:
            expected = source.sum(2, keepdim=True).expand_as(value) / value.shape[2]
            torch.testing.assert_close(value, expected, msg=name)
        else:
            assert torch.equal(value, source), name


def test_image_weights_of_another_size_or_kind_are_refused(make_model: Any, tmp_path: Path) -> None:
    image = str(tmp_path / "image.pt")
    torch.save(flat(make_model()), image)
    with pytest.raises(WeightsError, match=r"do not fit the model: '.*' has shape \(.*\), not \(.*\); choose"):
        start_from_images(make_model("model.embed_dims=[8,16,32,32]"), image)
    torch.save({"conv1.weight": torch.zeros(3, 3)}, image)
    with pytest.raises(WeightsError, match=r"are not those of a 2-D DualFormer or Twins-SVT"):
        start_from_images(make_model(), image)


def test_timms_twins_fills_the_tiny_model_with_diagonal_pooling(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    untrained = timm.create_model("twins_svt_small", pretrained=False)
    asked = []

    def create(name: str, *, pretrained: bool) -> torch.nn.Module:
        asked.append((name, pretrained))
        return untrained

    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setattr(initial_weights, "hub_problem", lambda: None)
    model = create_model("k400-tiny", num_classes=4)
    before = model.classifier.weight.detach().clone()
    said = start_from_images(model, "timm")
    assert asked == [("twins_svt_small", True)]
    assert "timm" in said[0]
    own, image = to_published(model.state_dict()), untrained.state_dict()
    dense, fine = image["blocks.0.1.attn.sr.weight"], own["backbone.blocks.0.1.attn.sr.weight"]
    assert fine.dim() == 5
    for channel in (0, 5, 63):
        torch.testing.assert_close(fine[channel, 0].sum(0), dense[channel, channel])
    proj = own["backbone.patch_embeds.0.proj.weight"]
    torch.testing.assert_close(proj.sum(2), image["patch_embeds.0.proj.weight"])
    assert torch.equal(own["backbone.blocks.2.0.attn.qkv.weight"], image["blocks.2.0.attn.qkv.weight"])
    assert torch.equal(model.classifier.weight, before)


def test_timm_without_a_network_gives_one_line(make_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def create(name: str, *, pretrained: bool) -> torch.nn.Module:
        raise OSError("no route to the hub\nand much more")

    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setattr(initial_weights, "hub_problem", lambda: None)
    model = make_model("model.embed_dims=[64,128,256,512]")
    with pytest.raises(DualFormerError) as failed:
        start_from_images(model, "timm")
    assert str(failed.value) == (
        "timm's twins_svt_small cannot be fetched: no route to the hub; "
        "fetch its weights elsewhere and give --pretrained-2d FILE, or start without with "
        "--set train.pretrained_2d=null"
    )
    with pytest.raises(WeightsError, match=r"timm has no Twins-SVT with embed_dims \[16, 16, 32, 32\]; sizes tiny,"):
        start_from_images(make_model(), "timm")


def test_timm_is_not_asked_for_what_a_silent_hub_would_have(
    make_model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = make_model("model.embed_dims=[64,128,256,512]")
    with serve("some/model", {}, monkeypatch, cache=tmp_path) as hub:
        hub.close()
        start = time.monotonic()
        with pytest.raises(DualFormerError, match=r"was not fetched before, and the Hub does not answer \(.*refused"):
            start_from_images(model, "timm")
        assert time.monotonic() - start < 15, "the client of the Hub tries again for a minute"
    assert "etry" not in capfd.readouterr().err


def test_timm_asks_no_host_when_offline(make_model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    asked: list[object] = []

    def refuse(host: object, *_: object, **__: object) -> None:
        asked.append(host)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    train = TrainConfig(pretrained_2d="timm")
    model = make_model("model.embed_dims=[64,128,256,512]")
    with pytest.raises(DualFormerError, match="not fetched before, and --offline or DUALFORMER_OFFLINE forbids"):
        start(model, train, class_names=(), offline=True)
    assert asked == []
    assert constants.HF_HUB_OFFLINE is False  # as it was: the rest of the process may use the network
