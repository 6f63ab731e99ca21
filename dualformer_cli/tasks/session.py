"""The one opening of whatever runs a model: configuration, worker processes, ranks, weights, engine.

It loads torch only when the worker processes are on their way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dualformer_cli.config.load import ResolvedConfig, load_config
from dualformer_cli.engine.parallel.decoders import num_decoders
from dualformer_cli.engine.parallel.decoding_card import use_decoding_card
from dualformer_cli.errors import WeightsError
from dualformer_cli.system.workers import WorkerPool

if TYPE_CHECKING:
    from dualformer_cli.data.fetch.fetch import OnFileBytes
    from dualformer_cli.engine.engine import Engine
    from dualformer_cli.engine.parallel.ranks import Ranks
    from dualformer_cli.model.dualformer import DualFormer

_LOGGER = logging.getLogger(__name__)

DEFAULT_PRESET = "k400-tiny"
"""Model of a task that needs no preset."""


Fetching = Callable[[], AbstractContextManager["OnFileBytes"]]
"""Opens a display of files that are fetched; what it gives is called with a name, bytes so far, and bytes in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """Which model runs, and where. What is None is left to the configuration."""

    preset: str | None = None
    """A preset's name or YAML file; None for the one that the weights bring along, else the task's own."""
    weights: str | None = None
    """A file, a preset with published weights, an address of the Hub (hf://OWNER/NAME[@REVISION][:FILE]), "published"
    or "random"."""
    overrides: tuple[str, ...] = ()
    """Configuration keys, each "dotted.key=value"."""
    device: str | None = None
    """auto, cpu, cuda or cuda:INDEX."""
    precision: str | None = None
    """auto, fp32, bf16 or fp16."""
    compile: bool | None = None
    seed: int | None = None
    views: tuple[int, int] | None = None
    """Clips and crops of a video."""
    offline: bool = False
    """Never use the network."""
    model: DualFormer | None = None
    """Made by `create_model`, to run as it is; preset and weights do not count then."""

    def settings(self) -> dict[str, object]:
        """Return the configuration keys that are given, dotted, with their values."""
        clips, crops = self.views or (None, None)
        keys = {
            "weights": self.weights,
            "runtime.device": self.device,
            "runtime.precision": self.precision,
            "runtime.compile": self.compile,
            "runtime.seed": self.seed,
            "data.test.num_clips": clips,
            "data.test.num_crops": crops,
        }
        return {key: value for key, value in keys.items() if value is not None}


def resolve(
    request: ModelRequest,
    settings: Mapping[str, object] | None = None,
    *,
    default: str | None = None,
    text: str | None = None,
) -> ResolvedConfig:
    """Return the configuration that a request describes.

    Args:
        request: the model.
        settings: more dotted keys; a value of None means that the key is not given.
        default: preset to take where none is named and the weights do not bring one.
        text: YAML of the preset that is named, where that is no file.

    Raises:
        ConfigError: an unknown preset or key, or a value that is not allowed.
        WeightsError: weights that should bring their configuration and cannot be read.
    """
    return _resolve(request, settings or {}, default, text)[0]


def load_engine(
    request: ModelRequest,
    settings: Mapping[str, object] | None = None,
    *,
    fetching: Fetching = lambda: nullcontext(lambda name, done, total: None),
) -> Engine:
    """Load a model with its weights in this process alone, without workers.

    Args:
        request: the model.
        settings: as those of `resolve`.
        fetching: shows how far a file is.

    Raises:
        DualFormerError: if weights, class names or the device do not fit, or nothing says which model it is.
    """
    resolved, checkpoint = _resolve(request, settings or {}, None)
    _require_file(resolved.config.weights)
    if resolved.preset == "default":
        raise WeightsError(f"weights {request.weights!r} do not say which model they are of; name its --preset")
    from dualformer_cli.engine.engine import Engine

    with fetching() as progress:
        return Engine(
            resolved,
            offline=request.offline,
            progress=partial(progress, resolved.preset),
            checkpoint=checkpoint,
            model=request.model,
        )


