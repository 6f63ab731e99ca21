"""A dataset, a folder of videos or lists become manifests that `train` and `eval` take."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dualformer_cli.config.load import load_config
from dualformer_cli.config.option_defaults import (
    CLASS_DEPTH,
    CONVERTED_SHORT_SIDE,
    DECODE_TIMEOUT_SECONDS,
    JPEG_QUALITY,
    SPLIT_SHARES,
    TRANSCODE_CRF,
)
from dualformer_cli.config.schema import ListFormat
from dualformer_cli.data.datasets.catalogue import load_catalogue
from dualformer_cli.data.datasets.find_videos import DATA
from dualformer_cli.data.datasets.official_lists import prepared_folder, read_dataset
from dualformer_cli.data.lists.folders import Layout, VideoFolder, read_folder
from dualformer_cli.data.lists.labelled_lists import find_export, read_lists
from dualformer_cli.data.lists.manifest import is_export
from dualformer_cli.data.lists.splits import parse_shares
from dualformer_cli.data.prepare import preparation
from dualformer_cli.data.prepare.plan import Plan
from dualformer_cli.data.prepare.work import Watch, unwatched
from dualformer_cli.documents.prepare import Convert, FoundVideos, Preparation, PreparationPlan
from dualformer_cli.errors import DualFormerError, nearest
from dualformer_cli.outputs.sheet import check_sheet, write_sheet
from dualformer_cli.system.threads import usable_cores

if TYPE_CHECKING:
    from dualformer_cli.config.schema import RunConfig
    from dualformer_cli.engine.parallel.ranks import Ranks

Say = Callable[[str], None]
"""Shows a line."""

_QUALITY: Mapping[Convert, int] = {"transcode": TRANSCODE_CRF, "frames": JPEG_QUALITY}
_SHEET_PRESET = "k400-small"
_SHEET_VIDEOS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareRequest:
    """Which videos to prepare, and how."""

    names: tuple[str, ...]
    """A dataset, a folder of videos, or lists of videos."""
    root: Path | None = None
    """Folder that is written; for a dataset the one that `download` wrote; None for a folder beside the videos."""
    check: bool = False
    """Whether to decode every video to its end, and to compare frames reached by seeking."""
    convert: Convert | None = None
    short_side: int = CONVERTED_SHORT_SIDE
    """Larger videos are shrunk to this by a conversion."""
    quality: int | None = None
    """Constant rate factor of transcode, or quality of JPEG; None for the usual."""
    split: str | None = None
    """Shares of train, val and maybe test, such as 0.8/0.1/0.1; None for the usual."""
    seed: int = 0
    """Of the random splits, and of the clips on the sheet."""
    group_pattern: str | None = None
    """Regular expression: videos whose paths agree in it stay in one split."""
    group_column: str | None = None
    """Videos that agree in this column of the table stay in one split."""
    group_look_alikes: bool = False
    labels: str | None = None
    """Table with the labels of a folder's videos."""
    layout: Layout = "auto"
    class_depth: int = CLASS_DEPTH
    """Folder levels that make the class name."""
    multi_label: bool = False
    take_frames: bool = False
    """Whether a dataset's video that is there as a file and in frames is listed as frames."""
    formats: tuple[ListFormat, ...] = ()
    """Older list formats to write beside the manifests."""
    show: Path | None = None
    """PNG with what training sees of some videos."""
    preset: str | None = None
    """Recipe of that; None for k400-small."""
    overrides: tuple[str, ...] = ()
    """Configuration keys of it, each "dotted.key=value"."""
    num_workers: int | None = None
    """Worker processes; None for all cores."""
    timeout_seconds: float = DECODE_TIMEOUT_SECONDS
    """A video without progress for so long is given up."""
    overwrite: bool = False
    """Whether lists, videos and a sheet that are there may be replaced."""


class UselessOptionError(DualFormerError):
    """An option that says what the videos have decided already.

    Args:
        option: as it is spelt on the command line.
        message: what has decided it.
    """

    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = option


def plan_preparation(request: PrepareRequest, *, say: Say = lambda _line: None) -> PreparationPlan | None:
    """Return what `prepare` would do, and write nothing; None on ranks other than 0.

    Raises:
        DualFormerError: if the videos have no labels, or none can be read.
    """
    plan = _plan(request, say)
    with join_ranks() as ranks:
        return preparation.preview(plan) if ranks is None or ranks.is_main else None


