"""What `flops` says of a model: multiply-adds and parameters, and on request the modules' shares and the latency."""

from __future__ import annotations

from dataclasses import dataclass

from dualformer_cli.documents.base import absent


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleCost:
    """The cost of one module with everything inside it."""

    module: str
    """Its name in `model.named_modules()`."""
    multiply_adds: int
    """Per view."""
    parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Times of repeated forward passes over a batch of random clips."""

    device: str
    precision: str
    compiled: bool
    num_threads: int
    """CPU threads that torch uses."""
    batch_size: int
    num_runs: int
    median_ms: float
    p20_ms: float
    p80_ms: float
    clips_per_second: float
    """At the median."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """What a model costs."""

    model: str
    num_classes: int
    input: tuple[int, int, int, int]
    """Channels, frames, height and width of one clip."""
    views: int
    """Of a test video."""
    multiply_adds_per_view: int
    """Of the backbone, which is what the published table counts."""
    multiply_adds_per_video: int
    parameters_backbone: int
    parameters: int
    by_module: tuple[ModuleCost, ...] | None = absent()
    """Stages, their parts, and attention and MLP of every block, in the model's order."""
    latency: Latency | None = absent()
