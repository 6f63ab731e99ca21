"""Weights of every form that is published load; whatever else comes is refused in words, and never executed."""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from published_layout import published_key, to_published
from safetensors.torch import save_file
from torch import Tensor

from dualformer_cli import load_weights
from dualformer_cli.errors import WeightsError
from dualformer_cli.model.dualformer import DualFormer
from dualformer_cli.model.weights import own_key, read_checkpoint

SIZES: dict[str, Any] = {
    "mlp_ratio": 4.0,
    "dropout": 0.5,
    "drop_path": 0.0,
    "input_size": (8, 64, 64),
    "num_classes": 5,
    "embed_dims": (8, 16, 16, 32),
    "depths": (2, 2, 2, 2),
    "num_heads": (1, 2, 2, 4),
    "patch_sizes": ((2, 4, 4), (1, 2, 2), (1, 2, 2), (1, 2, 2)),
    "window_size": (2, 2, 2),
    "fine_grid": (2, 2, 2),
    "coarse_grid": (2, 2, 2),
}


def mini(seed: int = 0, **changes: Any) -> DualFormer:
    """A model with every kind of tensor that the large ones have, filled by its seed."""
    torch.manual_seed(seed)
    return DualFormer(**{**SIZES, **changes})


@pytest.fixture(scope="module")
def source() -> DualFormer:
    """The model whose weights are stored; its batch norms have seen data."""
    model = mini(1)
    for tensor in model.buffers():
        tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return model