def prepare(
    request: PrepareRequest,
    *,
    watch: Watch = unwatched,
    say: Say = lambda _line: None,
    start: Callable[[FoundVideos], None] = lambda _found: None,
) -> Preparation | None:
    """Write manifests of the videos, going on where an earlier run was stopped; ranks share the videos.

    The sheet is only checked: `draw_sheet` writes it.

    Args:
        request: what to do.
        watch: shows progress.
        say: shows a line.
        start: called with what was found, before the work begins.

    Returns:
        What was found and written; None on ranks other than 0.

    Raises:
        UselessOptionError: if the videos are in splits already, and a split is asked for.
        DualFormerError: if the videos have no labels, none can be read, or a file cannot be written or replaced.
    """
    plan = _plan(request, say)
    with join_ranks() as ranks:
        team = preparation.Team()
        if ranks is not None and ranks.world_size > 1:
            from dualformer_cli.engine.parallel.reductions import barrier, gather_objects

            team = preparation.Team(rank=ranks.rank, size=ranks.world_size, wait=barrier)
            machines = gather_objects(platform.node())
            shared = max(1, plan.num_workers // machines.count(platform.node()))
            plan = replace(plan, num_workers=request.num_workers or shared)
        if team.rank:
            preparation.help_prepare(plan, team=team)
            return None
        return preparation.prepare(plan, watch=watch, say=say, start=start, team=team)


def draw_sheet(request: PrepareRequest, prepared: Preparation) -> int:
    """Draw what training sees of some videos to `request.show`, and return the number of clips.

    Raises:
        DualFormerError: if none of the videos can be read, or the file cannot be written.
    """
    from dualformer_cli.tasks.preview import preview_clips  # loads torch

    assert request.show is not None
    found = prepared.summary.found
    config = _sheet_config(request, found.root, list(found.splits))
    clips = preview_clips(config, num_videos=_SHEET_VIDEOS)
    preset = _SHEET_PRESET if request.preset is None else request.preset
    title = f"What {preset} sees in training: random clips, {len(clips)} of {config.data.train_list}"
    write_sheet([(clip.label, clip.path, clip.frames) for clip in clips], request.show, title=title)
    return len(clips)


def dataset_of(name: str) -> str | None:
    """Return the dataset that a name means; None for that of a folder, which has a separator in it if need be.

    Raises:
        DualFormerError: if it is no folder, and nearly the name of a dataset.
    """
    if os.sep in name:
        return None
    catalogue = load_catalogue()
    found = catalogue.dataset_name(name)
    if found is None and not os.path.exists(name) and (hint := nearest(name.lower(), catalogue.datasets)):
        raise DualFormerError(
            f"{name!r} is neither a folder nor a dataset{hint} Datasets: {', '.join(catalogue.datasets)}"
        )
    return found


@contextmanager
def join_ranks() -> Iterator[Ranks | None]:
    """Join the processes that torchrun or srun started; None without them, which is known without loading torch."""
    if not {"RANK", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"} & os.environ.keys():
        yield None
        return
    from dualformer_cli.engine.parallel.ranks import init_ranks

    with init_ranks("cpu") as ranks:
        yield ranks


def _plan(request: PrepareRequest, say: Say) -> Plan:
    """Return the videos that there are and what is to become of them, once a sheet that is asked for can be drawn."""
    content, root = _read_content(request, say)
    for given, option in ((request.split is not None, "--split"), (request.group_look_alikes, "--group-look-alikes")):
        if given and content.videos[0].split is not None:
            raise UselessOptionError(option, f"{content.layout} decide already")
    plan = Plan(
        content=content,
        root=str(root),
        shares=parse_shares(request.split or SPLIT_SHARES),
        seed=request.seed,
        group_look_alikes=request.group_look_alikes,
        check=request.check,
        convert=request.convert,
        short_side=request.short_side,
        quality=request.quality or _QUALITY[request.convert or "frames"],
        formats=request.formats,
        overwrite=request.overwrite,
        num_workers=request.num_workers or usable_cores(),
        timeout_seconds=request.timeout_seconds,
    )
    if request.show is not None:
        check_sheet(request.show, [*request.names, *plan.sources], overwrite=request.overwrite, made=plan.root)
        _sheet_config(request, plan.root, [each.name for each in plan.lists if each.rows])
    return plan


def _read_content(request: PrepareRequest, say: Say) -> tuple[VideoFolder, Path]:
    """Return the labelled videos, and the folder to write."""
    name, root = request.names[0], request.root
    if os.path.isfile(name):
        content = read_lists(request.names, group_pattern=request.group_pattern)
        return content, root or Path(name).parent / "prepared"
    if (dataset := dataset_of(name)) is not None:
        root = root or DATA
        if os.path.isdir(name) and os.path.realpath(name) != os.path.realpath(root / dataset):
            folder = os.path.join(os.curdir, name)
            say(f"{name} is the dataset {dataset}; for the folder of that name write {folder!r}")
        content = read_dataset(load_catalogue(), dataset, root, takes_frames=request.take_frames)
        return content, prepared_folder(root, dataset)
    root = root or Path(name) / "prepared"
    exported = request.labels if request.labels and is_export(request.labels) else None
    problems: list[str] = []
    if request.layout == "auto" and request.labels is None:
        exported, problems = find_export(name)
    if exported is not None:
        content = read_lists([exported], group_pattern=request.group_pattern)
        return replace(content, notes=[*content.notes, *problems]), root
    content = read_folder(
        name,
        layout=request.layout,
        table=request.labels,
        class_depth=request.class_depth,
        multi_label=request.multi_label,
        group_pattern=request.group_pattern,
        group_column=request.group_column,
        leave_out=[str(root)],
    )
    return replace(content, notes=[*content.notes, *problems]), root


def _sheet_config(request: PrepareRequest, root: str, lists: Sequence[str]) -> RunConfig:
    """Return the recipe of the sheet, over the first training list.

    Raises:
        ConfigError: an unknown preset or key, or a value that is not allowed.
    """
    name = next((name for name in lists if "train" in name), "train")
    flags = {
        "runtime.seed": request.seed,
        "data.train_list": os.path.join(root, f"{name}.csv"),
        "runtime.num_workers": request.num_workers or usable_cores(),
    }
    return load_config(
        _SHEET_PRESET if request.preset is None else request.preset, overrides=request.overrides, flags=flags
    ).config
