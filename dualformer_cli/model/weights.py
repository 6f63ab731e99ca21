"""Weights from files and state dicts into our models: the published layout, our own, and image (2-D) weights.

Published files are training checkpoints of the mmcv kind; ours hold the same tensors under plainer
names. Nothing is loaded with pickle's full powers: files come from strangers.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualformer_cli.errors import WeightsError
from dualformer_cli.model.dualformer import DualFormer

# (our prefix, published prefix); {s} is a stage, {b} a block. The longest match is listed first.
_LAYOUT = (
    ("stages.{s}.blocks.{b}.attention.pool.fine.", "backbone.blocks.{s}.{b}.attn.sr."),
    ("stages.{s}.blocks.{b}.attention.pool.coarse_conv.", "backbone.blocks.{s}.{b}.attn.lr.0."),
    ("stages.{s}.blocks.{b}.attention.pool.coarse_norm.", "backbone.blocks.{s}.{b}.attn.lr.1."),
    ("stages.{s}.blocks.{b}.attention.pool.coarse_pool.", "backbone.blocks.{s}.{b}.attn.lr.3."),
    ("stages.{s}.blocks.{b}.attention.pool.norm.", "backbone.blocks.{s}.{b}.attn.norm."),
    ("stages.{s}.blocks.{b}.attention.", "backbone.blocks.{s}.{b}.attn."),
    ("stages.{s}.blocks.{b}.", "backbone.blocks.{s}.{b}."),
    ("stages.{s}.patch_embed.", "backbone.patch_embeds.{s}."),
    ("stages.{s}.position.", "backbone.pos_block.{s}.proj.0."),
    ("norm.", "backbone.norm."),
    ("classifier.", "cls_head.fc_cls."),
    ("token_head.", "cls_head.token_linear."),
)


KIND = "dualformer checkpoint"
"""What a file says that brings its configuration and its class names along."""

TRAINING_HEADS = ("token_head.", "motion_heads.")
"""Tensors that a model which only classifies has no need of."""

FRESH_IN_TRAINING = ("classifier.", "motion_vote.", *TRAINING_HEADS)
"""Tensors that training may begin without, where other weights have not got them; they learn at the full rate."""

_GRAPHS = (".onnx", ".pt2")
"""Suffixes of files that hold a computation, as `export` writes them."""

_RULES = [
    (re.compile(re.escape(published).replace(r"\{s\}", r"(?P<s>\d+)").replace(r"\{b\}", r"(?P<b>\d+)")), own)
    for own, published in _LAYOUT
]


def own_key(key: str) -> str:
    """Return our name of a published tensor; other names come back unchanged."""
    for pattern, template in _RULES:
        if match := pattern.match(key):
            return template.format(**match.groupdict()) + key[match.end() :]
    return key


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What `load_weights` did, in our names of the tensors."""

    loaded: tuple[str, ...]
    """Tensors that took their values from the source."""
    fresh: tuple[str, ...]
    """Tensors of the model that kept their initial values."""
    unused: tuple[str, ...]
    """Tensors of the source that the model has no place for."""

    def __str__(self) -> str:
        """One line for the log."""
        line = f"{len(self.loaded)} tensors loaded, {len(self.fresh)} fresh, {len(self.unused)} unused"
        parts = [f"{name}: {_some(keys)}" for name, keys in (("fresh", self.fresh), ("unused", self.unused)) if keys]
        return "; ".join([line, *parts])


def load_weights(
    model: DualFormer, source: str | Path | Mapping[str, Any], *, strict: bool = True, name: str | None = None
) -> LoadReport:
    """Load published or own weights into a model.

    Args:
        model: the model to fill.
        source: a file (.pth, .pt, .safetensors) or a state dict, bare or wrapped as in a training checkpoint.
        strict: every tensor of the model must be found and none may be left over, except those of heads for
            training that the model does not have. When False, tensors that are missing or of another shape keep their
            initial values.
        name: what messages call a state dict that comes from a file.

    Returns:
        Names of the tensors loaded, fresh and unused.

    Raises:
        WeightsError: if the file cannot be read or the tensors do not fit; the message says which and what to do.
    """
    name = repr(name or str(source)) if name or not isinstance(source, Mapping) else "state dict"
    checkpoint = source if isinstance(source, Mapping) else read_checkpoint(source)
    tensors = {own_key(key): value for key, value in state_dict_of(checkpoint, name).items()}
    own = model.state_dict()
    misshapen = [key for key in own if key in tensors and tensors[key].shape != own[key].shape]
    fresh = tuple(key for key in own if key not in tensors or key in misshapen)
    unused = tuple(key for key in tensors if key not in own or key in misshapen)
    if strict:
        _explain_misfit(name, own, tensors, fresh, unused, misshapen)
    loaded = {key: tensors[key] for key in own if key not in fresh}
    model.load_state_dict(loaded, strict=False)
    return LoadReport(loaded=tuple(loaded), fresh=fresh, unused=unused)


