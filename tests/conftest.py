"""Fixtures that tests of every folder share: the golden files and the number pattern that made them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"


def integer_hash_pattern(key: str, shape: Sequence[int]) -> np.ndarray:
    """Numbers in [-1, 1) that depend on `key` and the flat index only, float64: the inputs of the golden files."""
    x = np.arange(int(np.prod(shape)), dtype=np.uint64)
    x += np.uint64(((zlib.crc32(key.encode()) << 32) + 0x9E3779B97F4A7C15) % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return ((x >> np.uint64(40)).astype(np.float64) / 2**23 - 1).reshape(tuple(shape))


@pytest.fixture(scope="session")
def pattern() -> Callable[[str, Sequence[int]], np.ndarray]:
    """The function pattern(key, shape) -> float64 array in [-1, 1), as the golden files' notes write it."""
    return integer_hash_pattern


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Any]:
    """The function golden(name) -> content of tests/golden/<name>.json, for example golden("golden_recipe")."""

    def load(name: str) -> Any:
        return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))

    return load
