"""When the built-in model takes the place of the default one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from dualformer_cli.config.load import ResolvedConfig
from dualformer_cli.data.fetch.weights import require_reachable, shipped_weights, weights_within_reach
from dualformer_cli.documents.predict import BUILT_IN_QUESTION
from dualformer_cli.errors import DownloadError
from dualformer_cli.tasks.session import Fetching, ModelRequest, Session, resolve

_LOGGER = logging.getLogger(__name__)

BUILT_IN_PRESET = "camera-motion"
"""Model in the place of the default one where its weights cannot be had."""


def fall_back(session: Session, fetching: Fetching, note: Callable[[str], None]) -> None:
    """Take the built-in model where the user chose none and the weights of the default one cannot be had.

    Args:
        session: its configuration becomes that of the built-in model, and its `fallback` says why.
        fetching: shows how far a file is.
        note: told in two lines, on rank 0, that the built-in model is taken; -v says why.

    Raises:
        DownloadError: if the weights cannot be had and the package has no built-in model.
    """
    from dualformer_cli.engine.parallel.reductions import broadcast_object

    request, resolved = session.request, session.resolved
    if not _may_be_replaced(request, resolved):
        return

    def reach(preset: str) -> None:
        with fetching() as progress:
            weights_within_reach(preset, offline=request.offline, progress=partial(progress, preset))

    if session.ranks.is_main:
        session.resolved, session.fallback = _instead_of(resolved, request, reach, note)
    session.resolved = broadcast_object(session.resolved)


def resolve_what_runs(request: ModelRequest, note: Callable[[str], None], *, default: str) -> ResolvedConfig:
    """Return the configuration of the model that a request would run, without fetching its weights.

    Args:
        request: the model.
        note: as that of `fall_back`.
        default: as that of `resolve`.

    Raises:
        DualFormerError: what `resolve` and `fall_back` raise.
    """
    resolved = resolve(request, default=default)
    if not _may_be_replaced(request, resolved):
        return resolved
    return _instead_of(resolved, request, partial(require_reachable, offline=request.offline), note)[0]


def _may_be_replaced(request: ModelRequest, resolved: ResolvedConfig) -> bool:
    """Return whether the user has chosen neither a model, a preset nor weights."""
    return request.model is None and request.preset is None and resolved.config.weights is None


def _instead_of(
    resolved: ResolvedConfig, request: ModelRequest, reach: Callable[[str], None], note: Callable[[str], None]
) -> tuple[ResolvedConfig, str | None]:
    """Return the configuration to take, and why it is the built-in model's; None if it is the default one's."""
    preset = resolved.preset
    try:
        reach(preset)
    except DownloadError as error:
        if shipped_weights(BUILT_IN_PRESET) is None:
            raise
        note(f"{preset} is not here: the built-in {BUILT_IN_PRESET} answers {BUILT_IN_QUESTION}")
        note(f"for actions: dualformer download {preset} (-v says why it is not here)")
        _LOGGER.debug("%s", error)
        return resolve(replace(request, preset=BUILT_IN_PRESET)), str(error)
    return resolved, None
