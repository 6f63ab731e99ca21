"""The files that results of a handful of videos go to: checked before any work, written as results come."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dualformer_cli.config.schema import DataConfig
from dualformer_cli.documents.predict import FeatureRow, VideoResult
from dualformer_cli.errors import DualFormerError, reason_of
from dualformer_cli.outputs.prediction_files import PredictionTable, write_features, write_srt
from dualformer_cli.system.files import check_outputs, path_in_own_folder
from dualformer_cli.system.workers import WorkerPool

if TYPE_CHECKING:
    from dualformer_cli.engine.scoring.video_scores import Prediction
    from dualformer_cli.tasks.predict import PredictRequest


class PredictionOutputs:
    """The files that a request names.

    Args:
        request: with the files.
        inputs: which no output may be.

    Raises:
        DualFormerError: if a file could not be written in the end, or should not be replaced.
    """

    def __init__(self, request: PredictRequest, inputs: Sequence[str]) -> None:
        self.request, self.inputs = request, inputs
        self._srt: dict[str, Path] = {}
        self._save: dict[str, Path] = {}
        self._table = None if request.csv is None else PredictionTable(request.csv)
        self._features: list[FeatureRow] = []
        files = [path for path in (request.srt, request.save) if path is not None and not path.is_dir()]
        tables = [path for path in (request.csv, request.features) if path is not None]
        check_outputs([*tables, *files], inputs, overwrite=request.overwrite)
        if request.features is not None and request.features.suffix != ".npz":
            raise DualFormerError(f"--features {str(request.features)!r} must end in .npz")

    def name_files(self, files: Sequence[str]) -> None:
        """Give each video its own files.

        Raises:
            DualFormerError: if there is one file for several videos, two outputs have one name, or one exists.
        """
        request = self.request
        self._srt = _one_each(files, request.srt, option="--srt", suffixes=(".srt",))
        self._save = _one_each(files, request.save, option="--save", suffixes=(".mp4", ".gif"))
        chosen = [*self._srt.values(), *self._save.values()]
        chosen += [path for path in (request.csv, request.features) if path is not None]
        if twice := [str(path) for path, count in Counter(chosen).items() if count > 1]:
            raise DualFormerError(f"{twice[0]!r} is named for two outputs; name another file for one of them")
        check_outputs(chosen, self.inputs, overwrite=request.overwrite)

    def write_beside(self, prediction: Prediction, pool: WorkerPool, data: DataConfig) -> VideoResult:
        """Write the subtitles and the annotated video of one input; what fails becomes the input's error."""
        result, file = prediction.result, prediction.file
        if result.status != "ok":
            return result
        writers: tuple[tuple[dict[str, Path], Callable[[VideoResult, Path], None]], ...] = (
            (self._srt, write_srt),
            (self._save, lambda result, target: _save_annotated(replace(result, path=file), target, pool, data)),
        )
        for targets, write in writers:
            if (target := targets.get(result.path)) is None:
                continue
            try:
                write(result, target)
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

    def finish(self) -> None:
        """Write what is written at the end.

        Raises:
            DualFormerError: if a file could not be written; that after the others.
        """
        try:
            if self.request.features is not None:
                write_features(self._features, self.request.features)
        finally:
            if self._table is not None:
                self._table.close()


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


def _save_annotated(result: VideoResult, target: Path, pool: WorkerPool, data: DataConfig) -> None:
    """Have a worker draw the result onto its video."""
    with path_in_own_folder(target) as unfinished:
        pool.call(_annotate, (result, str(unfinished), data)).result()


def _annotate(job: tuple[VideoResult, str, DataConfig]) -> None:
    """Draw a result onto its video; runs in a worker, since it decodes the whole file."""
    from dualformer_cli.outputs.annotated_video import save_annotated
    from dualformer_cli.video.open import open_video

    result, target, data = job
    segments = result.segments
    ends = [segment.end_seconds for segment in segments or ()]
    lines = [(best.label, best.score) for best in result.predictions]
    decoder, rate, name = data.decoder, data.frame_rate, data.frame_name
    with open_video(result.path, decoder=decoder, frame_rate=rate, frame_name=name) as reader:
        fps, times = reader.info.fps or 25.0, reader.times_seconds

        def captions(seconds: float) -> Sequence[tuple[str, float]]:
            if segments is None:
                return lines
            # The copy has a constant frame rate; segments are in the time of the original.
            shown = seconds if times is None else times[round(seconds * fps)]
            now = segments[min(bisect_right(ends, shown), len(segments) - 1)]
            return [(now.label, now.score)]

        save_annotated(reader.frames(), target, fps=fps, captions=captions)
