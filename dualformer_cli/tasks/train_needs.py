"""What a run of `train` needs and this machine lacks, all of it at once."""

from __future__ import annotations

import os
from collections.abc import Iterator

from dualformer_cli.config.schema import RENDERED, RunConfig
from dualformer_cli.data.datasets.catalogue import load_catalogue
from dualformer_cli.data.fetch.hub import is_hub_address
from dualformer_cli.data.fetch.weights import SHIPPED_WEIGHTS, cached_weights
from dualformer_cli.data.lists.manifest import check_list
from dualformer_cli.errors import DualFormerError, MissingError
from dualformer_cli.system.threads import usable_cores
from dualformer_cli.video.tar_members import is_shard_name


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
    problems = [*_lists(config), *_devices(gpus, cpu_processes), *_weights(config, is_resumed, offline)]
    if len(problems) > 1:
        raise MissingError(problems)
    if problems:
        raise DualFormerError(problems[0])


def _lists(config: RunConfig) -> Iterator[str]:
    data = config.data
    if data.train_list is None:
        dataset = data.classes if data.classes in load_catalogue().datasets else None
        published = f"`dualformer download {dataset} && dualformer prepare {dataset}` makes the preset's, "
        yield (
            f"there is no training list; {'' if dataset is None else published}`dualformer prepare FOLDER` makes one "
            "of your own videos; give it with --data LIST"
        )
    for source in (data.train_list, data.validation_list):
        if source is not None and source != RENDERED and not is_shard_name(source):
            try:
                check_list(source)
            except DualFormerError as error:
                yield str(error)


def _devices(gpus: int | None, cpu_processes: int | None) -> Iterator[str]:
    if gpus or (cpu_processes or 0) > usable_cores():  # loading torch for nothing takes two seconds
        from dualformer_cli.engine.parallel.launch import lack_of_devices

        if lack := lack_of_devices(gpus or cpu_processes or 1, "cuda" if gpus else "cpu"):
            yield lack


def _weights(config: RunConfig, is_resumed: bool, offline: bool) -> Iterator[str]:
    train = config.train
    starts = () if is_resumed else (("train.init_from", train.init_from), ("train.pretrained_2d", train.pretrained_2d))
    published = load_catalogue().weights
    for key, source in (*starts, ("train.teacher", train.teacher)):
        if source in published:
            if offline and cached_weights(source) is None:
                yield f"the weights {source!r} ({key}) are not here; `dualformer download {source}` fetches them"
        elif source is None or source in ("timm", *SHIPPED_WEIGHTS) or is_hub_address(source):
            continue
        elif not os.path.isfile(source):
            yield f"the weights {source!r} ({key}) are not here; name a file or one of {', '.join(published)}"
    if train.token_labels is not None and not os.path.isdir(train.token_labels):
        yield f"the token labels {train.token_labels!r} are not here; `dualformer tokenlabel write` makes them"
