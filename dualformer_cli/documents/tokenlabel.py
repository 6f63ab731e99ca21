"""What `tokenlabel show` says: the classes of a clip's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClass:
    """How many tokens of a clip have a class as their best."""

    label: str
    index: int
    tokens: int
    percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a model says about each token of a clip."""

    path: str
    preset: str
    weights: str
    weights_sha256: str | None
    device: str
    precision: str
    head: str
    """The head that scored the tokens: classifier or token."""
    grid: tuple[int, ...]
    """Tokens in time, height and width."""
    frames: Sequence[int]
    classes: tuple[TokenClass, ...]
    """The most frequent first."""
    output: str | None
    """The picture; null where it could not be written."""
