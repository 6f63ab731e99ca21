"""`dualformer predict`: what is happening in these videos?"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dualformer_cli.commands.download import fetch_progress
from dualformer_cli.commands.options import (
    CompileOption,
    DeviceOption,
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
    resolve,
    views_keys,
)
from dualformer_cli.errors import DualFormerError

if TYPE_CHECKING:
    from dualformer_cli.data.workers import WorkerPool
    from dualformer_cli.engine.engine import Engine
    from dualformer_cli.engine.prediction import Prediction

DEFAULT_PRESET = "k400-tiny"
LIVE_SECONDS = 2.0
"""How often a camera or stream is classified unless --every says."""


def predict(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Videos, folders, patterns, @list.txt, - for a list on stdin, camera:0, rtsp://... addresses.",
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
    resolved = resolve(
        preset or DEFAULT_PRESET,
        overrides,
        weights=weights,
        device=device,
        precision=precision,
        compile=compile_,
        seed=seed,
        **views_keys(views),
    )
    if print_config:
        from dualformer_cli.config.load import to_yaml

        typer.echo(to_yaml(resolved.config, resolved.origins), nl=False)
        return
    if not inputs:
        raise typer.BadParameter("name at least one video, folder, pattern, list or camera", param_hint="INPUT...")
    for name, seconds in (("--every", every), ("--duration", duration)):
        if seconds is not None and not 0 < seconds < float("inf"):
            raise typer.BadParameter(f"{seconds:g} is not a positive number of seconds", param_hint=name)

    from dualformer_cli.data.inputs import expand_inputs
    from dualformer_cli.data.stream import is_live
    from dualformer_cli.data.workers import WorkerPool

    found = expand_inputs(inputs, stdin=sys.stdin)
    files = [path for path in found.paths if not is_live(path)]
    outputs = _Outputs(files, csv=csv, srt=srt, save=save, features=features, overwrite=overwrite)
    with WorkerPool(
        resolved.config.runtime.num_workers,
        resolved.config.data.decode_timeout_seconds,
        preload=["dualformer_cli.data.dataset"],
    ) as pool:
        from dualformer_cli.engine.engine import Engine  # here, so that workers start while torch loads

        with fetch_progress() as progress:
            engine = Engine(resolved, offline=offline, progress=partial(progress, resolved.preset))
        session = _Session(engine, pool, outputs, total=len(found.paths), as_json=as_json, verbose=verbose)
        session.announce()
        session.problems(found.problems)
        session.files(files, top_k=top_k, every_seconds=every)
        for name in filter(is_live, found.paths):
            session.live(name, top_k=top_k, every_seconds=every or LIVE_SECONDS, duration_seconds=duration)
        session.finish()


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
        for path in filter(None, (csv, features, *self.srt.values(), *self.save.values())):
            if not path.parent.is_dir():
                raise DualFormerError(f"cannot write {str(path)!r}: folder {str(path.parent)!r} does not exist")
            if path.is_dir():
                raise DualFormerError(f"cannot write {str(path)!r}: it is a folder")
            if path.exists() and not overwrite:
                raise DualFormerError(f"{str(path)!r} exists; name another file or replace it with --overwrite")
            if any(path.exists() and os.path.exists(name) and os.path.samefile(path, name) for name in inputs):
                raise DualFormerError(f"cannot write {str(path)!r}: it is one of the inputs")


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
    if len(inputs) != 1:
        raise DualFormerError(
            f"{option} {str(target)!r} is one file, but there are {len(inputs)} videos; name a folder that exists"
        )
    return {inputs[0]: target}


class _Session:
    """Prints results as they come, writes files, and remembers the document and the exit code."""

    def __init__(
        self, engine: Engine, pool: WorkerPool, outputs: _Outputs, *, total: int, as_json: bool, verbose: bool
    ) -> None:
        from dualformer_cli.outputs.report import Progress

        self.engine, self.pool, self.outputs = engine, pool, outputs
        self.as_json, self.verbose = as_json, verbose
        self.predictions: list[Prediction] = []
        self.progress = Progress("predict", total=total, silent=total < 2)

    def announce(self) -> None:
        from dualformer_cli.outputs.report import log

        facts = self.engine.describe()
        log(
            f"{facts['preset']}, {facts['weights']} weights, {facts['views']} views, "
            f"{facts['device']} {facts['precision']}"
        )

    def problems(self, problems: Sequence[tuple[str, str]]) -> None:
        from dualformer_cli.engine.prediction import failure

        for name, reason in problems:
            self._take(failure(name, reason))

    def files(self, files: Sequence[str], *, top_k: int, every_seconds: float | None) -> None:
        with self.progress:
            for prediction in self.engine.predict(files, self.pool, top_k=top_k, every_seconds=every_seconds):
                self._write_beside(prediction.result)
                self._take(prediction)

    def live(self, name: str, *, top_k: int, every_seconds: float, duration_seconds: float | None) -> None:
        from dualformer_cli.outputs.report import print_clip

        prediction = self.engine.predict_live(
            name,
            top_k=top_k,
            every_seconds=every_seconds,
            duration_seconds=duration_seconds,
            on_clip=(lambda clip: None) if self.as_json else print_clip,
        )
        self._take(prediction)

    def finish(self) -> None:
        from dualformer_cli.outputs.report import print_json, write_csv, write_features

        results = [prediction.result for prediction in self.predictions]
        if self.outputs.csv is not None:
            write_csv(results, self.outputs.csv)
        if self.outputs.features is not None:
            rows = [row for prediction in self.predictions for row in prediction.features]
            write_features(rows, self.outputs.features)
        if self.as_json:
            print_json({**self.engine.describe(), "results": results})
        if any(result.get("interrupted") for result in results):
            raise typer.Exit(130)
        if any(result["status"] != "ok" for result in results):
            raise typer.Exit(3)

    def _take(self, prediction: Prediction) -> None:
        from dualformer_cli.outputs.report import log, print_predictions

        result = prediction.result
        self.predictions.append(prediction)
        with self.progress.paused():
            if not self.as_json:
                print_predictions(result)
            if self.verbose and "timing" in result:
                parts = ", ".join(f"{name.removesuffix('_seconds')} {s:.2f} s" for name, s in result["timing"].items())
                log(f"{result['path']}: {parts}")
        self.progress.advance(note=result["path"])

    def _write_beside(self, result: dict[str, Any]) -> None:
        """Write the subtitles and the annotated video of one input; a failure becomes the input's error."""
        from dualformer_cli.outputs.report import write_srt

        path = result["path"]
        if result["status"] != "ok":
            return
        if path in self.outputs.srt:
            write_srt(result, self.outputs.srt[path])
        if path in self.outputs.save:
            data = self.engine.config.data
            try:
                self.pool.call(_annotate, (result, str(self.outputs.save[path]), data.decoder, data.frame_rate))
            except DualFormerError as error:
                result.update(status="error", error=f"classified, but not saved with its labels: {error}")


def _annotate(job: tuple[dict[str, Any], str, Any, float | None]) -> None:
    """Draw a result onto its video; runs in a worker, since it decodes the whole file."""
    from dualformer_cli.data.decoding import open_video
    from dualformer_cli.outputs.video import save_annotated

    result, target, decoder, frame_rate = job
    segments = result.get("segments")
    lines = [(best["label"], best["score"]) for best in result["predictions"]]

    def captions(seconds: float) -> Sequence[tuple[str, float]]:
        if segments is None:
            return lines
        now = next((s for s in segments if seconds < s["end_seconds"]), segments[-1])
        return [(now["label"], now["score"])]

    with open_video(result["path"], decoder=decoder, frame_rate=frame_rate) as reader:
        save_annotated(reader.frames(), target, fps=reader.info.fps or 25.0, captions=captions)
