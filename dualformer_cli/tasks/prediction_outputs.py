"""The files that results of a handful of videos go to: checked before any work, written as results come."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from dualformer_cli.config.schema import DataConfig
from dualformer_cli.documents.predict import FeatureRow, ModelFacts, VideoResult
from dualformer_cli.engine.score_settings import FREE_SETTINGS
from dualformer_cli.errors import DualFormerError, reason_of
from dualformer_cli.outputs.prediction_files import (
    SEGMENTS,
    SUBTITLES,
    PredictionTable,
    write_features,
    write_segments,
)
from dualformer_cli.outputs.predictions import best_shown, is_unsure, shown_parts
from dualformer_cli.outputs.predictions_page import page_files, write_predictions_page
from dualformer_cli.system.files import path_in_own_folder
from dualformer_cli.system.output_checks import check_output_folder, check_outputs
from dualformer_cli.system.result_parts import Parts
from dualformer_cli.system.words import counted
from dualformer_cli.system.workers import WorkerPool
from dualformer_cli.video.inputs import InputList
from dualformer_cli.video.parts import WHOLE, split_part
from dualformer_cli.video.reader import USUAL_FPS

if TYPE_CHECKING:
    from dualformer_cli.engine.scoring.video_scores import Prediction
    from dualformer_cli.tasks.predict import PredictRequest


FORMAT = 2
"""Of the lines in the parts of a run folder; results of another one are not gone on with."""


def parts_of(request: PredictRequest, settings: Mapping[str, object] = MappingProxyType({})) -> Parts:
    """Return the parts of a run folder, with what its results depend on: the request's own options and these settings.

    Args:
        request: with the folder.
        settings: of the model, or those of them that are known.
    """
    assert request.output is not None
    options = {"--top-k": request.top_k, "--every": request.every_seconds, "--features": request.features is not None}
    options["--min-score"] = request.min_score
    settings = {"format": FORMAT, **options, **settings}
    return Parts(request.output / "parts", settings, holds="predictions", free=FREE_SETTINGS)


class PredictionOutputs:
    """The files that a request names.

    Args:
        request: with the files.
        found: the inputs, which no output may be.

    Raises:
        DualFormerError: if a file could not be written in the end, or should not be replaced.
    """

    def __init__(self, request: PredictRequest, found: InputList) -> None:
        self.request, self.inputs = request, [split_part(path)[0] for path in found.paths]
        self._beside = dict(request.subtitles) if request.save is None else {**request.subtitles, "save": request.save}
        """What each video has a file of its own in, by the name of the option."""
        self._files_of: dict[str, dict[str, Path]] = {}
        self._table = None if request.csv is None else PredictionTable(request.csv, with_labels=bool(found.labels))
        self._features: list[FeatureRow] = []
        files = [path for path in self._beside.values() if not path.is_dir()]
        self._tables = [path for path in (request.csv, request.features, request.segments) if path is not None]
        if request.report is not None:
            self._tables += page_files(request.report, len(found.paths) + len(found.problems))
        if request.output is not None:
            _check_run(request)
            self._tables = [path for path in self._tables if path.parent != request.output]  # the run makes them again
        check_outputs([*self._tables, *files], self.inputs, overwrite=request.overwrite)
        if request.font is not None:
            _check_font(request.font, has_pictures=request.save is not None)
        for option, target, suffix in (("--features", request.features, ".npz"), ("--report", request.report, ".html")):
            if target is not None and target.suffix != suffix:
                raise DualFormerError(f"{option} {str(target)!r} must end in {suffix}")
        if request.segments is not None and request.segments.suffix not in SEGMENTS:
            raise DualFormerError(f"--segments {str(request.segments)!r} must end in {' or '.join(SEGMENTS)}")

    def name_files(self, files: Sequence[str]) -> None:
        """Give each video its own files.

        Raises:
            DualFormerError: if there is one file for several videos, two outputs have one name, or one exists.
        """
        request = self.request
        if request.output is not None:
            return
        for name, target in self._beside.items():
            suffixes = (".mp4", ".gif") if name == "save" else (f".{name}",)
            self._files_of[name] = _one_each(files, target, option=f"--{name}", suffixes=suffixes)
        chosen = [*(path for of in self._files_of.values() for path in of.values()), *self._tables]
        if twice := [str(path) for path, count in Counter(chosen).items() if count > 1]:
            raise DualFormerError(f"{twice[0]!r} is named for two outputs; name another file for one of them")
        check_outputs(chosen, self.inputs, overwrite=request.overwrite)

    def write_beside(self, prediction: Prediction, pool: WorkerPool, data: DataConfig) -> VideoResult:
        """Write the subtitles and the annotated video of one input; what fails becomes the input's error."""
        result, file = prediction.result, prediction.file
        if result.status != "ok":
            return result
        font = self.request.font

        def save(result: VideoResult, target: Path) -> str | None:
            if split_part(result.path)[1] != WHOLE:
                raise DualFormerError("--save draws whole videos, and this is a part of one; leave it out")
            return _save_annotated(replace(result, path=file), target, pool, data, font)

        writers: Mapping[str, Callable[[VideoResult, Path], str | None]] = {**SUBTITLES, "save": save}
        for name, files_of in self._files_of.items():
            if (target := files_of.get(result.path)) is None:
                continue
            try:
                if (problem := writers[name](result, target)) is not None:
                    warning = f"saved without some or all of its sound: {problem}"
                    result = replace(result, warnings=(*(result.warnings or ()), warning))
            except Exception as error:  # of any kind: it costs this file
                reason = f"classified, but not saved: {reason_of(error)}"
                result = replace(result, status="error", error=reason)
        return result

    def add(self, result: VideoResult, features: Sequence[FeatureRow]) -> None:
        """Take a result in, on rank 0; the table has its rows from now on."""
        if self._table is not None:
            self._table.add(result)
        if self.request.features is not None:
            self._features.extend(replace(row, path=result.path) for row in features)

    def finish(
        self,
        results: Sequence[VideoResult],
        *,
        facts: ModelFacts | None = None,
        fallback: str | None = None,
        pool: WorkerPool | None = None,
    ) -> None:
        """Write what is written at the end.

        Args:
            results: of all inputs.
            facts, fallback, pool: as the page of a report takes them.

        Raises:
            DualFormerError: if a file could not be written; that after the others.
        """
        features, report = self.request.features, self.request.report
        with ExitStack() as stack:  # each is called, whatever another one raises
            if self._table is not None:
                stack.callback(self._table.close)
            if report is not None:
                stack.callback(write_predictions_page, results, report, facts=facts, fallback=fallback, pool=pool)
            if features is not None:
                stack.callback(write_features, self._features, features)
            if self.request.segments is not None:
                stack.callback(write_segments, lambda: results, self.request.segments)

    def written(self, results: Sequence[VideoResult]) -> list[str]:
        """Return the files that were written, in words: each by its name, those in a folder by number and kind."""
        request = self.request
        files = [str(path) for path in (request.csv, request.features, request.segments) if path is not None]
        if request.report is not None:
            files += map(str, page_files(request.report, len(results)))
        number = sum(result.status == "ok" for result in results)
        for name, target in self._beside.items() if number else ():
            kind = "MP4 file" if name == "save" else f"{name.upper()} file"
            files.append(f"{counted(number, kind)} in {target}" if target.is_dir() else str(target))
        return files


