"""`dualformer predict`: what is happening in these videos?"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

import typer

from dualformer_cli.commands.options import (
    CompileOption,
    CpuProcessesOption,
    DeviceOption,
    FontOption,
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
    announce_loading,
    announce_sample,
    folder_or_file,
    model_request,
    print_document,
    relaunched,
    sample_input,
    show_config_that_runs,
)
from dualformer_cli.config.option_defaults import TOP_K
from dualformer_cli.system.exit_codes import INTERRUPTED, SOME_FAILED
from dualformer_cli.system.words import shown_path

if TYPE_CHECKING:
    from dualformer_cli.documents.predict import LiveClip, ModelFacts, PredictionRun, Predictions, Timing, VideoResult
    from dualformer_cli.tasks.predict import PredictRequest


def predict(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            help="Videos, folders, patterns, @list.txt, @train.csv to compare with its labels, - for a list on stdin, "
            "tar shards, s3://... and other remote files, camera:0, rtsp://... addresses. "
            "[default: the sample clip of the package]",
        ),
    ] = None,
    preset: PresetOption = None,
    weights: WeightsOption = None,
    top_k: Annotated[int, typer.Option("--top-k", min=1, metavar="N", help="Labels per video.")] = TOP_K,
    views: ViewsOption = None,
    every: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Classify every so many seconds and merge equal neighbours: a timeline."),
    ] = None,
    min_score: Annotated[
        str | None,
        typer.Option(
            "--min-score",
            metavar="PERCENT",
            help="Below it the best label is unsure: 30, 30% or 0.3; 0.9% needs its sign. [default: a tenth of the way "
            "from chance, 1 / classes, to 100: 10.2 for 400 classes, 19 for 10]",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FOLDER",
            help="Keep every result in this folder as soon as it is known; the same command again goes on from there.",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --output: try videos again that failed before.")
    ] = False,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the results as a table.")] = None,
    srt: Annotated[
        Path | None,
        typer.Option(
            "--srt", metavar="FILE|FOLDER/", parser=folder_or_file, help="Write labels as subtitles of the video."
        ),
    ] = None,
    vtt: Annotated[
        Path | None,
        typer.Option(
            "--vtt", metavar="FILE|FOLDER/", parser=folder_or_file, help="The same as WebVTT, as web pages show it."
        ),
    ] = None,
    segments: Annotated[
        Path | None,
        typer.Option(
            "--segments",
            metavar="FILE.csv|FILE.json",
            help="Write the segments of all videos: a CSV that is a list again, or ActivityNet's JSON.",
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            metavar="FILE.mp4|FILE.gif|FOLDER/",
            parser=folder_or_file,
            help="Write the video with the labels drawn onto it.",
        ),
    ] = None,
    font: FontOption = None,
    features: Annotated[
        Path | None,
        typer.Option("--features", metavar="FILE.npz", help="Write the pooled features of each video or segment."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FILE.html", help="Write a page with pictures, labels and timelines to look through."
        ),
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
    as_json_lines: Annotated[
        bool,
        typer.Option(
            "--json-lines", help="Print each result, and each clip of a live input, as a line of JSON at once."
        ),
    ] = False,
    print_config: PrintConfigOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Classify videos: the best labels of each, or a timeline of a long one.

    A file that cannot be used is named with its reason, never stops the others, and makes the exit code 3.
    """
    from dualformer_cli.tasks.session import DEFAULT_PRESET, resolve
    from dualformer_cli.video.inputs import read_stdin

    model = model_request(
        preset,
        weights=weights,
        overrides=overrides,
        device=device,
        cpu_processes=cpu_processes,
        precision=precision,
        compile_=compile_,
        seed=seed,
        views=views,
        offline=offline,
    )
    if print_config:
        show_config_that_runs(model)
        return
    if as_json_lines and (as_json or output is not None):
        problem = (
            "choose one of --json and --json-lines" if as_json else "--output keeps the lines in predictions.jsonl"
        )
        raise typer.BadParameter(problem, param_hint="--json-lines")
    _check_seconds({"--every": every, "--duration": duration})
    if retry_failed and output is None:
        raise typer.BadParameter("it goes with --output, which keeps what failed", param_hint="--retry-failed")
    form: _Form = "json" if as_json else "lines" if as_json_lines else "text"
    names = inputs or ()
    if (gpus or cpu_processes) and "-" in names:
        raise typer.BadParameter("several processes cannot read one stdin; give @list.txt", param_hint="INPUT")
    from dualformer_cli.tasks.predict import PredictRequest

    request = PredictRequest(
        model=model,
        inputs=tuple(inputs or [sample_input()]),
        top_k=top_k,
        min_score=_share(min_score),
        every_seconds=every,
        duration_seconds=duration,
        output=output,
        retry_failed=retry_failed,
        csv=csv,
        subtitles={name: path for name, path in (("srt", srt), ("vtt", vtt)) if path is not None},
        segments=segments,
        save=save,
        font=font,
        features=features,
        report=report,
        overwrite=overwrite,
    )
    stdin = StringIO(read_stdin(sys.stdin) if "-" in names else "")
    absent = _say_absent(request, stdin, form, is_started_again=bool(gpus or cpu_processes)) if names else ()
    stdin.seek(0)
    announce_loading(model)
    if gpus or cpu_processes:
        resolve(model, default=DEFAULT_PRESET)  # what is wrong in it is said once, and not by every process
        if relaunched(gpus, cpu_processes, goes_on=output is not None):
            return
    _run(request, stdin, is_sample=not inputs, form=form, absent=absent, verbose=verbose)