def same(left: DualFormer, right: DualFormer) -> bool:
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def training_checkpoint(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """What trainers of the mmcv kind store beside the tensors."""
    return {
        "meta": {
            "epoch": 30,
            "iter": 74_000,
            "config": "model = dict(...)",
            "CLASSES": ("a", "b"),
            "lr": np.float64(0.001),
            "best": np.float32(0.795),
            "history": np.arange(3),
            "hook_msgs": OrderedDict(best_score=79.5),
        },
        "state_dict": OrderedDict(tensors),
        "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]},
        "amp": {"loss_scaler0": {"loss_scale": 65_536.0, "unskipped": 5}},
    }


FORMS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "published": to_published,
    "own": dict,
    "state_dict": lambda own: {"state_dict": to_published(own)},
    "model": lambda own: {"model": own, "epoch": 3},
    "module": lambda own: {"state_dict": {f"module.{key}": value for key, value in to_published(own).items()}},
    "compiled": lambda own: {f"_orig_mod.{key}": value for key, value in own.items()},
    "compiled module": lambda own: {f"_orig_mod.module.{key}": value for key, value in own.items()},
    "checkpoint": lambda own: training_checkpoint(to_published(own)),
    "half": lambda own: {key: value.half().float() for key, value in to_published(own).items()},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_every_published_form_loads(form: str, is_zip: bool, source: DualFormer, tmp_path: Path) -> None:
    stored = FORMS[form](source.state_dict())
    torch.save(stored, tmp_path / "w.pth", _use_new_zipfile_serialization=is_zip)
    model = mini(2)
    report = load_weights(model, tmp_path / "w.pth")
    assert set(report.loaded) == set(model.state_dict())
    assert (report.fresh, report.unused) == ((), ())
    assert same(model, source) or form == "half"


@pytest.mark.parametrize("rename", [to_published, dict])
def test_safetensors_load(rename: Any, source: DualFormer, tmp_path: Path) -> None:
    tensors = {key: value.contiguous() for key, value in rename(source.state_dict()).items()}
    save_file(tensors, tmp_path / "w.safetensors", metadata={"format": "pt"})
    model = mini(2)
    load_weights(model, str(tmp_path / "w.safetensors"))
    assert same(model, source)


def test_a_state_dict_loads_without_a_file(source: DualFormer) -> None:
    model = mini(2)
    assert (
        str(load_weights(model, source.state_dict())) == f"{len(model.state_dict())} tensors loaded, 0 fresh, 0 unused"
    )
    assert same(model, source)


def test_weights_in_half_precision_fill_a_float32_model(source: DualFormer) -> None:
    model = mini(2)
    load_weights(model, {key: value.half() for key, value in source.state_dict().items()})
    assert model.classifier.weight.dtype == torch.float32
    assert torch.equal(model.classifier.weight, source.classifier.weight.half().float())


def test_a_token_head_that_the_model_lacks_is_left_over(tmp_path: Path) -> None:
    labelled = mini(3, token_head=True)
    torch.save({"state_dict": to_published(labelled.state_dict())}, tmp_path / "w.pth")
    model = mini(2)
    report = load_weights(model, tmp_path / "w.pth")
    assert torch.equal(model.classifier.weight, labelled.classifier.weight)
    assert report.unused
    assert all(key.startswith("token_head.") for key in report.unused)
    assert "unused: token_head." in str(report)
    twin = mini(4, token_head=True)
    assert load_weights(twin, tmp_path / "w.pth").unused == ()
    assert same(twin, labelled)


def test_a_token_head_that_the_weights_lack_is_missing(source: DualFormer) -> None:
    with pytest.raises(WeightsError, match=r"do not fit the model \(missing: token_head\.0\.weight"):
        load_weights(mini(2, token_head=True), source.state_dict())


parts = st.sampled_from(
    [
        *("attention.qkv", "attention.q", "attention.kv", "attention.proj", "mlp.fc1", "mlp.fc2", "norm1", "norm2"),
        *("attention.pool.fine", "attention.pool.coarse_conv", "attention.pool.coarse_norm"),
        *("attention.pool.coarse_pool", "attention.pool.norm"),
    ]
)
numbers = st.integers(0, 120)
leaves = st.sampled_from(["weight", "bias", "running_mean", "num_batches_tracked"])
own_keys = st.one_of(
    st.builds("stages.{}.blocks.{}.{}.{}".format, numbers, numbers, parts, leaves),
    st.builds("stages.{}.{}.{}".format, numbers, st.sampled_from(["patch_embed.proj", "patch_embed.norm"]), leaves),
    st.builds("stages.{}.position.{}".format, numbers, leaves),
    st.builds("{}.{}".format, st.sampled_from(["norm", "classifier", "token_head.0", "token_head.6"]), leaves),
)


@given(key=own_keys)
def test_names_survive_the_trip_to_the_published_layout_and_back(key: str) -> None:
    published = published_key(key)
    assert published.startswith(("backbone.", "cls_head."))
    assert own_key(published) == key
    assert own_key(key) == key


def test_every_tensor_of_a_model_has_its_own_published_name(golden: Any) -> None:
    for key in golden("published_state_dict")["tiny"]:
        assert published_key(own_key(key)) == key
    own = mini(token_head=True).state_dict()
    assert len(to_published(own)) == len(own)


def test_weights_of_another_size_are_named_with_both_sizes(source: DualFormer, tmp_path: Path) -> None:
    torch.save(source.state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError) as caught:
        load_weights(mini(embed_dims=(8, 16, 32, 32), depths=(2, 2, 4, 2)), tmp_path / "w.pth")
    assert str(caught.value) == (
        f"weights {str(tmp_path / 'w.pth')!r} are of embed_dims [8, 16, 16, 32], depths [2, 2, 2, 2], the model is "
        "embed_dims [8, 16, 32, 32], depths [2, 2, 4, 2]; choose the --preset that the weights were trained with"
    )


def test_sizes_that_are_published_are_called_by_their_names() -> None:
    def shapes(*dims: int, depths: tuple[int, ...]) -> dict[str, Tensor]:
        tensors = {f"backbone.patch_embeds.{s}.proj.weight": torch.empty(dim, 1) for s, dim in enumerate(dims)}
        return tensors | {
            f"backbone.blocks.{s}.{b}.norm1.weight": torch.empty(1) for s, n in enumerate(depths) for b in range(n)
        }

    base = shapes(128, 256, 512, 1024, depths=(2, 2, 18, 2))
    with pytest.raises(WeightsError, match=r"^weights state dict are of size base, the model is embed_dims \[8, 16"):
        load_weights(mini(), base)


def test_another_number_of_classes_says_both_and_how_to_take_the_weights(source: DualFormer) -> None:
    with pytest.raises(WeightsError, match=r"have 5 classes, the model has 7; .* or --set model.num_classes=5$"):
        load_weights(mini(num_classes=7), source.state_dict())


def test_tensors_that_are_missing_unexpected_or_of_another_shape_are_named(source: DualFormer) -> None:
    tensors = dict(source.state_dict())
    del tensors["norm.bias"]
    tensors["norm.weight"] = torch.zeros(3)
    tensors["stages.0.extra"] = torch.zeros(3)
    with pytest.raises(
        WeightsError,
        match=r"\(missing: norm\.bias; unexpected: stages\.0\.extra; other shape: norm\.weight\)",
    ):
        load_weights(mini(), tensors)


def test_without_strict_what_does_not_fit_stays_fresh_and_is_reported(source: DualFormer) -> None:
    model = mini(2, num_classes=7)
    before = model.classifier.weight.clone()
    tensors = {key: value for key, value in source.state_dict().items() if key != "norm.bias"}
    report = load_weights(model, tensors | {"extra": torch.zeros(1)}, strict=False)
    assert report.fresh == ("norm.bias", "classifier.weight", "classifier.bias")
    assert set(report.unused) == {"classifier.weight", "classifier.bias", "extra"}
    assert "norm.weight" in report.loaded
    assert torch.equal(model.classifier.weight, before)
    assert torch.equal(model.norm.weight, source.norm.weight)


def test_a_refused_file_changes_nothing(source: DualFormer) -> None:
    model = mini(2, num_classes=7)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError):
        load_weights(model, source.state_dict())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_weights_of_another_network_are_told_apart(tmp_path: Path) -> None:
    torch.save({"state_dict": {"conv1.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}}, tmp_path / "resnet.pth")
    with pytest.raises(
        WeightsError, match=r"resnet\.pth' are not DualFormer weights \(it has conv1\.weight\); give weights of"
    ):
        load_weights(mini(), tmp_path / "resnet.pth")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("backbone.conv1.weight", "cls_head.fc_cls.weight"), "it has backbone.conv1.weight"),  # TSN of mmaction2
        (("cls_head.fc_cls.weight", "backbone.layers.0.x"), "it has backbone.layers.0.x"),
        (("patch_embeds.0.proj.weight", "norm.weight"), "; `train --pretrained-2d FILE` starts from image weights"),
        (("cls_head.fc_cls.weight", "cls_head.fc_cls.bias"), "have a classifier alone, not a DualFormer"),
    ],
)
def test_weights_that_share_a_classifiers_name_are_told_apart_too(names: tuple[str, ...], said: str) -> None:
    with pytest.raises(WeightsError) as caught:
        load_weights(mini(), {"state_dict": {name: torch.zeros(2) for name in names}})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({}, r"hold no tensors \(keys: \); give a checkpoint or a state dict"),
        ({"epoch": 3, "state_dict": {}}, r"hold no tensors \(keys: epoch, state_dict\)"),
        ([torch.zeros(2)], "hold a list, not a dictionary of tensors"),
        (torch.zeros(2), "hold a Tensor, not a dictionary of tensors"),
    ],
)
def test_files_without_a_dictionary_of_tensors_say_what_they_hold(stored: Any, said: str, tmp_path: Path) -> None:
    torch.save(stored, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=said):
        load_weights(mini(), tmp_path / "w.pth")


