"""A model becomes a file for others, which says what its classes and its input are; and such a file computes again."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn

from dualformer_cli.config.load import to_yaml
from dualformer_cli.config.schema import RenderConfig, RunConfig
from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.export import ModelFileFacts
from dualformer_cli.engine.build import build_model
from dualformer_cli.engine.engine import Engine
from dualformer_cli.errors import DualFormerError
from dualformer_cli.model.dualformer import DualFormer
from dualformer_cli.model.weights import KIND, TRAINING_HEADS, load_weights
from dualformer_cli.system.versions import version_of

FileFormat = Literal["safetensors", "pt2", "onnx"]
PT2_FACTS = "dualformer.json"
"""Entry of a .pt2 file with its facts."""
MOST_CLIPS = 4096
"""Clips in a batch that a graph with a free number of them takes."""

_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check_onnx() -> None:
    """Check that what writes and runs ONNX is installed, without importing it.

    Raises:
        DualFormerError: if it is not.
    """
    if missing := [name for name in _ONNX_PACKAGES if find_spec(name) is None]:
        raise DualFormerError(f"--format onnx needs {' and '.join(missing)}: pip install 'dualformer[onnx]'")


def portable_config(config: RunConfig) -> RunConfig:
    """Return what a model's file needs of a configuration: model and data, without lists and paths of this machine."""
    data = replace(config.data, classes=None, train_list=None, validation_list=None, root=None, render=RenderConfig())
    return RunConfig(model=replace(config.model, token_head=False), data=data)


def facts_of(engine: Engine, *, temperature: float) -> ModelFileFacts:
    """Return what the file of a model says of itself."""
    data = engine.config.data
    return ModelFileFacts(
        kind=KIND,
        dualformer=version_of("dualformer"),
        config=to_yaml(portable_config(engine.config)),
        class_names=None if engine.is_nameless else tuple(engine.class_names),
        input_size=engine.model.input_size,
        mean=data.mean,
        std=data.std,
        sampling=data.clip.sampling,
        frame_interval=data.clip.frame_interval,
        num_clips=data.test.num_clips,
        num_crops=data.test.num_crops,
        short_side=data.test.short_side,
        multi_label=data.multi_label,
        weights_sha256=engine.weights_sha256,
        temperature=temperature,
    )


def metadata_of(facts: ModelFileFacts) -> dict[str, str]:
    """Return facts as entries of text, which is all that these files hold."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in to_json(facts).items()}


def example_clips(model: DualFormer, count: int) -> Tensor:
    """Return random clips, the same each time, shape (count, 3, T, H, W)."""
    return torch.randn(count, 3, *model.input_size, generator=torch.Generator().manual_seed(count))


def write_model(
    model: DualFormer, facts: ModelFileFacts, path: Path, *, format: FileFormat, dynamic_batch: bool, half: bool
) -> None:
    """Write a model, without heads for training.

    Args:
        model: float32, on the CPU, in evaluation mode.
        facts: what the file says of itself.
        path: file to make.
        format: safetensors has weights alone, the others the computation too.
        dynamic_batch: a graph takes any number of clips up to MOST_CLIPS, not just one.
        half: store numbers in half precision, and compute in it; a graph's input and output stay float32.
    """
    if format == "safetensors":
        _write_safetensors(model, facts, path, half=half)
        return
    graph = _InHalf(model) if half else model
    clips = example_clips(model, 2 if dynamic_batch else 1)
    shapes = {"clips": {0: torch.export.Dim("batch", min=1, max=MOST_CLIPS)}} if dynamic_batch else None
    with torch.no_grad(), _quiet():
        if format == "pt2":
            program = torch.export.export(graph, (clips,), dynamic_shapes=shapes)
            torch.export.save(program, path, extra_files={PT2_FACTS: json.dumps(to_json(facts))})
        else:
            written = torch.onnx.export(
                graph,
                (clips,),
                input_names=["clips"],
                output_names=["logits"],
                dynamo=True,
                dynamic_shapes=shapes,
                verbose=False,
            )
            assert written is not None
            written.model.metadata_props.update(metadata_of(facts))
            written.save(str(path))


def load_model_file(path: Path, format: FileFormat, config: RunConfig) -> Callable[[Tensor], Tensor]:
    """Return what computes the logits of clips from a file that `write_model` wrote.

    Args:
        path: the file.
        format: of the file.
        config: what a file of weights alone is put into.
    """
    if format == "safetensors":
        portable = portable_config(config)
        model = build_model(portable.model, portable.data, kernels="torch").eval()
        load_weights(model, path)
        return model
    if format == "pt2":
        return cast(Callable[[Tensor], Tensor], torch.export.load(path).module())
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda clips: torch.from_numpy(session.run(None, {"clips": clips.numpy()})[0])


@torch.no_grad()
def compare(model: DualFormer, other: Callable[[Tensor], Tensor], *, count: int) -> tuple[float, float]:
    """Return the largest difference between the logits of two models over random clips, and the first's largest."""
    clips = example_clips(model, count)
    logits = model(clips)
    return float((logits - other(clips)).abs().max()), float(logits.abs().max())


class _InHalf(nn.Module):
    """A copy of a model that computes in half precision, between float32."""

    def __init__(self, model: DualFormer) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).half()

    def forward(self, clips: Tensor) -> Tensor:
        logits: Tensor = self.model(clips.half())
        return logits.float()


def _write_safetensors(model: DualFormer, facts: ModelFileFacts, path: Path, *, half: bool) -> None:
    from safetensors.torch import save

    tensors = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in model.state_dict().items()
        if not name.startswith(TRAINING_HEADS)
    }
    path.write_bytes(save(tensors, metadata=metadata_of(facts)))  # save_file makes a file that its owner alone reads


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporters say of their own workings from users."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