def _say_absent(request: PredictRequest, stdin: TextIO, form: _Form, *, is_started_again: bool) -> Collection[str]:
    """Say which inputs are not there, before a model is loaded, and return their names.

    Where none is there, that is the answer, which is written too; of several processes the first one says it, and where
    they are started from here, not this one.

    Raises:
        typer.Exit: with 3, if none is there.
    """
    from dualformer_cli.engine.parallel.placement import read_placement
    from dualformer_cli.outputs.screen import log, wrote
    from dualformer_cli.tasks.predict import absent_inputs, write_absent

    absent, is_all = absent_inputs(request.inputs, request.model, stdin=stdin)
    if read_placement(os.environ).rank == 0 and (is_all or not is_started_again):
        if not is_all or form == "json":
            for result in absent:
                log(_line_of(result))
        if is_all:
            _print_absent(absent, form)
            wrote(*write_absent(request, absent))
    if is_all:
        raise typer.Exit(SOME_FAILED)
    return {result.path for result in absent}


def _print_absent(absent: Sequence[VideoResult], form: _Form) -> None:
    from dualformer_cli.documents.base import to_json
    from dualformer_cli.documents.predict import NoPredictions
    from dualformer_cli.outputs import json_text
    from dualformer_cli.outputs.predictions import print_predictions

    if form == "json":
        json_text.print_json(to_json(NoPredictions(results=tuple(absent))))
        return
    show = _print_line if form == "lines" else print_predictions
    for result in absent:
        show(result)


def _check_seconds(given: Mapping[str, float | None]) -> None:
    for name, seconds in given.items():
        if seconds is not None and not 0 < seconds < float("inf"):
            raise typer.BadParameter(f"{seconds:g} is not a positive number of seconds", param_hint=name)


def _share(percent: str | None) -> float | None:
    """Return the value of --min-score as a share: "30%", "30" and "0.3" are 0.3, and "0.3%" is 0.003.

    Raises:
        typer.BadParameter: if it is neither a percentage nor a share.
    """
    from dualformer_cli.system.numbers import number_in

    if percent is None:
        return None
    try:
        value = number_in(percent.removesuffix("%"))
    except ValueError:
        value = -1.0
    if 0 < value < 1 and not percent.endswith("%"):
        return value
    if not 0 <= value <= 100:
        raise typer.BadParameter(
            f"{percent!r} is not a percentage; write 30, 30% or 0.3 for 30%", param_hint="--min-score"
        )
    return value / 100


def _run(
    request: PredictRequest, stdin: TextIO, *, is_sample: bool, form: _Form, absent: Collection[str], verbose: bool
) -> None:
    """Do what the request says, print results as they come, and leave with the code that sums them up."""
    from dualformer_cli.outputs.progress import fetch_progress
    from dualformer_cli.outputs.screen import wrote
    from dualformer_cli.tasks.predict import predict as run_task

    shown = _Shown(form, is_run=request.output is not None, is_sample=is_sample, said=absent, verbose=verbose)
    document = run_task(
        request,
        stdin=stdin,
        fetching=fetch_progress,
        watching=shown.watching,
        on_fallback=shown.fallback,
        on_model=shown.model,
        on_clip=shown.clip,
        on_document=shown.document,
        on_written=wrote,
    )
    if document is not None and (code := _end_of(document)):
        raise typer.Exit(code)


