"""A checkpoint becomes a small file of weights to give away, whose scores mean what they say.

dualformer eval --weights runs/train/checkpoints/best.pt --data val.csv --dump val.jsonl
python -m dualformer_cli.tasks.export runs/train/checkpoints/best.pt val.jsonl weights.safetensors
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dualformer_cli.engine.scoring.dump import read_dump
from dualformer_cli.engine.scoring.metrics import calibration
from dualformer_cli.errors import DualFormerError
from dualformer_cli.model.weights import TRAINING_HEADS, read_checkpoint, state_dict_of
from dualformer_cli.system.files import atomic_path

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


def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("checkpoint", help="of a training run")
    parser.add_argument("dump", help="what `dualformer eval --views 1x1 --dump` made of it and the validation list")
    parser.add_argument("output", help=".safetensors file")
    options = parser.parse_args()
    records = [r for r in read_dump(options.dump).records if r.scores is not None and len(r.labels) == 1]
    if not records:
        raise SystemExit(f"{options.dump!r} has no scored video with a label")
    scores, labels = np.stack([r.mean() for r in records]), np.array([r.labels[0] for r in records])
    temperature = fit_temperature(scores, labels)
    errors = [calibration(s, labels).expected_calibration_error for s in (scores, tempered(scores, temperature))]
    num_bytes = export_weights(options.checkpoint, options.output, temperature=temperature)
    print(
        f"temperature {temperature:.3f} from {len(records)} videos, expected calibration error "
        f"{errors[0]:.4f} before, {errors[1]:.4f} after; {options.output}: {num_bytes:,} bytes"
    )


if __name__ == "__main__":
    _main()
