"""What every step of a preparation works with: the plan, worker processes, the journal, and who is told of progress."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from dualformer_cli.data.prepare.journal import Journal
from dualformer_cli.data.prepare.plan import Plan
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.words import os_reason
from dualformer_cli.system.workers import WorkerPool

Watch = Callable[[str, int], AbstractContextManager[Callable[[str], None]]]
"""Takes what is done and the number of its pieces; gives a function to call with the name of each finished piece."""


def unwatched(_title: str, _total: int) -> AbstractContextManager[Callable[[str], None]]:
    """Return a `Watch`'s answer that shows nothing."""
    return nullcontext(lambda _name: None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the steps of a preparation share."""

    plan: Plan
    pool: WorkerPool
    journal: Journal
    watch: Watch
    say: Callable[[str], None] | None
    """Shows a line; None says nothing."""


def make_folder(path: str) -> None:
    """Make a folder of the root, or the root.

    Raises:
        DualFormerError: if it cannot be made.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        reason = os_reason(error)
        raise DualFormerError(f"cannot make the folder {path!r}: {reason}; name another one with --root") from None