_Form = Literal["text", "json", "lines"]


class _Shown:
    """Prints what there is to say as it comes: results on stdout in one of the forms, the rest on stderr.

    Args:
        form: of the results.
        is_run: whether a folder keeps the results, so that only errors are printed.
        is_sample: whether no input was named.
        said: inputs whose errors were said on stderr.
        verbose: whether to say where the time went.
    """

    def __init__(self, form: _Form, *, is_run: bool, is_sample: bool, said: Collection[str], verbose: bool) -> None:
        self._form, self._is_run, self._is_sample, self._verbose = form, is_run, is_sample, verbose
        self._said = said
        self._has_fallen_back = self._has_clips = False

    def fallback(self, note: str) -> None:
        from dualformer_cli.outputs.screen import log

        self._has_fallen_back = True
        log(note)

    def model(self, facts: ModelFacts) -> None:
        from dualformer_cli.outputs.predictions import print_question

        announce(facts)
        if self._is_sample:
            announce_sample()
        if self._has_fallen_back and self._form == "text":
            print_question(facts)

    @contextmanager
    def watching(self, total: Callable[[], int]) -> Iterator[Callable[[VideoResult], None]]:
        from dualformer_cli.outputs.progress import Progress

        with Progress("predict", total=total(), silent=not self._is_run and total() < 2) as progress:

            def show(result: VideoResult) -> None:
                with progress.paused():
                    self._result(result)
                progress.expect(total())
                progress.advance(note=shown_path(result.path))

            yield show

    def clip(self, clip: LiveClip) -> None:
        from dualformer_cli.outputs.predictions import print_clip

        if self._form == "text":
            print_clip(clip)
            self._has_clips = True
        elif self._form == "lines":
            _print_line(clip)

    def document(self, document: Predictions | PredictionRun) -> None:
        from dualformer_cli.documents.predict import PredictionRun
        from dualformer_cli.outputs.screen import wrote

        if self._form != "lines":
            as_json = self._form == "json"
            print_document(document, _print_sums, as_json=as_json)  # type: ignore[arg-type]  # mypy joins the two kinds
        if isinstance(document, PredictionRun):
            wrote(*document.files)

    def _result(self, result: VideoResult) -> None:
        from dualformer_cli.outputs.predictions import print_predictions
        from dualformer_cli.outputs.screen import log

        if self._form == "lines":
            _print_line(result)
        elif self._form == "text" and not self._is_run:
            if self._has_clips:
                typer.echo()
            print_predictions(result)
            self._has_clips = False
        if self._is_run and result.error is not None and result.path not in self._said:
            log(_line_of(result))
        if self._verbose and result.timing is not None:
            log(f"{shown_path(result.path)}: {_timing(result.timing)}")


def _line_of(result: VideoResult) -> str:
    """Return what is wrong with an input as a line."""
    return f"{shown_path(result.path)}: {result.error}"


def _print_line(document: VideoResult | LiveClip) -> None:
    from dualformer_cli.documents.base import to_json
    from dualformer_cli.outputs import json_text

    json_text.print_json(to_json(document), on_one_line=True)


def _print_sums(document: Predictions | PredictionRun) -> None:
    """Print what is left to say at the end, as each result of a handful was printed as it came."""
    from dualformer_cli.documents.predict import PredictionRun
    from dualformer_cli.outputs.predictions import print_counts, print_run

    if isinstance(document, PredictionRun):
        print_run(document)
    if document.compared is not None:
        print_counts(document.compared)


def announce(facts: ModelFacts) -> None:
    """Say on stderr which model looks at the videos, and how."""
    from dualformer_cli.outputs.screen import log

    log(f"{facts.model}, {facts.views} views, {facts.device} {facts.precision}")


def _timing(timing: Timing) -> str:
    return (
        f"decode {timing.decode_seconds:.2f} s, preprocess {timing.preprocess_seconds:.2f} s, "
        f"forward {timing.forward_seconds:.2f} s"
    )


def _end_of(document: Predictions | PredictionRun) -> int:
    """Return the exit code: whether a live input was interrupted, or an input could not be used."""
    from dualformer_cli.documents.predict import PredictionRun

    if isinstance(document, PredictionRun):
        return SOME_FAILED if document.videos.failed or document.videos.lost else 0
    if any(result.interrupted for result in document.results):
        return INTERRUPTED
    return SOME_FAILED if any(result.status != "ok" for result in document.results) else 0
