"""What a model costs to run."""

from __future__ import annotations

from dataclasses import dataclass

from dualformer_cli.documents.flops import Flops
from dualformer_cli.tasks.session import ModelRequest, resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class FlopsRequest:
    """Which model, and what to say of it beside its totals."""

    model: ModelRequest
    by_module: bool = False
    latency: bool = False
    """Whether to time forward passes too."""


def flops(request: FlopsRequest) -> Flops:
    """Count multiply-adds and parameters, per view and per video.

    Raises:
        DualFormerError: what `resolve` raises, or if the device to time on is not on this machine.
    """
    from dualformer_cli.engine.complexity import describe

    resolved = resolve(request.model)
    return describe(resolved.config, name=resolved.preset, with_modules=request.by_module, with_latency=request.latency)
