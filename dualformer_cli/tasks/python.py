"""The functions behind the commands, as Python users call them: `from dualformer_cli import predict, create_model`.

Each returns the document that the command prints with --json. The requests of the tasks beside this file have more
options: files to write, displays, several processes.
"""

from __future__ import annotations

import inspect
import logging
import os
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial, wraps
from itertools import chain
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypedDict, TypeGuard, TypeVar, cast

import numpy as np
import numpy.typing as npt

from dualformer_cli.config.load import load_config, to_yaml
from dualformer_cli.config.option_defaults import GRADCAM_LAYER, TOP_K
from dualformer_cli.config.schema import WEIGHTS_SUFFIXES
from dualformer_cli.data.fetch.hugging_face import is_hub_address, local_weights
from dualformer_cli.data.lists.class_lists import load_class_names
from dualformer_cli.documents.evaluate import Evaluation
from dualformer_cli.documents.gradcam import Gradcam
from dualformer_cli.documents.predict import Predictions
from dualformer_cli.documents.train import TrainEvent, TrainResult
from dualformer_cli.errors import ConfigError
from dualformer_cli.tasks.predict import PredictRequest
from dualformer_cli.tasks.session import DEFAULT_PRESET, ModelRequest, load_engine, open_session

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from dualformer_cli.config.load import ResolvedConfig
    from dualformer_cli.model.dualformer import DualFormer
    from dualformer_cli.model.weights import LoadReport

_LOGGER = logging.getLogger(__name__)

Frames = npt.NDArray[np.uint8]
"""A video in memory, shape (T, H, W, 3), or one frame of it, (H, W, 3)."""
Name = str | PathLike[str]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Kinds = tuple[type, ...]

_FLAG: tuple[_Kinds, str] = ((bool, np.bool_), "True or False")
_NAME: tuple[_Kinds, str] = ((str, PathLike), "a name or a path")
_NUMBER: tuple[_Kinds, str] = ((Real,), "a number")
_KINDS: Mapping[str, tuple[_Kinds, str]] = {
    **dict.fromkeys(("pretrained", "strict", "offline", "overwrite", "resume", "compile"), _FLAG),
    **dict.fromkeys(("preset", "weights", "data", "validation", "output", "dump", "report", "init_from"), _NAME),
    **dict.fromkeys(("teacher", "video", "out", "npz"), _NAME),
    **dict.fromkeys(("num_classes", "fps", "top_k", "every_seconds", "min_score", "seed"), _NUMBER),
    **dict.fromkeys(("layer", "device", "precision"), ((str,), "text")),
    "class_": ((str, Real), "the name or the number of a class"),
    "source": ((str, PathLike, Mapping), "a name, a path or a state dict"),
    "on_event": ((Callable,), "a function"),  # type: ignore[dict-item]  # an abstract class, as isinstance takes them
}
"""Of arguments by their names: what they may be, and in words. Their ranges are checked where they are used."""


