"""Which layer says what the class of a token is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch

from dualformer_cli.config.schema import DataConfig
from dualformer_cli.tasks import show_tokens as task


@pytest.mark.parametrize(("head", "expected"), [("classifier", [0, 1]), ("token", [1, 0])])
def test_tokens_have_the_classes_of_the_head_that_is_named(
    head: Literal["classifier", "token"], expected: list[int]
) -> None:
    """Two tokens, of which the classifier and the token head say the opposite of each other."""
    classifier, token_head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    with torch.no_grad():
        classifier.weight.copy_(torch.eye(2))
        token_head.weight.copy_(torch.eye(2).flip(0))
        for layer in (classifier, token_head):
            layer.bias.zero_()
    tokens = torch.eye(2)[None, None, None]  # (b, t, h, w, c)
    model = SimpleNamespace(classifier=classifier, token_head=token_head, forward_tokens=lambda clips: tokens)
    engine: Any = SimpleNamespace(model=model, config=SimpleNamespace(data=DataConfig()), device=torch.device("cpu"))
    views: Any = SimpleNamespace(clips=np.zeros((1, 2, 8, 8, 3), np.uint8))
    assert task._best_classes(engine, views, head).tolist() == [[expected]]
