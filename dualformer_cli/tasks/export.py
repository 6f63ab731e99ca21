"""A checkpoint becomes a small file of weights to give away, whose scores mean what they say."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dualformer_cli.documents.export import Export
from dualformer_cli.engine.scoring.dump import read_dump
from dualformer_cli.engine.scoring.metrics import calibration
from dualformer_cli.errors import DualFormerError
from dualformer_cli.model.weights import TRAINING_HEADS, read_checkpoint, state_dict_of
from dualformer_cli.system.files import atomic_path, check_outputs

_TEMPERATURES = np.exp(np.linspace(np.log(0.2), np.log(5.0), 401))


def fit_temperature(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    """Find what to divide logits by so that scores are as likely as they say: the best of 401 from 0.2 to 5.

    Args:
        scores: of one view each, shape (n, classes), rows of sum 1.
        labels: class numbers, shape (n,).
    """
    logs = np.log(np.clip(scores, 1e-30, None))
    losses = []
    for temperature in _TEMPERATURES:
        scaled = logs / temperature
        peak = scaled.max(axis=1)
        norms = peak + np.log(np.exp(scaled - peak[:, None]).sum(axis=1))
        losses.append(float((norms - scaled[np.arange(len(labels)), labels]).mean()))
    return float(_TEMPERATURES[int(np.argmin(losses))])


def tempered(scores: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    """Scores as they are once their logits are divided by a temperature."""
    powers = np.clip(scores, 1e-30, None) ** (1 / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def export_weights(checkpoint: str | os.PathLike[str], output: str | os.PathLike[str], *, temperature: float) -> int:
    """Write a checkpoint's weights in half precision, without heads for training.

    Args:
        checkpoint: file of weights; of one with a moving average, the average.
        output: .safetensors file to make or replace.
        temperature: the classifier is divided by it.

    Returns:
        Bytes of the file.

    Raises:
        DualFormerError: if the checkpoint cannot be read or the file not written.
    """
    from safetensors.torch import save_file

    target = Path(output)
    if target.suffix != ".safetensors":
        raise DualFormerError(f"exported weights are a .safetensors file, got {str(target)!r}")
    kept: dict[str, Tensor] = {}
    for name, tensor in state_dict_of(read_checkpoint(Path(checkpoint)), repr(str(checkpoint))).items():
        if name.startswith(TRAINING_HEADS):
            continue
        scaled = tensor / temperature if name.startswith("classifier.") else tensor
        kept[name] = scaled.to(torch.float16).contiguous() if tensor.is_floating_point() else tensor.contiguous()
    with atomic_path(target) as temporary:
        save_file(kept, temporary)
    return target.stat().st_size


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """Which weights are packed, and where to."""

    checkpoint: Path
    """Of a training run."""
    dump: Path
    """What `dualformer eval --views 1x1 --dump` made of it and the validation list."""
    output: Path
    """A .safetensors file."""
    overwrite: bool = False
    """Whether the output may be replaced."""


def export(request: ExportRequest) -> Export:
    """Write a checkpoint's weights, the classifier divided by the temperature that fits the dump's scores best.

    Raises:
        DualFormerError: if a file cannot be read or written, or the dump has no scored video with one label.
    """
    check_outputs([request.output], [str(request.checkpoint), str(request.dump)], overwrite=request.overwrite)
    records = [r for r in read_dump(request.dump).records if r.scores is not None and len(r.labels) == 1]
    if not records:
        raise DualFormerError(f"dump {str(request.dump)!r} has no scored video with one label; score a labelled list")
    scores, labels = np.stack([r.mean() for r in records]), np.array([r.labels[0] for r in records])
    temperature = fit_temperature(scores, labels)
    before, after = (
        calibration(each, labels).expected_calibration_error for each in (scores, tempered(scores, temperature))
    )
    return Export(
        output=str(request.output),
        num_bytes=export_weights(request.checkpoint, request.output, temperature=temperature),
        temperature=temperature,
        videos=len(records),
        calibration_error_before=before,
        calibration_error_after=after,
    )
