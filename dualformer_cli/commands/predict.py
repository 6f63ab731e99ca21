"""`dualformer predict`: what is happening in these videos?"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dualformer_cli.commands.options import (
    CompileOption,
    CpuProcessesOption,
    DeviceOption,
    GpusOption,
    JsonOption,
    OfflineOption,
    OverridesOption,
    PrecisionOption,
    PresetOption,
    PrintConfigOption,
    SeedOption,
    VerboseOption,
    ViewsOption,
    WeightsOption,
    announce_sample,
    parse_views,
    relaunched,
    sample_input,
    show_config,
)
from dualformer_cli.errors import DualFormerError, reason_of
from dualformer_cli.system.files import check_outputs, path_in_own_folder

if TYPE_CHECKING:
    from dualformer_cli.engine.engine import Engine
    from dualformer_cli.engine.scoring.video_scores import Prediction
    from dualformer_cli.tasks.session import Session

LIVE_SECONDS = 2.0
"""How often a camera or stream is classified unless --every says."""


def predict(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Videos, folders, patterns, @list.txt, - for a list on stdin, camera:0, rtsp://... addresses. "
            "[default: the sample clip of the package]",
        ),
    ] = None,
    preset: PresetOption = None,
    weights: WeightsOption = None,
    top_k: Annotated[int, typer.Option("--top-k", min=1, metavar="N", help="Labels per video.")] = 5,
    views: ViewsOption = None,
    every: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Classify every so many seconds and merge equal neighbours: a timeline."),
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the results as a table.")] = None,
    srt: Annotated[
        Path | None, typer.Option("--srt", metavar="FILE|FOLDER", help="Write labels as subtitles of the video.")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save", metavar="FILE.mp4|FILE.gif|FOLDER", help="Write the video with the labels drawn onto it."
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option("--features", metavar="FILE.npz", help="Write the pooled features of each video or segment."),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Stop a camera or stream after this time.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace output files that exist.")] = False,
    gpus: GpusOption = None,
    cpu_processes: CpuProcessesOption = None,
    overrides: OverridesOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    compile_: CompileOption = None,
    seed: SeedOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    print_config: PrintConfigOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Classify videos: the best labels of each, or a timeline of a long one.

    A file that cannot be used is named with its reason, never stops the others, and makes the exit code 3.
    """
    from dualformer_cli.tasks.session import DEFAULT_PRESET, ModelRequest, open_session, resolve

    model = ModelRequest(
        preset=preset,
        weights=weights,
        overrides=tuple(overrides or ()),
        device="cpu" if cpu_processes else device,
        precision=precision,
        compile=compile_,
        seed=seed,
        views=parse_views(views),
        offline=offline,
    )
    if print_config:
        show_config(resolve(model, default=DEFAULT_PRESET))
        return
    for name, seconds in (("--every", every), ("--duration", duration)):
        if seconds is not None and not 0 < seconds < float("inf"):
            raise typer.BadParameter(f"{seconds:g} is not a positive number of seconds", param_hint=name)

    from dualformer_cli.data.fetch.web_videos import fetch_addresses
    from dualformer_cli.outputs.progress import fetch_progress
    from dualformer_cli.outputs.screen import log
    from dualformer_cli.video.inputs import expand_inputs
    from dualformer_cli.video.live_inputs import is_live, mask_credentials

    if gpus or cpu_processes:
        if "-" in (inputs or ()):
            raise typer.BadParameter("several processes cannot read one stdin; give @list.txt", param_hint="INPUT")
        resolve(model, default=DEFAULT_PRESET)  # what is wrong in it is said once, and not by every process
        if relaunched(gpus, cpu_processes):
            return
    found = expand_inputs(inputs or [sample_input()], stdin=sys.stdin, offline=offline)
    files_named = [path for path in (srt, save) if path is not None and not path.is_dir()]
    tables = [path for path in (csv, features) if path is not None]
    check_outputs([*tables, *files_named], found.paths, overwrite=overwrite)  # before anything is fetched
    addresses = fetch_addresses(found, fetch_progress, offline=offline)
    files = [path for path in found.paths if path in found.remote or not is_live(path)]
    live = [path for path in found.paths if path not in found.remote and is_live(path)]
    if live and (srt or save):
        raise DualFormerError(f"--srt and --save need files, but {mask_credentials(live[0])!r} is live; use --csv")
    outputs = _Outputs(files, csv=csv, srt=srt, save=save, features=features, overwrite=overwrite)
    with open_session(model, default=DEFAULT_PRESET) as session:
        from dualformer_cli.tasks.fall_back import fall_back  # loads torch

        ranks = session.ranks  # no rank writes before all have checked the outputs
        if live and ranks.world_size > 1:
            raise DualFormerError(f"{mask_credentials(live[0])!r} is live: one process is enough for it")
        fall_back(session, fetch_progress, log)
        engine = session.load_engine(fetch_progress, bf16_on_cpu=True)
        shown = _Results(session, engine, outputs, addresses, as_json=as_json, verbose=verbose)
        if ranks.is_main:
            announce(engine)
            if not inputs:
                announce_sample()
            shown.problems(found.problems)
        shown.files(files, top_k=top_k, every_seconds=every)
        shown.live(live, top_k=top_k, every_seconds=every or LIVE_SECONDS, duration_seconds=duration)
        if ranks.is_main:
            shown.finish()


