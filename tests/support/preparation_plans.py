"""Plans of `prepare` for tests: they say all that one has, and tests say what theirs is about."""

from __future__ import annotations

from typing import Any

from dualformer_cli.data.prepare.plan import Plan


def plan_of(content: Any, root: object, **options: Any) -> Plan:
    """Return a plan that shrinks to 256 pixels, has one worker, and gives a decoder 20 seconds, but for `options`."""
    usual = {"shares": (0.8, 0.2), "short_side": 256, "quality": 23, "num_workers": 1, "timeout_seconds": 20.0}
    return Plan(content=content, root=str(root), **{**usual, **options})
