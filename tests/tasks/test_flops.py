"""What a request asks of the counting."""

from __future__ import annotations

from typing import Any

import pytest

from dualformer_cli.tasks.flops import FlopsRequest, flops
from dualformer_cli.tasks.session import ModelRequest


@pytest.mark.parametrize(("by_module", "latency"), [(False, True), (True, False)])
def test_modules_and_times_are_asked_for_where_the_request_does(
    by_module: bool, latency: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def describe(config: Any, **options: Any) -> None:
        asked.append((config.data.test.num_crops, options))

    monkeypatch.setattr("dualformer_cli.engine.complexity.describe", describe)
    model = ModelRequest(preset="tiny", overrides=("data.test.num_crops=3",))
    flops(FlopsRequest(model=model, by_module=by_module, latency=latency))
    assert asked == [(3, {"name": "tiny", "with_modules": by_module, "with_latency": latency})]
