"""What a command needs of lists, weights and devices, and this machine lacks: all of it at once, before any work."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from dualformer_cli.config.schema import RENDERED, DataConfig, RunConfig
from dualformer_cli.data.datasets.catalogue import load_catalogue
from dualformer_cli.data.fetch.hugging_face import check_timm, is_hub_address, local_weights
from dualformer_cli.data.fetch.weights import SHIPPED_WEIGHTS, cached_weights
from dualformer_cli.data.lists.manifest import check_list
from dualformer_cli.errors import DownloadError, DualFormerError, MissingError, WeightsError
from dualformer_cli.system.threads import usable_cores


def check_needs(
    config: RunConfig, *, is_resumed: bool, offline: bool, gpus: int | None = None, cpu_processes: int | None = None
) -> None:
    """Refuse a run that lacks lists, weights or devices.

    Args:
        config: of the run.
        is_resumed: whether it has its weights already.
        offline: whether weights may not be fetched.
        gpus: processes with a GPU each, where they are asked for.
        cpu_processes: processes without.

    Raises:
        DualFormerError: with everything that is missing, and what brings it.
    """
    train = config.train
    starts = () if is_resumed else (("train.init_from", train.init_from), ("train.pretrained_2d", train.pretrained_2d))
    _refuse(
        *_training_list(config.data, offline=offline),
        *_lists(config.data.validation_list, offline=offline),
        *_devices(gpus, cpu_processes),
        *_weights((*starts, ("train.teacher", train.teacher)), offline),
        *_timm(config if not is_resumed and train.init_from is None else None, offline),
        *_token_labels(train.token_labels),
    )


def check_lists(*sources: str | None, offline: bool) -> None:
    """Refuse lists that are not there, or on another machine that may not be asked.

    Raises:
        DualFormerError: with each of them.
    """
    _refuse(*_lists(*sources, offline=offline))


def check_label_needs(config: RunConfig, *, teacher: str | None, offline: bool) -> None:
    """Refuse token labels of a list or by a teacher that is not there.

    Raises:
        DualFormerError: with everything that is missing.
    """
    needed = [("train.teacher", teacher or config.train.teacher)]
    _refuse(*_training_list(config.data, offline=offline), *_weights(needed, offline))


def _refuse(*problems: str) -> None:
    if len(problems) > 1:
        raise MissingError(problems)
    if problems:
        raise DualFormerError(problems[0])


def _training_list(data: DataConfig, *, offline: bool) -> Iterator[str]:
    if data.train_list is None:
        dataset = data.classes if data.classes in load_catalogue().datasets else None
        published = f"`dualformer download {dataset} && dualformer prepare {dataset}` makes the preset's, "
        yield (
            f"there is no training list; {'' if dataset is None else published}`dualformer prepare FOLDER` makes one "
            "of your own videos; give it with --data LIST"
        )
    yield from _lists(data.train_list, offline=offline)


def _lists(*sources: str | None, offline: bool) -> Iterator[str]:
    for source in sources:
        if source is not None and source != RENDERED:
            try:
                check_list(source, offline=offline)
            except DualFormerError as error:
                yield str(error)


def _devices(gpus: int | None, cpu_processes: int | None) -> Iterator[str]:
    if gpus or (cpu_processes or 0) > usable_cores():  # loading torch for nothing takes two seconds
        from dualformer_cli.engine.parallel.launch import lack_of_devices

        if lack := lack_of_devices(gpus or cpu_processes or 1, "cuda" if gpus else "cpu"):
            yield lack


def _weights(named: Iterable[tuple[str, str | None]], offline: bool) -> Iterator[str]:
    """Say which weights are not here, of configuration keys and their values."""
    published = load_catalogue().weights
    for key, source in named:
        if source is None or source in ("timm", *SHIPPED_WEIGHTS):
            continue
        if os.path.isdir(source) or (is_hub_address(source) and offline):
            yield from _not_there(source)
        elif is_hub_address(source):
            continue  # fetched on the way
        elif source in published:
            if offline and cached_weights(source) is None:
                yield f"the weights {source!r} ({key}) are not here; `dualformer download {source}` fetches them"
        elif not os.path.isfile(source):
            yield f"the weights {source!r} ({key}) are not here; name a file or one of {', '.join(published)}"


def _timm(config: RunConfig | None, offline: bool) -> Iterator[str]:
    """Say what a run that starts from timm's image weights lacks; None is one that starts otherwise."""
    if config is not None and config.train.pretrained_2d == "timm":
        try:
            check_timm(config.model.embed_dims, offline=offline)
        except (DownloadError, WeightsError) as error:
            yield str(error)


def _not_there(source: str) -> Iterator[str]:
    """Say what an address of the Hub lacks in its cache, or a folder in itself."""
    try:
        local_weights(source, offline=True)
    except (DownloadError, WeightsError) as error:
        yield str(error)


def _token_labels(folder: str | None) -> Iterator[str]:
    if folder is not None and not os.path.isdir(folder):
        yield f"the token labels {folder!r} are not here; `dualformer tokenlabel write` makes them"