def read_checkpoint(path: str | Path, *, mapped: bool = False) -> Mapping[str, Any]:
    """Read a file of weights without running anything in it.

    Args:
        path: the file.
        mapped: leave the tensors on the disk until somebody looks at their values, where its format allows that: for
            a caller who wants the rest of it, as there may be gigabytes of them.

    Returns:
        What it holds; of a .safetensors file its tensors, or, where `export` wrote into it what they are, a checkpoint.

    Raises:
        WeightsError: if it is missing, empty, truncated, a web page, or holds more than tensors and plain values.
    """
    path = Path(path)
    try:
        if path.is_fifo():  # opening it would wait for a writer
            raise WeightsError(f"weights {str(path)!r} are a named pipe; give a file")
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise WeightsError(f"weights {str(path)!r} not found; give a file, or hf://OWNER/NAME") from None
    except OSError as error:
        raise WeightsError(f"weights {str(path)!r} cannot be read: {str(error.strerror).lower()}") from None
    _refuse_non_weights(path, head)
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        with torch.serialization.safe_globals(_plain_globals()):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and head.startswith(b"PK"))
    except Exception as error:  # torch and safetensors raise a dozen kinds for damaged files; none of them is ours
        raise WeightsError(f"weights {str(path)!r} cannot be read: {_reason(error)}") from error
    if not isinstance(checkpoint, Mapping):
        raise WeightsError(f"weights {str(path)!r} hold a {type(checkpoint).__name__}, not a dictionary of tensors")
    return checkpoint


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        facts = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    if facts.get("kind") != KIND:
        return tensors
    names = json.loads(facts.get("class_names", "null"))
    return {"kind": KIND, "config": facts.get("config"), "class_names": names, "model": tensors}