def _checked(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return a function that refuses arguments of another kind by name, before anything is loaded."""
    signature = inspect.signature(function)
    defaults = {name: parameter.default for name, parameter in signature.parameters.items()}

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        given = signature.bind(*args, **kwargs).arguments
        for name, value in {**given, **given.get("options", {})}.items():
            kinds, words = _KINDS.get(name, ((object,), ""))
            if value is None and defaults.get(name) is None:
                continue
            if not isinstance(value, kinds) or (isinstance(value, bool) and kinds[-1] is Real):
                raise TypeError(f"{name} must be {words}, got {reprlib.repr(value)}")
            if isinstance(value, str) and ("\0" in value or (kinds is _NAME[0] and not value)):
                raise ValueError(f"{name} must not be empty or hold a zero byte, got {value!r}")
        return function(*args, **kwargs)

    return call


_MIXED = "inputs must be all names of files, or all frames in memory; call predict for each kind"


class ModelOptions(TypedDict, total=False):
    """Which model runs, and where; what is left out is as in the commands."""

    model: DualFormer
    """Made by `create_model`, in place of preset and weights."""
    preset: Name
    """A preset's name or YAML file."""
    weights: Name
    """A file, hf://OWNER/NAME[@REVISION][:FILE], "published" or "random"."""
    settings: Mapping[str, object]
    """Configuration keys, as {"data.clip.num_frames": 16}."""
    device: str
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    compile: bool
    seed: int
    views: tuple[int, int]
    """Clips and crops of a video."""
    offline: bool
    """Never use the network; without it DUALFORMER_OFFLINE says."""


@_checked
def create_model(
    preset: Name, *, num_classes: int | None = None, pretrained: bool = False, offline: bool | None = None
) -> DualFormer:
    """Create a model, which knows its `input_size`, `mean`, `std` and `class_names`.

    Args:
        preset: a size (tiny, small, base), a preset name or a preset file; with `pretrained` also what brings its
            configuration along: a checkpoint, an exported file, or hf://OWNER/NAME[@REVISION][:FILE].
        num_classes: outputs of the classifier; the preset's when None. With `pretrained` another number than the
            weights' makes a fresh classifier.
        pretrained: take the published weights, fetching them once; else they are random, which is said once.
        offline: fail instead of fetching; None takes DUALFORMER_OFFLINE.

    Returns:
        An nn.Module: clips (b, 3, T, H, W), normalised, to logits (b, num_classes); T, H, W are the preset's. A
        pretrained one is in evaluation mode.

    Raises:
        ConfigError: if there is no such preset or the number of classes is below 1.
        DualFormerError: if the weights cannot be had or do not fit.
    """
    from dualformer_cli.engine.build import build_model

    name = os.fspath(preset)
    if pretrained:
        return _pretrained(name, num_classes, offline=_is_offline(offline))
    if _is_weights(name):
        raise ConfigError(f"{name!r} is a file of weights: take them with create_model({name!r}, pretrained=True)")
    _say_random()
    overrides = [] if num_classes is None else [f"model.num_classes={num_classes}", "data.classes=null"]
    resolved = load_config(name, overrides=overrides)
    config = resolved.config
    names = None if config.data.classes is None else load_class_names(config.data.classes)
    return _described(build_model(config.model, config.data, kernels=config.runtime.kernels), resolved, names)


@_checked
def load_weights(
    model: DualFormer, source: Name | Mapping[str, Any], *, strict: bool = True, offline: bool | None = None
) -> LoadReport:
    """Load published or own weights into a model, which takes over the class names that they bring along.

    Args:
        model: the model to fill.
        source: a file (.pth, .pt, .safetensors), hf://OWNER/NAME[@REVISION][:FILE], or a state dict, bare or wrapped
            as in a training checkpoint.
        strict: every tensor of the model must be found and none may be left over, except those of heads for training
            that the model does not have. When False, tensors that are missing or of another shape keep their values.
        offline: fail instead of fetching; None takes DUALFORMER_OFFLINE.

    Returns:
        Names of the tensors loaded, fresh and unused.

    Raises:
        WeightsError: if the file cannot be read or the tensors do not fit; the message says which and what to do.
        DownloadError: if it cannot be fetched.
    """
    from dualformer_cli.model import weights
    from dualformer_cli.model.dualformer import DualFormer

    if not isinstance(model, DualFormer):
        raise TypeError(f"model must be one that create_model made, got {type(model).__name__}")
    if isinstance(source, Mapping):
        return weights.load_weights(model, source, strict=strict)
    name = os.fspath(source)
    checkpoint = weights.read_checkpoint(local_weights(name, offline=_is_offline(offline)))
    report = weights.load_weights(model, checkpoint, strict=strict, name=name)
    names = weights.class_names_of(checkpoint)
    if names is not None and len(names) == model.num_classes and "classifier.weight" in report.loaded:
        model.class_names = names
    return report


@_checked
def predict(
    inputs: Name | Frames | Iterable[Name | Frames],
    *,
    fps: float | None = None,
    top_k: int = TOP_K,
    every_seconds: float | None = None,
    min_score: float | None = None,
    **options: Unpack[ModelOptions],
) -> Predictions:
    """Classify videos: files, or frames in memory.

    Args:
        inputs: what the command takes (files, folders, patterns, addresses), one or several; or frames in memory: a
            video as uint8 (T, H, W, 3), an iterable of such videos, or an iterator of one video's frames (H, W, 3).
            Frames of an iterator are made small as they come, and never all in memory. Files and frames do not mix.
        fps: of frames in memory; a timeline needs it.
        top_k: labels per video.
        every_seconds: length of the segments of a timeline; None for none.
        min_score: a best label below it is unsure, 0 to 1; None for what the model says.
        **options: which model, and where.

    Returns:
        The document, on rank 0; a video that cannot be used is a result with its error.

    Raises:
        TypeError, ValueError: if inputs are of another kind, frames not uint8 with 3 colours, an option of the call is
            out of its range, or a timeline of frames is asked for without fps.
        DualFormerError: if the model cannot be had.
    """
    wanted = PredictRequest(model=_request(options), top_k=top_k, every_seconds=every_seconds, min_score=min_score)
    if isinstance(inputs, str | PathLike):
        inputs = [inputs]
    elif isinstance(inputs, bytes) or not (isinstance(inputs, Iterable) or hasattr(inputs, "__array__")):
        raise TypeError(f"inputs must be names of files, or frames in memory; got {type(inputs).__name__}")
    elif hasattr(inputs, "__array__"):
        array = np.asarray(inputs)
        if array.ndim not in (4, 5):
            raise ValueError(f"a video in memory must be uint8 of shape (T, H, W, 3), got {array.dtype} {array.shape}")
        inputs = array if array.ndim == 5 else [array]
    iterator = iter(inputs)
    first = next(iterator, None)
    if first is None:
        raise ValueError("there are no inputs")
    whole = chain([first], iterator)
    if _is_name(first):
        if fps is not None:
            raise ValueError(f"fps is said of frames in memory; {first!r} has its own")
        return _predict_files(whole, wanted)
    videos = cast(Iterable[Any], [whole] if np.ndim(cast(Any, first)) == 3 else whole)
    return _predict_frames(videos, wanted, fps)


@_checked
def evaluate(
    data: Name | None = None,
    *,
    dump: Name | None = None,
    report: Name | None = None,
    overwrite: bool = False,
    **options: Unpack[ModelOptions],
) -> Evaluation | None:
    """Score a list of videos.

    Args:
        data: the list; None for the one that the configuration names.
        dump: file for labels and scores of all views, as JSON lines.
        report: file for a page to look at, HTML.
        overwrite: whether files that exist may be replaced.
        **options: which model, and where.

    Returns:
        The document; None on other ranks than 0.

    Raises:
        DualFormerError: if the list or the model cannot be read, or a file not be written.
    """
    from dualformer_cli.tasks import evaluate as task

    request = task.EvaluateRequest(
        model=_request(options),
        data=None if data is None else os.fspath(data),
        dump=None if dump is None else Path(dump),
        report=None if report is None else Path(report),
        overwrite=overwrite,
    )
    return task.evaluate(request)


@_checked
def train(
    data: Name | None = None,
    validation: Name | None = None,
    *,
    output: Name = "runs/train",
    resume: bool = False,
    init_from: Name | None = None,
    teacher: Name | None = None,
    log: str | Sequence[str] = (),
    on_event: Callable[[TrainEvent], None] = lambda event: None,
    **options: Unpack[ModelOptions],
) -> TrainResult | None:
    """Train the recipe of a preset to its last epoch.

    Args:
        data: training list; None for the one that the configuration names, as for the next.
        validation: validation list.
        output: the run folder.
        resume: go on from the run folder's last checkpoint.
        init_from: video weights to start from: a file, a preset, or hf://OWNER/NAME[@REVISION][:FILE].
        teacher: labels every token while training: a file, a preset, or an address.
        log: experiment trackers that get the numbers of log.jsonl: "tensorboard", "wandb", "mlflow", or several.
        on_event: called with everything that happens, as it is written to log.jsonl, on rank 0.
        **options: which recipe, and where.

    Returns:
        The result; None on other ranks than 0.

    Raises:
        ValueError: if a model is given, as training makes its own.
        Stopped: a signal came; the state is saved.
        DualFormerError: the request or the data are wrong, the loss is not a number, the disk is full.
    """
    from dualformer_cli.tasks import train as task

    if "model" in options:
        raise ValueError("train makes its own model; name a preset, and its first weights with init_from")
    trackers = (log,) if isinstance(log, str) else tuple(log)
    if not all(isinstance(name, str) for name in trackers):
        raise TypeError(f"log must be names of trackers, got {reprlib.repr(log)}")
    request = task.TrainRequest(
        model=_request(options),
        training_list=None if data is None else os.fspath(data),
        validation_list=None if validation is None else os.fspath(validation),
        output=Path(output),
        resume=resume,
        init_from=None if init_from is None else os.fspath(init_from),
        teacher=None if teacher is None else os.fspath(teacher),
        log=trackers,
    )
    return task.train(request, on_event=on_event)


@_checked
def gradcam(
    video: Name,
    *,
    layer: str = GRADCAM_LAYER,
    class_: str | int | None = None,
    out: Name | None = None,
    npz: Name | None = None,
    overwrite: bool = False,
    **options: Unpack[ModelOptions],
) -> Gradcam:
    """Draw where in a video a model sees a class.

    Args:
        video: a video file or a folder of frames.
        layer: STAGE/BLOCK or last.
        class_: name or number of the class; None for the one with the best score.
        out: picture or video to draw, .gif, .mp4 or .png; None for NAME.gradcam.gif in the current folder.
        npz: file for the maps as arrays.
        overwrite: whether files that exist may be replaced.
        **options: which model, and where.

    Raises:
        DualFormerError: if there is no such layer or class, the video or the model cannot be read, or a file could not
            be written or should not be replaced.
    """
    from dualformer_cli.tasks import gradcam as task

    request = task.GradcamRequest(
        model=_request(options),
        video=os.fspath(video),
        layer=layer,
        class_=None if class_ is None else str(class_),
        out=None if out is None else Path(out),
        npz=None if npz is None else Path(npz),
        overwrite=overwrite,
    )
    return task.gradcam(request, on_fallback=_LOGGER.warning)


def _request(options: ModelOptions) -> ModelRequest:
    """Return what the options of a call say about its model."""
    known = ModelOptions.__annotations__
    if unknown := [name for name in options if name not in known]:
        raise TypeError(f"unknown option {unknown[0]!r}; known: {', '.join(known)}")
    if options.get("model") is not None:
        _check_model(options)
    settings, views = options.get("settings", {}), options.get("views")
    if not isinstance(settings, Mapping):
        raise TypeError(f'settings must be keys with values, as {{"data.clip.num_frames": 16}}; got {settings!r}')
    if views is not None and (not isinstance(views, tuple | list) or len(views) != 2):
        raise ValueError(f"views must be the numbers of clips and crops, as (4, 3); got {views!r}")
    given = cast(Any, {name: value for name, value in options.items() if name != "settings"})
    given |= {name: os.fspath(given[name]) for name in ("preset", "weights") if given.get(name) is not None}
    overrides = tuple(f"{key}={_text(value)}" for key, value in settings.items())
    return ModelRequest(**{**given, "overrides": overrides, "offline": _is_offline(options.get("offline"))})


def _check_model(options: ModelOptions) -> None:
    """Refuse what `create_model` did not make, and a second word on which model runs."""
    from dualformer_cli.model.dualformer import DualFormer

    model = options["model"]
    if not isinstance(model, DualFormer) or model.config is None:
        raise TypeError(f"model must be one that create_model made, got {type(model).__name__}")
    if second := next((name for name in ("preset", "weights") if options.get(name) is not None), None):
        raise ValueError(f"model says already which model runs; leave {second} out")


def _text(value: object) -> str:
    """Return a value as --set takes it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _is_offline(offline: bool | None) -> bool:
    if offline is not None:
        return offline
    return os.environ.get("DUALFORMER_OFFLINE", "").lower() not in ("", "0", "false", "no", "off")


def _is_name(value: object) -> TypeGuard[Name]:
    return isinstance(value, str | PathLike)


def _predict_files(names: Iterable[object], request: PredictRequest) -> Predictions:
    from dualformer_cli.tasks import predict as task

    listed = list(names)
    inputs = tuple(os.fspath(name) for name in listed if _is_name(name))
    if len(inputs) < len(listed):
        raise TypeError(_MIXED)
    wanted = replace(request, inputs=inputs)
    return cast(Predictions, task.predict(wanted, on_fallback=_LOGGER.warning))


def _predict_frames(videos: Iterable[Iterable[Frames]], request: PredictRequest, fps: float | None) -> Predictions:
    every, least = request.every_seconds, request.min_score
    if every is not None and fps is None:
        raise ValueError("a timeline of frames in memory needs their fps")
    with open_session(request.model, default=DEFAULT_PRESET, num_workers=1) as session:
        from dualformer_cli.tasks.built_in_model import fall_back  # loads torch

        quiet = lambda: nullcontext(lambda name, done, total: None)  # noqa: E731
        fall_back(session, quiet, _LOGGER.warning)
        engine = session.load_engine(quiet, bf16_on_cpu=True)
        score = partial(engine.predict_frames, fps=fps, top_k=request.top_k, every_seconds=every, min_score=least)
        results = []
        for number, video in enumerate(videos):
            if _is_name(video):
                raise TypeError(_MIXED)
            results.append(score(video, name=f"video {number}").result)
        return Predictions(facts=engine.describe(), fallback=session.fallback, results=tuple(results))


def _is_weights(name: str) -> bool:
    return is_hub_address(name) or name.endswith(WEIGHTS_SUFFIXES)


def _pretrained(name: str, num_classes: int | None, *, offline: bool) -> DualFormer:
    """Return a model with the weights of a preset, or of a file that brings its configuration along."""
    preset, weights = (None, name) if _is_weights(name) else (name, None)
    request = ModelRequest(preset=preset, weights=weights, device="cpu", precision="fp32", offline=offline)
    engine = load_engine(request)
    model = _described(engine.model, engine.resolved, None if engine.is_nameless else list(engine.class_names))
    if num_classes is None or num_classes == model.num_classes:
        return model
    from torch import nn

    model.num_classes, model.class_names = num_classes, None
    model.classifier = nn.Linear(model.classifier.in_features, num_classes)
    nn.init.trunc_normal_(model.classifier.weight, std=0.02)
    nn.init.zeros_(model.classifier.bias)
    overrides = [f"model.num_classes={num_classes}", "data.classes=null"]
    model.config = to_yaml(load_config(engine.preset, text=model.config, overrides=overrides, environ={}).config)
    return model


def _described(model: DualFormer, resolved: ResolvedConfig, class_names: Sequence[str] | None) -> DualFormer:
    """Return the model, which now knows what it was made from."""
    data = resolved.config.data
    model.preset, model.config = resolved.preset, to_yaml(resolved.config)
    model.mean, model.std = data.mean, data.std
    model.class_names = None if class_names is None else list(class_names)
    return model


@cache
def _say_random() -> None:
    _LOGGER.warning(
        "the model has random weights: take published ones with create_model(..., pretrained=True), or load_weights"
    )
