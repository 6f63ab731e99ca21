"""The lists of a run: the one to train with and the one to validate with, checked against the configuration."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from dualformer_cli.config.load import ResolvedConfig
from dualformer_cli.config.metric_table import best_metrics
from dualformer_cli.config.schema import RENDERED, RunConfig
from dualformer_cli.data.camera_motion.rendered_source import check_rendering, picture_files, rendered_list
from dualformer_cli.data.lists.class_lists import load_class_names
from dualformer_cli.data.lists.model_labels import open_list
from dualformer_cli.data.lists.samples import LabelledList
from dualformer_cli.errors import ConfigError
from dualformer_cli.system.words import counted
from dualformer_cli.video.tar_members import is_shard_name


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingLists:
    """What a run trains and validates with."""

    training: LabelledList
    validation: LabelledList | None
    pictures: tuple[str, ...] = ()
    """Files that clips are rendered of, where they are rendered."""

    @property
    def is_rendered(self) -> bool:
        """Whether clips are rendered on the way."""
        return self.training.source == RENDERED


def open_lists(resolved: ResolvedConfig) -> tuple[TrainingLists, RunConfig]:
    """Open the lists that a configuration names.

    Returns:
        The lists, and the configuration with the classes of the training list, and with paths that are right from
        any folder: it goes into checkpoints and config.yaml.

    Raises:
        DualFormerError: if a list cannot be read or does not fit the configuration or the other list.
    """
    data = resolved.config.data
    check_rendering(data, resolved.config.train)
    pictures = picture_files(data.render.pictures) if data.train_list == RENDERED else ()
    training, config = open_training_list(resolved, pictures)
    _require_classes(training)
    validation = None
    if data.validation_list is not None:
        of = f"the training list {training.source!r}"
        validation = open_list(config.data, data.validation_list, class_names=training.class_names, of=of)
    return TrainingLists(training=training, validation=validation, pictures=pictures), _right_from_anywhere(config)


def open_training_list(resolved: ResolvedConfig, pictures: tuple[str, ...] = ()) -> tuple[LabelledList, RunConfig]:
    """Open the training list; a list that brings its own classes rebuilds the classifier unless the user set it.

    Raises:
        ConfigError: without a list, or if its classes contradict the configuration.
    """
    config = resolved.config
    if config.data.train_list is None:
        raise ConfigError("there is no training list; give --data LIST or --set data.train_list=LIST")
    if config.data.train_list == RENDERED:
        opened, unlabelled = rendered_list(config.data, pictures), 0
    else:
        opened = open_list(config.data, config.data.train_list, class_names=None, usable_only=True)
        unlabelled = sum(not labels for labels in opened.labels)
    if unlabelled:
        raise ConfigError(
            f"{unlabelled:,} of the {counted(len(opened), 'video')} of the training list {config.data.train_list!r} "
            f"{'has' if unlabelled == 1 else 'have'} no label; "
            "give every video one"
        )
    known = best_metrics(is_multi_label=config.data.multi_label)
    if config.data.validation_list is not None and config.train.best_metric not in known:
        allowed = known[0] if len(known) == 1 else f"one of {', '.join(known)}"
        raise ConfigError(
            f"train.best_metric must be {allowed} when data.multi_label is "
            f"{str(config.data.multi_label).lower()}, got {config.train.best_metric!r}"
        )
    if len(opened.class_names) != config.model.num_classes:
        if resolved.origins["model.num_classes"] in ("flag", "--set"):
            raise ConfigError(
                f"model.num_classes is {config.model.num_classes}, but {config.data.train_list!r} has "
                f"{counted(len(opened.class_names), 'class')}; leave model.num_classes out, or give "
                "the list that belongs to it"
            )
        config = replace(config, model=replace(config.model, num_classes=len(opened.class_names)))
    if config.data.classes is not None and load_class_names(config.data.classes) != opened.class_names:
        config = replace(config, data=replace(config.data, classes=None))  # the checkpoint has the names
    return opened, config


def _right_from_anywhere(config: RunConfig) -> RunConfig:
    """Return the configuration with absolute paths of what a resumed run or an evaluation reads again.

    Names of presets and of shipped class lists stay, also where a folder is called so.
    """
    data, train = config.data, config.train
    data = replace(
        data,
        train_list=_absolute(data.train_list),
        validation_list=_absolute(data.validation_list),
        root=_absolute(data.root, is_path=os.path.isdir),
        classes=_absolute(data.classes),
    )
    labels = _absolute(train.token_labels, is_path=os.path.isdir)
    return replace(config, data=data, train=replace(train, teacher=_absolute(train.teacher), token_labels=labels))


def _absolute(path: str | None, *, is_path: Callable[[str], bool] = os.path.isfile) -> str | None:
    if path is None or not (is_path(path) or (is_shard_name(path) and "://" not in path)):
        return path
    return os.path.abspath(path)


def overlap(training: LabelledList, validation: LabelledList | None) -> list[str]:
    """Return a sentence that says how many videos are in both lists, which makes results too good, if any is."""
    if validation is None or validation.source == RENDERED or training.source == RENDERED:
        return []
    files = set(validation.files).intersection(training.files)  # mostly none, and a set of all parts would be large
    parts = {(file, training.samples[row].part[::2]) for row, file in enumerate(training.files) if file in files}
    rows = zip(validation.files, validation.samples, strict=True)
    both = [sample.path for file, sample in rows if file in files and (file, sample.part[::2]) in parts]
    if not both:
        return []
    videos = f"{counted(len(both), 'video')} of the validation list {'trains' if len(both) == 1 else 'train'} too"
    return [f"{videos}, such as {both[0]!r}: its results will be too good"]


def _require_classes(listed: LabelledList) -> None:
    """Refuse a list from which no class can be told from another.

    Raises:
        ConfigError: naming the class.
    """
    used = {label for of_video in listed.labels for label in of_video}
    if len(used) == 1 and not listed.multi_label:
        every = "the one video" if len(listed) == 1 else f"all {len(listed):,} videos"
        raise ConfigError(
            f"{every} of the training list {listed.source!r} {'is' if len(listed) == 1 else 'are'} of one class, "
            f"{listed.class_names[used.pop()]!r}: there is nothing to tell it from. If the list was made of a folder "
            "that holds the folder of class folders, name the inner one"
        )
