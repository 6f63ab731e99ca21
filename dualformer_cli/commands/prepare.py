"""`dualformer prepare`: data that `train` and `eval` can use, from a dataset, a folder of videos, or rendered."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from dualformer_cli.commands.options import JsonOption, OverridesOption, PresetOption, VerboseOption
from dualformer_cli.commands.render import render_camera_motion
from dualformer_cli.errors import DualFormerError, nearest

if TYPE_CHECKING:
    from dualformer_cli.data.lists.folders import VideoFolder
    from dualformer_cli.data.lists.older_formats import ListFormat
    from dualformer_cli.data.prepare.preparation import Plan
    from dualformer_cli.engine.parallel.ranks import Ranks

CAMERA_MOTION = "camera-motion"
RENDER_OPTIONS = frozenset({"count", "pictures", "num_frames", "difficulty"})
"""Options of camera-motion alone, and those that it shares with the others."""
SHARED_OPTIONS = frozenset({"names", "root", "seed", "workers", "overwrite", "dry_run", "as_json", "verbose"})
FOLDER_OPTIONS = frozenset(
    {"split", "group_pattern", "group_column", "group_look_alikes", "labels", "layout", "class_depth", "multi_label"}
)
"""Options that say what a folder of one's own holds."""
DEFAULT_SPLIT = "0.8/0.2"
DEFAULT_CRF = 23
DEFAULT_JPEG_QUALITY = 95
SHOWN_VIDEOS = 12
"""Videos on the sheet of --show."""


