"""Videos are classified inside a data pipeline: batches of paths come in, and go out with labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from dualformer_cli.tasks.built_in_model import fall_back
from dualformer_cli.tasks.session import DEFAULT_PRESET, Fetching, ModelRequest, open_session

_LOGGER = logging.getLogger(__name__)


class BatchPredictor:
    """A model that stays loaded from batch to batch, as the `map_batches` of Ray Data takes it: one for each actor.

    Args:
        model: which model runs, and where; that of `predict` without options when None.
        column: the column of a batch with paths of videos.

    Raises:
        DualFormerError: if weights, class names or the device do not fit.
    """

    def __init__(self, model: ModelRequest | None = None, *, column: str = "path") -> None:
        self._column = column
        self._opened = ExitStack()
        quiet: Fetching = lambda: nullcontext(lambda name, done, total: None)  # noqa: E731
        self._session = self._opened.enter_context(open_session(model or ModelRequest(), default=DEFAULT_PRESET))
        fall_back(self._session, quiet, _LOGGER.warning)
        self._engine = self._session.load_engine(quiet, bf16_on_cpu=True)

    def __call__(self, batch: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Classify the videos of a batch.

        Args:
            batch: columns of one length.

        Returns:
            The batch with the columns `label` and `score` of the best class, and `error`; a video that cannot be used
            has an error, an empty label and NaN for a score, the others have an empty error.
        """
        paths = map(str, batch[self._column])
        results = [prediction.result for prediction in self._engine.predict(paths, self._session.pool, top_k=1)]
        best = [result.predictions[0] if result.predictions else None for result in results]
        return {
            **batch,
            "label": np.array([label.label if label else "" for label in best], dtype=object),
            "score": np.array([label.score if label else np.nan for label in best], dtype=np.float64),
            "error": np.array([result.error or "" for result in results], dtype=object),
        }

    def close(self) -> None:
        """End the decoding processes; they also end with this one."""
        self._opened.close()