def state_dict_of(checkpoint: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """Find the tensors in a bare or wrapped state dict and drop the prefix of a parallel wrapper.

    Raises:
        WeightsError: if there are no tensors.
    """
    inner: Any = checkpoint
    for key in ("state_dict", "model"):
        if isinstance(inner.get(key), Mapping):
            inner = inner[key]
            break
    tensors = {str(key): value for key, value in inner.items() if isinstance(value, Tensor) and _has_values(value)}
    if not tensors:
        keys = _some(tuple(map(str, checkpoint)))
        raise WeightsError(f"weights {name} hold no tensors (keys: {keys}); give a checkpoint or a state dict")
    for prefix in ("module.", "_orig_mod.", "module."):  # the wrappers come in either order
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _has_values(tensor: Tensor) -> bool:
    """Whether a tensor can be copied into a parameter; sparse ones and those without data cannot."""
    return tensor.layout == torch.strided and not tensor.is_meta


def class_names_of(checkpoint: Mapping[str, Any]) -> list[str] | None:
    """The class names that a checkpoint of ours carries, in the order of its classifier; None for others."""
    names = checkpoint.get("class_names")
    return [str(name) for name in names] if isinstance(names, list) and names else None


def config_of(checkpoint: Mapping[str, Any]) -> str | None:
    """The configuration, as YAML, that a checkpoint of ours was trained with; None for others."""
    config = checkpoint.get("config")
    is_ours = checkpoint.get("kind") == KIND
    return config if is_ours and isinstance(config, str) and config else None


def inflate_2d(model: DualFormer, image_weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn weights of the image (2-D) network into tensors of a video model.

    Patch embeddings, position convolutions and fine pooling are repeated over their temporal kernel and divided by it;
    the coarse level's first convolution gains a temporal axis of 1; its second convolution, which images do not have,
    becomes a mean (1 / number of taps, bias 0). Everything else is taken as it is.

    Args:
        model: the video model, for the kernels' sizes.
        image_weights: 2-D tensors under published names, with or without the `backbone.` prefix.

    Returns:
        Tensors in our names, for `load_weights(model, ..., strict=False)`.
    """
    named = {
        key if key.startswith(("backbone.", "cls_head.")) else f"backbone.{key}": v for key, v in image_weights.items()
    }
    tensors = {own_key(key): value for key, value in named.items()}
    inflated: dict[str, Tensor] = {}
    for key, own in model.state_dict().items():
        if ".coarse_pool." in key:
            inflated[key] = (
                torch.full_like(own, 1 / own[0].numel()) if key.endswith("weight") else torch.zeros_like(own)
            )
        elif key in tensors:
            value = tensors[key]
            if own.dim() == 5 and value.dim() == 4:
                value = value.unsqueeze(2).expand(-1, -1, own.shape[2], -1, -1) / own.shape[2]
            inflated[key] = value
    return inflated


def _refuse_non_weights(path: Path, head: bytes) -> None:
    text = head.lstrip().lower()
    if not head:
        raise WeightsError(f"weights {str(path)!r} are an empty file; download them again")
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<")):
        raise WeightsError(
            f"weights {str(path)!r} are a web page, not weights: the download was answered with a page "
            "(log-in, quota or virus-scan notice); delete it and download again"
        )
    if text.startswith(b"version https://git-lfs"):
        raise WeightsError(f"weights {str(path)!r} are a Git LFS pointer, not the file it names; run `git lfs pull`")
    if path.suffix.lower() in _GRAPHS:
        raise WeightsError(
            f"weights {str(path)!r} are a graph for other programs, which is not read here; give the weights that "
            "it was exported from, or export them as .safetensors"
        )
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise WeightsError(
            f"weights {str(path)!r} are truncated ({path.stat().st_size:,} bytes): the end of the file is missing; "
            "delete it and download again"
        )


def _plain_globals() -> list[Any]:
    """Harmless types that training checkpoints carry beside tensors: numpy scalars and arrays, under both names."""
    multiarray = import_module("numpy._core.multiarray")
    dtypes = [type(np.dtype(name)) for name in ("float32", "float64", "int32", "int64", "bool", "uint8")]
    functions = [multiarray.scalar, multiarray._reconstruct]
    older = [(function, f"numpy.core.multiarray.{function.__name__}") for function in functions]
    return [*functions, *older, np.ndarray, np.dtype, *dtypes]


def _reason(error: Exception) -> str:
    text = str(error)
    if match := re.search(r"GLOBAL ([\w.]+)", text):
        return f"they hold a Python object ({match[1]}), which could run code; keep only the state dict"
    if isinstance(error, EOFError) or "unexpected EOF" in text or "Ran out of input" in text:
        return "the file is truncated; delete it and download again"
    if isinstance(error, MemoryError):
        return "they need more memory than there is"
    return "this is not a file of PyTorch weights, or it is damaged"  # torch's own words advise to load it unsafely


def _some(keys: tuple[str, ...], most: int = 4) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def _explain_misfit(
    name: str,
    own: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    fresh: tuple[str, ...],
    unused: tuple[str, ...],
    misshapen: list[str],
) -> None:
    """Raise WeightsError if the tensors do not fill the model exactly, saying what they are instead."""
    missing = tuple(key for key in fresh if key not in misshapen)
    extra = tuple(key for key in unused if key not in misshapen and not key.startswith(TRAINING_HEADS))
    if not (missing or extra or misshapen):
        return
    require_dualformer(tensors, name)
    if _size(own) != _size(tensors):
        raise WeightsError(
            f"weights {name} are of {_describe(tensors)}, the model is {_describe(own)}; "
            "choose the --preset that the weights were trained with"
        )
    if "classifier.weight" in misshapen:
        has, wants = tensors["classifier.weight"].shape[0], own["classifier.weight"].shape[0]
        raise WeightsError(
            f"weights {name} have {has} classes, the model has {wants}; choose the preset that they were "
            f"trained with, or --set model.num_classes={has}"
        )
    parts = [
        f"{label}: {_some(keys)}"
        for label, keys in (("missing", missing), ("unexpected", extra), ("other shape", tuple(misshapen)))
        if keys
    ]
    raise WeightsError(f"weights {name} do not fit the model ({'; '.join(parts)}); choose the preset of these weights")


def require_dualformer(tensors: Mapping[str, Tensor], name: str) -> None:
    """Refuse the weights of another architecture, also those whose classifier has the published name.

    Args:
        tensors: in our names.
        name: of the weights, as messages show it.

    Raises:
        WeightsError: naming a tensor that a DualFormer does not have.
    """
    if any(key.startswith("stages.") for key in tensors):
        return
    other = next((key for key in tensors if not key.startswith(("norm.", "classifier.", "token_head."))), None)
    if other is None:
        raise WeightsError(f"weights {name} have a classifier alone, not a DualFormer; give the whole model's")
    is_image = "patch_embeds.0.proj.weight" in tensors
    advice = "`train --pretrained-2d FILE` starts from image weights" if is_image else "give weights of a DualFormer"
    raise WeightsError(f"weights {name} are not DualFormer weights (it has {other}); {advice}")


def _size(tensors: Mapping[str, Tensor]) -> tuple[list[int], list[int]]:
    """Width and number of blocks of each stage, as far as the tensors tell."""
    dims: list[int] = []
    depths: list[int] = []
    while f"stages.{len(dims)}.patch_embed.proj.weight" in tensors:
        stage = len(dims)
        dims.append(tensors[f"stages.{stage}.patch_embed.proj.weight"].shape[0])
        blocks = {key.split(".")[3] for key in tensors if key.startswith(f"stages.{stage}.blocks.")}
        depths.append(len(blocks))
    return dims, depths


_KNOWN_SIZES = {
    "tiny": ([64, 128, 256, 512], [2, 2, 10, 4]),
    "small": ([96, 192, 384, 768], [2, 2, 18, 2]),
    "base": ([128, 256, 512, 1024], [2, 2, 18, 2]),
}


def _describe(tensors: Mapping[str, Tensor]) -> str:
    dims, depths = _size(tensors)
    for size, known in _KNOWN_SIZES.items():
        if known == (dims, depths):
            return f"size {size}"
    return f"embed_dims {dims}, depths {depths}"