def _check_run(request: PredictRequest) -> None:
    """Refuse a run folder that cannot be, and outputs that it has no use for."""
    assert request.output is not None
    given = {"csv": request.csv, **request.subtitles, "save": request.save}
    if named := next((f"--{name}" for name, path in given.items() if path is not None), None):
        raise DualFormerError(
            f"{named} goes with a handful of videos; --output {str(request.output)!r} writes predictions.jsonl and "
            f"predictions.csv; leave {named} out"
        )
    check_output_folder(request.output)
    parts_of(request).check()


def _check_font(font: Path, *, has_pictures: bool) -> None:
    from dualformer_cli.outputs.fonts import prefer

    if not has_pictures:
        raise DualFormerError("--font is that of the labels in --save; name the video to write, or leave it out")
    prefer(font)


def _one_each(inputs: Sequence[str], target: Path, *, option: str, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Give each input its own output: the file named, or inside the folder named one file called after each input."""
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
            f"{option} {str(target)!r} must end in {' or '.join(suffixes)}, or be a folder, with a / at its end"
        )
    if len(inputs) > 1:
        raise DualFormerError(
            f"{option} {str(target)!r} is one file, but there are {len(inputs)} videos; name a folder, with "
            "a / at its end"
        )
    return dict.fromkeys(inputs, target)


def _save_annotated(
    result: VideoResult, target: Path, pool: WorkerPool, data: DataConfig, font: Path | None
) -> str | None:
    """Have a worker draw the result onto its video, and return why its sound is missing."""
    with path_in_own_folder(target) as unfinished:
        return pool.call(_annotate, (result, str(unfinished), data, font)).result()


def _annotate(job: tuple[VideoResult, str, DataConfig, Path | None]) -> str | None:
    """Draw a result onto its video; runs in a worker, since it decodes the whole file."""
    from dualformer_cli.outputs.annotated_video import save_annotated
    from dualformer_cli.outputs.fonts import prefer
    from dualformer_cli.video.open import open_video

    result, target, data, font = job
    prefer(font)
    segments = shown_parts(result)
    ends = [segment.end_seconds for segment in segments]
    labels = (best_shown(result),) if is_unsure(result) else result.predictions
    lines = [(best.label, best.score) for best in labels]
    decoder, rate, name = data.decoder, data.frame_rate, data.frame_name
    with open_video(result.path, decoder=decoder, frame_rate=rate, frame_name=name) as reader:
        fps, times = reader.info.fps or USUAL_FPS, reader.times_seconds

        def captions(seconds: float) -> Sequence[tuple[str, float]]:
            if not segments:
                return lines
            now = segments[min(bisect_right(ends, seconds), len(segments) - 1)]
            return [(now.label, now.score)]

        return save_annotated(
            reader.frames(),
            target,
            fps=fps,
            captions=captions,
            times=None if times is None else times.tolist(),
            sound_of=None if os.path.isdir(result.path) else result.path,
        )