def announce(engine: Engine) -> None:
    """Say on stderr which model looks at the videos, and how."""
    from dualformer_cli.outputs.screen import log

    facts = engine.describe()
    log(
        f"{facts['preset']}, {facts['weights']} weights, {facts['views']} views, {facts['device']} {facts['precision']}"
    )


class _Outputs:
    """The files that results go to, checked before any work is done."""

    def __init__(
        self,
        inputs: Sequence[str],
        *,
        csv: Path | None,
        srt: Path | None,
        save: Path | None,
        features: Path | None,
        overwrite: bool,
    ) -> None:
        self.csv, self.features = csv, features
        self.srt = _one_each(inputs, srt, option="--srt", suffixes=(".srt",))
        self.save = _one_each(inputs, save, option="--save", suffixes=(".mp4", ".gif"))
        if features is not None and features.suffix != ".npz":
            raise DualFormerError(f"--features {str(features)!r} must end in .npz")
        chosen = [path for path in (csv, features, *self.srt.values(), *self.save.values()) if path is not None]
        if twice := [str(path) for path, count in Counter(chosen).items() if count > 1]:
            raise DualFormerError(f"{twice[0]!r} is named for two outputs; name another file for one of them")
        check_outputs(chosen, inputs, overwrite=overwrite)


def _one_each(inputs: Sequence[str], target: Path | None, *, option: str, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Give each input its own output: the file named, or inside the folder named one file called after each input."""
    if target is None:
        return {}
    if target.is_dir():
        taken: set[str] = set()
        paths = {}
        for name in inputs:
            stem = candidate = Path(name).stem or "video"
            number = 1
            while candidate in taken:
                number += 1
                candidate = f"{stem}-{number}"
            taken.add(candidate)
            paths[name] = target / f"{candidate}{suffixes[0]}"
        return paths
    if target.suffix.lower() not in suffixes:
        raise DualFormerError(
            f"{option} {str(target)!r} must end in {' or '.join(suffixes)}, or be a folder that exists"
        )
    if len(inputs) > 1:
        raise DualFormerError(
            f"{option} {str(target)!r} is one file, but there are {len(inputs)} videos; name a folder that exists"
        )
    return dict.fromkeys(inputs, target)


class _Results:
    """Prints results as they come, writes files, and remembers the document and the exit code."""

    def __init__(
        self,
        session: Session,
        engine: Engine,
        outputs: _Outputs,
        addresses: Mapping[str, str],
        *,
        as_json: bool,
        verbose: bool,
    ) -> None:
        self.engine, self.pool, self.ranks, self.fallback = engine, session.pool, session.ranks, session.fallback
        self.outputs, self.addresses = outputs, addresses
        self.as_json, self.verbose = as_json, verbose
        self.results: list[dict[str, Any]] = []
        self.features: list[dict[str, Any]] = []

    def problems(self, problems: Sequence[tuple[str, str]]) -> None:
        from dualformer_cli.engine.scoring.video_scores import failure

        for name, reason in problems:
            self._take(failure(name, reason))

    def files(self, files: Sequence[str], *, top_k: int, every_seconds: float | None) -> None:
        from dualformer_cli.outputs.progress import Progress

        mine = files[self.ranks.rank :: self.ranks.world_size]
        is_alone = self.ranks.world_size == 1
        found = []
        with Progress("predict", total=len(mine), silent=len(files) < 2 or not self.ranks.is_main) as progress:
            for prediction in self.engine.predict(mine, self.pool, top_k=top_k, every_seconds=every_seconds):
                self._write_beside(prediction)
                if is_alone:
                    with progress.paused():
                        self._take(prediction)
                else:
                    found.append(prediction)
                progress.advance(note=self.addresses.get(prediction.result["path"], prediction.result["path"]))
        if not is_alone:
            self._take_all(found)

    def _take_all(self, mine: Sequence[Prediction]) -> None:
        """Bring the results of all ranks into the order of the inputs, on rank 0."""
        from dualformer_cli.engine.parallel.reductions import gather_objects

        of_ranks = gather_objects(mine)
        if self.ranks.is_main:
            for row in range(len(of_ranks[0])):
                for of_rank in of_ranks:
                    if row < len(of_rank):
                        self._take(of_rank[row])

    def live(self, names: Sequence[str], *, top_k: int, every_seconds: float, duration_seconds: float | None) -> None:
        from dualformer_cli.outputs.predictions import print_clip

        for name in names:
            prediction = self.engine.predict_live(
                name,
                top_k=top_k,
                every_seconds=every_seconds,
                duration_seconds=duration_seconds,
                on_clip=(lambda clip: None) if self.as_json else print_clip,
            )
            self._take(prediction)
            if prediction.result.get("interrupted"):
                return

    def finish(self) -> None:
        """Write the tables, print the document, and leave with the exit code that sums it up."""
        from dualformer_cli.outputs.json_text import print_json
        from dualformer_cli.outputs.prediction_files import write_csv, write_features

        with ExitStack() as last_first:  # a file that cannot be written takes neither the other nor the results along
            if self.as_json:
                document = {**self.engine.describe(), "fallback": self.fallback, "results": self.results}
                last_first.callback(print_json, document)
            if self.outputs.features is not None:
                last_first.callback(write_features, self.features, self.outputs.features)
            if self.outputs.csv is not None:
                last_first.callback(write_csv, self.results, self.outputs.csv)
        if any(result.get("interrupted") for result in self.results):
            raise typer.Exit(130)
        if any(result["status"] != "ok" for result in self.results):
            raise typer.Exit(3)

    def _take(self, prediction: Prediction) -> None:
        from dualformer_cli.outputs.predictions import print_predictions
        from dualformer_cli.outputs.screen import log

        result = prediction.result
        result["path"] = self.addresses.get(result["path"], result["path"])
        self.results.append(result)
        if self.outputs.features is not None:
            self.features.extend(prediction.features)
        if not self.as_json:
            print_predictions(result)
        if self.verbose and "timing" in result:
            parts = ", ".join(f"{name.removesuffix('_seconds')} {s:.2f} s" for name, s in result["timing"].items())
            log(f"{result['path']}: {parts}")

    def _write_beside(self, prediction: Prediction) -> None:
        """Write the subtitles and the annotated video of one input; what fails becomes the input's error."""
        from dualformer_cli.outputs.prediction_files import write_srt

        result = prediction.result
        if result["status"] != "ok":
            return
        save = partial(self._save_annotated, prediction.file)
        for targets, write in ((self.outputs.srt, write_srt), (self.outputs.save, save)):
            if (target := targets.get(result["path"])) is None:
                continue
            try:
                write(result, target)
            except Exception as error:  # of any kind: it costs this file
                result.update(status="error", error=f"classified, but not saved: {reason_of(error)}")

    def _save_annotated(self, file: str, result: dict[str, Any], target: Path) -> None:
        """Have a worker draw the result onto its video."""
        data = self.engine.config.data
        with path_in_own_folder(target) as unfinished:
            job = ({**result, "path": file}, str(unfinished), data.decoder, data.frame_rate, data.frame_name)
            self.pool.call(_annotate, job).result()


def _annotate(job: tuple[dict[str, Any], str, Any, float | None, str | None]) -> None:
    """Draw a result onto its video; runs in a worker, since it decodes the whole file."""
    from dualformer_cli.outputs.annotated_video import save_annotated
    from dualformer_cli.video.open import open_video

    result, target, decoder, frame_rate, frame_name = job
    segments = result.get("segments")
    ends = [segment["end_seconds"] for segment in segments or ()]
    lines = [(best["label"], best["score"]) for best in result["predictions"]]

    with open_video(result["path"], decoder=decoder, frame_rate=frame_rate, frame_name=frame_name) as reader:
        fps, times = reader.info.fps or 25.0, reader.times_seconds

        def captions(seconds: float) -> Sequence[tuple[str, float]]:
            if segments is None:
                return lines
            # The copy has a constant frame rate; segments are in the time of the original.
            shown = seconds if times is None else times[round(seconds * fps)]
            now = segments[min(bisect_right(ends, shown), len(segments) - 1)]
            return [(now["label"], now["score"])]

        save_annotated(reader.frames(), target, fps=fps, captions=captions)
