"""A model becomes a file for other programs, or a folder for the Hub, which is loaded again and compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dualformer_cli.config.schema import WEIGHTS_SUFFIXES
from dualformer_cli.data.fetch.hugging_face import DEFAULT_FILE
from dualformer_cli.documents.base import JsonObject
from dualformer_cli.documents.export import Export, ExportCalibration, ExportFormat, ModelFileFacts
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.files import atomic_path
from dualformer_cli.system.output_checks import check_output_folder, check_outputs
from dualformer_cli.system.words import cannot_read
from dualformer_cli.tasks.session import Fetching, ModelRequest, load_engine

if TYPE_CHECKING:
    from dualformer_cli.engine.engine import Engine

MOST_DIFFERENCE = 1e-3
"""Difference from the model, as a share of its largest logit, above which a file in full precision is not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """Which model is exported, as what, and where to."""

    model: ModelRequest
    """Its device and precision do not count: a CPU exports in float32."""
    format: ExportFormat
    output: Path | None = None
    """File, or folder of the format hub; None for the name of the weights in the current folder."""
    dynamic_batch: bool = False
    """Whether a graph takes any number of clips, not just one."""
    half: bool = False
    """Whether numbers are stored in half precision."""
    calibrate: Path | None = None
    """What `dualformer eval --views 1x1 --dump` made of the weights and a list that was not trained on."""
    evaluation: Path | None = None
    """What `dualformer eval --json` printed of the weights, for the model card of the format hub."""
    overwrite: bool = False
    """Whether files that exist may be replaced."""

    @property
    def target(self) -> Path:
        """Return the file or folder to write."""
        if self.output is not None:
            return self.output
        name = (self.model.weights or "").rpartition("/")[2].partition(":")[0]
        stem = Path(name).stem if Path(name).suffix in (*WEIGHTS_SUFFIXES, ".yaml", ".yml") else name
        return Path(f"{stem}-hub" if self.format == "hub" else f"{stem}.{self.format}")


def export(
    request: ExportRequest,
    *,
    fetching: Fetching = lambda: nullcontext(lambda name, done, total: None),
    on_engine: Callable[[Engine], None] = lambda engine: None,
) -> Export:
    """Write a model with its classes, configuration, normalisation and views; load the file again and compare.

    Args:
        request: what to do.
        fetching: shows how far a file of weights is.
        on_engine: called with the model once it is loaded.

    Raises:
        DualFormerError: if a file cannot be read or written, the options do not fit each other, the dump has no scored
            video with one label, or the file does not compute what the model does.
    """
    files = _check(request)
    evaluation = None if request.evaluation is None else _read_evaluation(request.evaluation)
    calibration = None if request.calibrate is None else _calibration(request.calibrate)
    settings = {"runtime.device": "cpu", "runtime.precision": "fp32"}
    engine = load_engine(request.model, settings, fetching=fetching)
    on_engine(engine)
    from dualformer_cli.engine.model_files import facts_of  # loads torch, as the model does

    if evaluation is not None and evaluation.get("weights_sha256") != engine.weights_sha256:
        raise DualFormerError(f"evaluation {str(request.evaluation)!r} is of other weights than {engine.weights!r}")
    if calibration is not None:
        for parameter in engine.model.classifier.parameters():
            parameter.data.div_(calibration.temperature)
    if request.format == "hub":
        request.target.mkdir(parents=True, exist_ok=True)
    facts = facts_of(engine, temperature=1.0 if calibration is None else calibration.temperature)
    document = _write(request, engine, facts, calibration, files[0])
    if request.format == "hub":
        from dualformer_cli.outputs.model_card import config_json, model_card

        for path, text in zip(files[1:], (config_json(facts), model_card(document, facts, evaluation)), strict=True):
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return document


def _check(request: ExportRequest) -> list[Path]:
    """Return the files to write, the model first, once it is sure that they can be."""
    target, form = request.target, request.format
    if form != "hub" and target.suffix != f".{form}":
        raise DualFormerError(f"--format {form} makes a .{form} file, got {str(target)!r}")
    if request.dynamic_batch and form not in ("pt2", "onnx"):
        raise DualFormerError("--dynamic-batch is of a graph, --format pt2 or onnx; weights take any number of clips")
    if request.evaluation is not None and form != "hub":
        raise DualFormerError("--eval is of a model card, --format hub")
    if form == "onnx":
        from dualformer_cli.engine.model_files import check_onnx

        check_onnx()
    files = [target]
    if form == "hub":
        check_output_folder(target)
        files = [target / name for name in (DEFAULT_FILE, "config.json", "README.md")]
    if form != "hub" or target.exists():
        inputs = (request.model.weights, request.calibrate, request.evaluation)
        check_outputs(files, [str(each) for each in inputs if each is not None], overwrite=request.overwrite)
    return files


def _write(
    request: ExportRequest,
    engine: Engine,
    facts: ModelFileFacts,
    calibration: ExportCalibration | None,
    target: Path,
) -> Export:
    """Write the model's file, and keep it if it computes what the model does."""
    from dualformer_cli.engine import model_files

    form: model_files.FileFormat = "safetensors" if request.format == "hub" else request.format
    with atomic_path(target) as path:
        model_files.write_model(
            engine.model, facts, path, format=form, dynamic_batch=request.dynamic_batch, half=request.half
        )
        loaded = model_files.load_model_file(path, form, engine.config)
        difference, largest = model_files.compare(engine.model, loaded, count=3 if request.dynamic_batch else 1)
        if not request.half and not difference <= MOST_DIFFERENCE * max(1.0, largest):
            raise DualFormerError(f"the file computes other logits than the model, up to {difference:g} apart")
        num_bytes = path.stat().st_size
    frames, height, width = engine.model.input_size
    return Export(
        output=str(request.target),
        format=request.format,
        num_bytes=num_bytes,
        preset=engine.preset,
        weights=engine.weights,
        weights_sha256=engine.weights_sha256,
        num_classes=engine.model.num_classes,
        input_shape=(None if request.dynamic_batch or form == "safetensors" else 1, 3, frames, height, width),
        half=request.half,
        largest_difference=difference,
        largest_logit=largest,
        calibration=calibration,
    )


def _calibration(dump: Path) -> ExportCalibration:
    """Return the temperature that fits the scores of a dump best, and what it does to them."""
    from dualformer_cli.engine.scoring.dump import read_dump
    from dualformer_cli.engine.scoring.metrics import calibration
    from dualformer_cli.engine.scoring.temperature import fit_temperature, tempered

    records = [r for r in read_dump(dump).records if r.scores is not None and len(r.labels) == 1]
    if not records:
        raise DualFormerError(f"dump {str(dump)!r} has no scored video with one label; score a labelled list")
    scores, labels = np.stack([r.mean() for r in records]), np.array([r.labels[0] for r in records])
    temperature = fit_temperature(scores, labels)
    before, after = (
        calibration(each, labels).expected_calibration_error for each in (scores, tempered(scores, temperature))
    )
    return ExportCalibration(
        temperature=temperature,
        videos=len(records),
        calibration_error_before=before,
        calibration_error_after=after,
    )


def _read_evaluation(path: Path) -> JsonObject:
    """Return what `dualformer eval --json` printed."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DualFormerError(cannot_read("evaluation", path, error)) from None
    except ValueError as error:
        raise DualFormerError(f"evaluation {str(path)!r} cannot be read: {error}") from None
    if not isinstance(found, dict) or not {"videos", "digest", "weights_sha256"} <= found.keys():
        raise DualFormerError(f"evaluation {str(path)!r} is not what `dualformer eval --json` prints")
    return found