def zip_of(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"are an empty file; download them again$"),
        (b"<!DOCTYPE html><title>Quota exceeded</title>", r"are a web page, not weights: .*download again$"),
        (b"\n  <HTML>", r"are a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", r"are a Git LFS pointer.*`git lfs pull`$"),
        (b"just some text\n" * 100, r"cannot be read: this is not a file of PyTorch weights"),
        (b"a\nb\n", r"cannot be read: this is not a file of PyTorch weights"),
        (b"\0\0\0\x20ftypisom" + bytes(200), r"cannot be read: this is not a file of PyTorch weights"),
        (bytes(1000), r"cannot be read: this is not a file of PyTorch weights"),
        (bytes(range(256)) * 10, r"cannot be read: this is not a file of PyTorch weights"),
        (b"\x80\x02", r"cannot be read: the file is truncated; delete it and download again$"),
        (zip_of(readme=b"hello"), r"cannot be read: this is not a file of PyTorch weights"),
    ],
    ids=["empty", "page", "html", "lfs", "text", "lines", "mp4", "zeros", "bytes", "start", "zip"],
)
@pytest.mark.parametrize("is_mapped", [False, True], ids=["read", "mapped"])
def test_files_that_are_no_weights_say_what_they_are(
    content: bytes, said: str, is_mapped: bool, tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=said) as caught:
        read_checkpoint(path, mapped=is_mapped)
    assert str(caught.value).startswith(f"weights {str(path)!r} ")
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_exported_graphs_are_no_damaged_weights(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(zip_of(graph=b"of a program"))
    with pytest.raises(WeightsError, match=r"are a graph for other programs, .*or export them as \.safetensors$"):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_download_that_broke_off_is_truncated(share: float, is_zip: bool, source: DualFormer, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(source.state_dict(), path, _use_new_zipfile_serialization=is_zip)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    for is_mapped in (False, True):
        with pytest.raises(WeightsError, match=r"truncated.*delete it and download again$"):
            read_checkpoint(path, mapped=is_mapped)


def test_damaged_safetensors_are_refused(source: DualFormer, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({key: value.contiguous() for key, value in source.state_dict().items()}, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"w\.safetensors' cannot be read: "):
        read_checkpoint(path)


class Bomb:
    """Runs something when it is unpickled by a reader that trusts it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_pickled_object_is_refused_by_name_and_never_executed(is_zip: bool, tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    stored = {"state_dict": {"norm.weight": torch.zeros(3)}, "meta": Bomb(trap)}
    torch.save(stored, tmp_path / "w.pth", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(
        WeightsError,
        match=r"hold a Python object \((posix|nt)\.mkdir\), which could run code; keep only the state dict$",
    ):
        read_checkpoint(tmp_path / "w.pth")
    assert not trap.exists()


def test_a_plain_pickle_is_refused_and_never_executed(tmp_path: Path) -> None:
    import pickle

    trap = tmp_path / "executed"
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"state_dict": Bomb(trap)}, protocol=2))
    with pytest.raises(WeightsError, match=r"w\.pth' cannot be read: "):
        read_checkpoint(tmp_path / "w.pth")
    assert not trap.exists()


def test_a_missing_file_says_what_can_be_given(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nothing\.pth' not found; give a file, or hf://OWNER/NAME$"):
        read_checkpoint(tmp_path / "nothing.pth")


def test_a_named_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(WeightsError, match=r"pipe\.pth' are a named pipe; give a file$"):
        read_checkpoint(tmp_path / "pipe.pth")


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not say how much a process reads")
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_mapped_checkpoint_is_the_same_without_its_tensors_being_read(suffix: str, tmp_path: Path) -> None:
    path, tensors = tmp_path / f"w{suffix}", {"a": torch.arange(2_000_000.0), "b": torch.zeros(3)}
    if suffix == ".pt":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)

    def bytes_read() -> int:
        return int(re.findall(r"rchar: (\d+)", Path("/proc/self/io").read_text())[0])

    before = bytes_read()
    mapped = read_checkpoint(path, mapped=True)
    assert bytes_read() - before < 100_000
    assert mapped.keys() == tensors.keys()
    assert all(torch.equal(mapped[name], tensors[name]) for name in tensors)
    read_checkpoint(path)
    assert suffix == ".safetensors" or bytes_read() - before > 8_000_000


@pytest.mark.parametrize("spoil", [Tensor.to_sparse, lambda tensor: tensor.to("meta")], ids=["sparse", "meta"])
def test_tensors_without_plain_values_are_missing(spoil: Any, source: DualFormer, tmp_path: Path) -> None:
    tensors = dict(source.state_dict())
    tensors["classifier.weight"] = spoil(tensors["classifier.weight"])
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"do not fit the model \(missing: classifier\.weight\)"):
        load_weights(mini(), tmp_path / "w.pth")


def test_a_folder_is_no_file_of_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot be read: is a directory$"):
        read_checkpoint(tmp_path)
