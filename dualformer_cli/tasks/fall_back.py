"""When the built-in model takes the place of the default one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from dualformer_cli.data.fetch.weights import shipped_weights, weights_within_reach
from dualformer_cli.engine.parallel.reductions import broadcast_object
from dualformer_cli.errors import DownloadError
from dualformer_cli.tasks.session import Fetching, Session, resolve

BUILT_IN_PRESET = "camera-motion"
"""Model in the place of the default one where its weights cannot be had."""


def fall_back(session: Session, fetching: Fetching, note: Callable[[str], None]) -> None:
    """Take the built-in model where the user chose none and the weights of the default one cannot be had.

    Args:
        session: its configuration becomes that of the built-in model, and its `fallback` says why.
        fetching: shows how far a file is.
        note: told in one line, on rank 0, that the built-in model is taken and why.

    Raises:
        DownloadError: if the weights cannot be had and the package has no built-in model.
    """
    preset, request = session.resolved.preset, session.request
    if request.model is not None or request.preset is not None or session.resolved.config.weights is not None:
        return
    if session.ranks.is_main and (reason := _why_not(preset, fetching, offline=session.request.offline)) is not None:
        note(
            f"using the built-in model {BUILT_IN_PRESET}, which tells how the camera moves, because the Kinetics "
            f"model is not here and could not be fetched: {reason}; or run dualformer download {preset}"
        )
        session.resolved, session.fallback = resolve(replace(session.request, preset=BUILT_IN_PRESET)), reason
    session.resolved = broadcast_object(session.resolved)


def _why_not(preset: str, fetching: Fetching, *, offline: bool) -> str | None:
    """Return why a preset's weights cannot be had; None if they can."""
    try:
        with fetching() as progress:
            weights_within_reach(preset, offline=offline, progress=partial(progress, preset))
    except DownloadError as error:
        if shipped_weights(BUILT_IN_PRESET) is None:
            raise
        return str(error)
    return None