@contextmanager
def open_session(
    request: ModelRequest,
    settings: Mapping[str, object] | None = None,
    *,
    default: str | None = None,
    num_workers: int | None = None,
    preload: str = "dualformer_cli.data.clips.views",
) -> Iterator[Session]:
    """Start worker processes, load torch while they start, and join the other ranks; leave all at the end.

    Args:
        request: the model.
        settings: as those of `resolve`.
        default: as that of `resolve`.
        num_workers: processes that decode; `num_decoders` of them when None.
        preload: what they import before their first job.

    Raises:
        DualFormerError: what `resolve`, `use_decoding_card` and `init_ranks` raise.
    """
    resolved, checkpoint = _resolve(request, settings or {}, default)
    _require_file(resolved.config.weights)
    runtime = resolved.config.runtime
    use_decoding_card(resolved.config.data.decoder, runtime.device)
    workers = num_decoders(resolved) if num_workers is None else num_workers
    with WorkerPool(workers, resolved.config.data.decode_timeout_seconds, preload=[preload]) as pool:
        from dualformer_cli.engine.parallel.ranks import init_ranks

        with init_ranks(runtime.device, timeout=runtime.exchange_seconds()) as ranks:
            session = Session(request, resolved, checkpoint, pool, ranks)
            del checkpoint  # the engine frees it once the model has its values
            yield session


class Session:
    """What a task works with: its configuration, a pool of decoding processes, this process among the ranks."""

    def __init__(
        self,
        request: ModelRequest,
        resolved: ResolvedConfig,
        checkpoint: Mapping[str, Any] | None,
        pool: WorkerPool,
        ranks: Ranks,
    ) -> None:
        self.request, self.resolved, self.pool, self.ranks = request, resolved, pool, ranks
        self.fallback: str | None = None
        """Why the configuration is not that of the default preset."""
        self._checkpoint = checkpoint

    def load_engine(self, fetching: Fetching, *, bf16_on_cpu: bool = False) -> Engine:
        """Load the model with its weights, fetching them if they are not here.

        Args:
            fetching: shows how far a file is.
            bf16_on_cpu: let precision auto be bf16 on a CPU too, where that is faster.

        Raises:
            DualFormerError: if weights, class names or the device do not fit.
        """
        from dualformer_cli.engine.engine import Engine

        checkpoint, self._checkpoint = self._checkpoint, None
        with fetching() as progress:
            return Engine(
                self.resolved,
                offline=self.request.offline,
                progress=partial(progress, self.resolved.preset),
                device=self.ranks.device,
                bf16_on_cpu=bf16_on_cpu,
                checkpoint=checkpoint,
                model=self.request.model,
            )


def _require_file(weights: str | None) -> None:
    """Refuse a name of weights that leads to nothing, before torch loads."""
    from dualformer_cli.data.fetch.hugging_face import is_hub_address
    from dualformer_cli.data.fetch.weights import preset_of, require_weights

    if weights not in (None, "published", "random") and not is_hub_address(weights) and preset_of(weights) is None:
        require_weights(weights)


def _resolve(
    request: ModelRequest, settings: Mapping[str, object], default: str | None, text: str | None = None
) -> tuple[ResolvedConfig, Mapping[str, Any] | None]:
    """Return the configuration, and the content of the file of weights if that had to be read for it."""
    given = {key: value for key, value in settings.items() if value is not None}
    if (model := request.model) is not None:
        flags = {**request.settings(), **given}
        return load_config(model.preset, overrides=request.overrides, flags=flags, text=model.config), None
    preset, checkpoint = request.preset, None
    _require_file(request.weights)
    if request.weights is not None and request.weights not in ("published", "random"):
        from dualformer_cli.data.fetch.hugging_face import local_weights
        from dualformer_cli.data.fetch.weights import preset_of

        named = preset_of(request.weights)
        path = local_weights(request.weights, offline=request.offline)
        if preset is None and named is None and path.is_file():
            from dualformer_cli.model.weights import config_of, read_checkpoint

            checkpoint = read_checkpoint(path)
            text = config_of(checkpoint)
            preset = None if text is None else request.weights
        preset = named if preset is None else preset
    flags = {**request.settings(), **given}
    preset = default if preset is None else preset
    return load_config(preset, overrides=request.overrides, flags=flags, text=text), checkpoint