def prepare(
    context: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME|FOLDER|LIST...",
            help="A dataset, a folder of videos, one list of videos or several, or camera-motion to render.",
        ),
    ],
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            metavar="DIR",
            help="Folder for all that is written; for a dataset, where download put it, and DIR/NAME/prepared is "
            "written. [default: FOLDER/prepared, data, or camera-motion]",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Decode every video to its end, and compare frames reached by seeking.")
    ] = False,
    transcode: Annotated[
        bool, typer.Option("--transcode", help="Write small H.264 files that are quick to read; list these.")
    ] = False,
    frames: Annotated[bool, typer.Option("--frames", help="Write every frame as a JPEG image; list these.")] = False,
    short_side: Annotated[
        int,
        typer.Option("--short-side", min=16, metavar="PIXELS", help="Shrink to this, with --transcode or --frames."),
    ] = 256,
    crf: Annotated[
        int, typer.Option("--crf", min=0, max=51, help="Compression of --transcode; less is better and larger.")
    ] = DEFAULT_CRF,
    jpeg_quality: Annotated[
        int, typer.Option("--jpeg-quality", min=1, max=100, help="Compression of --frames; more is better and larger.")
    ] = DEFAULT_JPEG_QUALITY,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="TRAIN/VAL[/TEST]", help=f"Shares of the splits. [default: {DEFAULT_SPLIT}]"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of the random splits.")] = 0,
    group_pattern: Annotated[
        str | None,
        typer.Option("--group-pattern", metavar="REGEX", help="Keep videos together whose paths agree in this."),
    ] = None,
    group_column: Annotated[
        str | None,
        typer.Option("--group-column", metavar="NAME", help="Keep videos together that agree in this column."),
    ] = None,
    group_look_alikes: Annotated[
        bool, typer.Option("--group-look-alikes", help="Keep videos together that look alike, as copies do.")
    ] = False,
    labels: Annotated[
        str | None, typer.Option("--labels", metavar="FILE.csv", help="Table with the columns file and label.")
    ] = None,
    layout: Annotated[
        str, typer.Option("--layout", metavar="auto|folders|splits|table", help="How the folder is laid out.")
    ] = "auto",
    class_depth: Annotated[
        int, typer.Option("--class-depth", min=1, metavar="N", help="Folder levels that make the class name.")
    ] = 1,
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="Labels of the table are several, with ';' between them.")
    ] = False,
    take: Annotated[
        str,
        typer.Option(
            "--take",
            metavar="files|frames",
            help="Which copy of a dataset's video is listed where it is there as both.",
        ),
    ] = "files",
    formats: Annotated[
        str | None,
        typer.Option(
            "--formats",
            metavar="FORMAT,...",
            help="Write older lists too: [multilabel_]video, [multilabel_]rawframe, rawframe_offset, json.",
        ),
    ] = None,
    show: Annotated[
        Path | None, typer.Option("--show", metavar="FILE.png", help="Draw what training sees of some videos.")
    ] = None,
    preset: PresetOption = None,
    overrides: OverridesOption = None,
    count: Annotated[
        int | None,
        typer.Option("--count", min=1, metavar="N", help="Clips of camera-motion, all splits. [default: 10000]"),
    ] = None,
    pictures: Annotated[
        list[str] | None,
        typer.Option(
            "--pictures",
            metavar="DIR|scikit-image",
            help="What camera-motion moves over besides drawn pictures: a folder, or scikit-image's photographs.",
        ),
    ] = None,
    num_frames: Annotated[
        int, typer.Option("--num-frames", metavar="N", help="Frames of a clip of camera-motion.")
    ] = 32,
    difficulty: Annotated[
        float,
        typer.Option("--difficulty", metavar="0..1", help="camera-motion from large and clean (0) to hardly seen (1)."),
    ] = 1.0,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, metavar="N", help="Processes that work. [default: all cores]")
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Give up a video without progress.")
    ] = 20.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace lists and videos that are there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Turn a dataset that was downloaded, a folder of videos or your lists into train.csv, val.csv and classes.txt.

    A dataset is named as dualformer download names it, and keeps its own splits. A folder has one folder per class, or
    a CSV file with the columns file and label, or train/, val/ and test/ folders. A list holds a path and a class name
    or number in each line; train.csv and val.csv are splits, and so is a column split. Stopped runs are gone on with.
    Exit code 3 means that some videos cannot be used.
    """
    name, is_list = names[0], os.path.isfile(names[0])
    if len(names) > 1 and not all(map(os.path.isfile, names)):
        other = next(other for other in names if not os.path.isfile(other))
        raise typer.BadParameter(f"several are lists, and {other!r} is not a file", param_hint="NAME|FOLDER|LIST")
    is_rendered = name == CAMERA_MOTION
    dataset = None if is_rendered or is_list else _dataset_name(name)
    _refuse_options(context, CAMERA_MOTION if is_rendered else dataset)
    if is_rendered:
        with _ranks() as ranks:
            if ranks is None or ranks.is_main:
                render_camera_motion(
                    root,
                    count=count,
                    pictures=pictures or (),
                    num_frames=num_frames,
                    difficulty=difficulty,
                    seed=seed,
                    num_workers=workers,
                    dry_run=dry_run,
                    overwrite=overwrite,
                    as_json=as_json,
                )
        return
    if take not in ("files", "frames"):
        raise typer.BadParameter(f"{take!r} is neither files nor frames", param_hint="--take")
    if take == "frames" and dataset is None:
        raise typer.BadParameter("this is an option of datasets; your own folder is listed whole", param_hint="--take")
    if transcode and frames:
        raise typer.BadParameter("choose one of --transcode and --frames", param_hint="--transcode")
    if overrides and show is None:
        raise typer.BadParameter("--preset and --set say how clips are drawn: give --show too", param_hint="--set")
    from dualformer_cli.data.datasets.files_on_disk import DATA
    from dualformer_cli.data.lists.folders import LAYOUTS, read_folder
    from dualformer_cli.data.lists.labelled_lists import read_lists
    from dualformer_cli.data.lists.splits import parse_shares
    from dualformer_cli.data.prepare.preparation import Plan
    from dualformer_cli.system.threads import usable_cores

    if layout not in LAYOUTS:
        raise typer.BadParameter(f"{layout!r} is none of {', '.join(LAYOUTS)}", param_hint="--layout")
    if is_list:
        target = Path(name).parent / "prepared" if root is None else root
        content = read_lists(names, group_pattern=group_pattern)
    elif dataset is not None:
        content, target = _read_dataset(dataset, name, root or DATA, takes_frames=take == "frames")
    else:
        target = Path(name) / "prepared" if root is None else root
        content = read_folder(
            name,
            layout=layout,
            table=labels,
            class_depth=class_depth,
            multi_label=multi_label,
            group_pattern=group_pattern,
            group_column=group_column,
            leave_out=[str(target)],
        )
    plan = Plan(
        content=content,
        root=str(target),
        shares=parse_shares(split or DEFAULT_SPLIT),
        seed=seed,
        group_look_alikes=group_look_alikes,
        check=check,
        convert="transcode" if transcode else "frames" if frames else None,
        short_side=short_side,
        quality=crf if transcode else jpeg_quality,
        formats=_formats(formats),
        overwrite=overwrite,
        num_workers=workers or usable_cores(),
        timeout_seconds=timeout,
    )
    for given, hint in ((split is not None, "--split"), (group_look_alikes, "--group-look-alikes")):
        if given and content.videos[0].split is not None:
            raise typer.BadParameter(f"{content.layout} decide already", param_hint=hint)
    if dry_run:
        with _ranks() as ranks:
            if ranks is None or ranks.is_main:
                _show_plan(plan, as_json=as_json)
        return
    sheet = None if show is None else _Sheet(show, preset, overrides, plan)
    document = _prepare(plan, num_workers=workers)
    if document is None:
        return
    if sheet is not None:
        sheet.write()
    _report(document, as_json=as_json)


def _refuse_options(context: typer.Context, name: str | None) -> None:
    """Refuse options that would do nothing.

    Args:
        context: has the options that were given.
        name: camera-motion, a dataset, or None for a folder.

    Raises:
        typer.BadParameter: naming the first.
    """
    for parameter in context.command.params:
        option = parameter.name or ""
        source = context.get_parameter_source(option)
        if option in SHARED_OPTIONS or source is None or source.name in ("DEFAULT", "DEFAULT_MAP"):
            continue
        is_of_rendering = option in RENDER_OPTIONS
        if is_of_rendering != (name == CAMERA_MOTION):
            where = CAMERA_MOTION if is_of_rendering else f"videos that exist, not of {CAMERA_MOTION}"
            raise typer.BadParameter(f"this is an option of {where}", param_hint=parameter.opts[-1])
        if option in FOLDER_OPTIONS and name is not None:
            problem = f"this is an option of your own folder; the annotations of {name} decide it"
            raise typer.BadParameter(problem, param_hint=parameter.opts[-1])


def _dataset_name(name: str) -> str | None:
    """Return the dataset that a name means; None for that of a folder, which has a separator in it if need be.

    Raises:
        DualFormerError: if it is no folder, and nearly the name of a dataset.
    """
    from dualformer_cli.data.datasets.catalogue import load_catalogue

    if os.sep in name:
        return None
    catalogue = load_catalogue()
    found = catalogue.dataset_name(name)
    if found is None and not os.path.exists(name) and (hint := nearest(name.lower(), catalogue.datasets)):
        raise DualFormerError(
            f"{name!r} is neither a folder nor a dataset{hint} Datasets: {', '.join(catalogue.datasets)}"
        )
    return found


def _read_dataset(dataset: str, name: str, root: Path, *, takes_frames: bool) -> tuple[VideoFolder, Path]:
    """Return what there is of a dataset, and the folder for its lists."""
    from dualformer_cli.data.datasets.catalogue import load_catalogue
    from dualformer_cli.data.datasets.official_lists import prepared_folder, read_dataset
    from dualformer_cli.outputs.report import log

    if os.path.isdir(name) and os.path.realpath(name) != os.path.realpath(root / dataset):
        log(f"{name} is the dataset {dataset}; for the folder of that name write {os.path.join(os.curdir, name)!r}")
    content = read_dataset(load_catalogue(), dataset, root, takes_frames=takes_frames)
    return content, prepared_folder(root, dataset)


def _formats(text: str | None) -> tuple[ListFormat, ...]:
    """Read the value of --formats."""
    from dualformer_cli.data.prepare.preparation import LIST_NAMES

    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    for name in names:
        if name not in LIST_NAMES:
            allowed = ", ".join(LIST_NAMES)
            raise typer.BadParameter(f"{name!r} is none of {allowed}", param_hint="--formats")
    return tuple(dict.fromkeys(cast("list[ListFormat]", names)))


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    """Print what would be done."""
    from dualformer_cli.data.prepare.preparation import preview
    from dualformer_cli.outputs.preparation import print_plan
    from dualformer_cli.outputs.report import print_json

    document = preview(plan)
    (print_json if as_json else print_plan)(document)


@contextmanager
def _ranks() -> Iterator[Ranks | None]:
    """Join the processes that torchrun or srun started; None without them, which is told without loading torch."""
    if not {"RANK", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"} & os.environ.keys():
        yield None
        return
    from dualformer_cli.engine.parallel.ranks import init_ranks

    with init_ranks("cpu", timeout=timedelta(days=7)) as ranks:  # one may have much longer videos than the others
        yield ranks


def _prepare(plan: Plan, *, num_workers: int | None) -> dict[str, Any] | None:
    """Do the work, with progress on stderr; under torchrun, this rank's share, of which only rank 0 has the result.

    Args:
        plan: what to do.
        num_workers: as the user says; None lets the ranks of a machine share its cores.
    """
    from dualformer_cli.data.prepare.preparation import Team, help_prepare, prepare
    from dualformer_cli.outputs.preparation import start_lines
    from dualformer_cli.outputs.report import Progress, log

    def start(document: dict[str, Any]) -> None:
        for line in start_lines(document):
            log(line)

    with _ranks() as ranks:
        team = Team()
        if ranks is not None and ranks.world_size > 1:
            from dualformer_cli.engine.parallel.reductions import barrier, gather_objects

            team = Team(rank=ranks.rank, size=ranks.world_size, wait=barrier)
            machines = gather_objects(platform.node())
            shared = max(1, plan.num_workers // machines.count(platform.node()))
            plan = replace(plan, num_workers=num_workers or shared)
        if team.rank:
            help_prepare(plan, team=team)
            return None
        return prepare(plan, watch=lambda title, total: Progress(title, total=total), say=log, start=start, team=team)


def _report(document: dict[str, Any], *, as_json: bool) -> None:
    """Print the result and leave with the exit code that sums it up."""
    from dualformer_cli.outputs.preparation import print_preparation
    from dualformer_cli.outputs.report import print_json

    (print_json if as_json else print_preparation)(document)
    if document["broken"]:
        raise typer.Exit(3)


class _Sheet:
    """A picture of what training sees; what cannot work is refused before the videos are prepared."""

    def __init__(self, path: Path, preset: str | None, overrides: list[str] | None, plan: Plan) -> None:
        from dualformer_cli.outputs.sheet import check_sheet_path
        from dualformer_cli.tasks.session import ModelRequest, resolve

        check_sheet_path(path)
        self.path, self.preset = path, preset or "k400-small"
        training = [own.name for own in plan.lists if own.rows and "train" in own.name] or ["train"]
        train_list = os.path.join(plan.root, f"{training[0]}.csv")
        model = ModelRequest(preset=self.preset, overrides=tuple(overrides or ()), seed=plan.seed)
        settings = {"data.train_list": train_list, "runtime.num_workers": plan.num_workers}
        self.config = resolve(model, settings).config

    def write(self) -> None:
        """Draw the first clips of training."""
        from dualformer_cli.outputs.report import log
        from dualformer_cli.outputs.sheet import write_sheet
        from dualformer_cli.tasks.preview import preview_clips

        clips = preview_clips(self.config, num_videos=SHOWN_VIDEOS)
        title = f"What {self.preset} sees in training: random clips, {len(clips)} of {self.config.data.train_list}"
        write_sheet([(clip.label, clip.path, clip.frames) for clip in clips], self.path, title=title)
        log(f"{self.path}: {len(clips)} training clips")
