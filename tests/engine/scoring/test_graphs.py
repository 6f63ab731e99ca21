"""Graphs of a forward pass, on a double of CUDA's that computes again, in place, what was computed in its capture."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from dualformer_cli.config.load import load_config
from dualformer_cli.engine.build import build_model
from dualformer_cli.engine.scoring.graphs import MOST_GRAPHS, ForwardGraphs
from dualformer_cli.engine.scoring.scorer import Scorer


class RecordedGraph:
    """Operations with their operands and results, as memory: a replay reads and writes the same tensors."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., Any], Any, Any, list[Any]]] = []

    def replay(self) -> None:
        for function, arguments, options, results in self.calls:
            for old, new in zip(results, tree_flatten(function(*arguments, **options))[0], strict=True):
                if isinstance(old, Tensor):
                    old.copy_(new)


class Streams:
    """Makes a stream the current one, and then the one before."""

    current = "default"

    def __init__(self, stream: str) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        self.before, Streams.current = Streams.current, self.stream

    def __exit__(self, *_: object) -> None:
        Streams.current = self.before


class _Capture(TorchDispatchMode):
    """As PyTorch's, it restores the stream after its capture has ended, and thus not where that raises."""

    def __init__(self, graph: RecordedGraph, *, stream: str, **_: object) -> None:
        super().__init__()
        self.graph, self.streams = graph, Streams(stream)

    def __enter__(self) -> Any:
        self.streams.__enter__()
        return super().__enter__()

    def __exit__(self, *of: Any) -> None:
        super().__exit__(*of)
        self.end()
        self.streams.__exit__()

    def end(self) -> None:
        """End the capture."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        self.graph.calls.append((function, args, kwargs or {}, tree_flatten(found)[0]))
        return found


@pytest.fixture(autouse=True)
def _card(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """As much of CUDA as graphs ask for."""
    monkeypatch.setattr(torch.cuda, "CUDAGraph", RecordedGraph)
    monkeypatch.setattr(torch.cuda, "graph", _Capture)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: "of the capture")
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(Streams, "current", "default")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Streams.current)
    monkeypatch.setattr(torch.cuda, "stream", Streams)
    reserved = iter(range(0, 2**40, 3 * 2**20))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: next(reserved))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    caplog.set_level(logging.WARNING)  # whatever tests before have left


class Pass:
    """A forward pass that counts how often Python runs it."""

    def __init__(self) -> None:
        self.linear = torch.nn.Linear(3, 5)
        self.lengths: list[int] = []

    def __call__(self, x: Tensor, shift: Tensor) -> Tensor:
        self.lengths.append(len(x))
        return self.linear(x + shift).relu().cumsum(0)


@pytest.fixture
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def inputs(length: int) -> tuple[Tensor, Tensor]:
    return torch.randn(length, 3), torch.randn(3)


@pytest.mark.usefixtures("_inference")
def test_a_pass_is_captured_the_second_time_and_each_later_one_has_its_own_numbers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    forward, right = Pass(), Pass()
    right.linear = forward.linear
    graphs = ForwardGraphs(forward)
    given = [inputs(4) for _ in range(5)]
    found = [graphs(*each) for each in given]
    assert forward.lengths == [4, 4], "once as it is, once to be captured"
    for value, each in zip(found, given, strict=True):
        assert torch.equal(value, right(*each)), "a later replay has written over it"
    assert caplog.messages == ["a CUDA graph of 4 views keeps 3 MiB of the GPU's memory"]


@pytest.mark.usefixtures("_inference")
def test_few_shapes_are_kept_and_others_are_computed_as_before() -> None:
    forward = Pass()
    graphs = ForwardGraphs(forward)
    for length in [*range(1, MOST_GRAPHS + 2)] * 3:
        assert graphs(*inputs(length)).shape == (length, 5)
    most = MOST_GRAPHS + 1
    assert [forward.lengths.count(length) for length in range(1, most + 1)] == [2] * MOST_GRAPHS + [3]
    x, shift = inputs(6)
    assert torch.equal(graphs(x[::2], shift), forward(x[::2], shift)), "another layout in memory is another shape"


@pytest.mark.usefixtures("_inference")
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("operation not permitted\nwhen stream is capturing"), "this pass cannot be captured: operation "
         "not permitted"),
        (torch.OutOfMemoryError("CUDA out of memory"), "the GPU's memory does not hold them"),
    ],
)  # fmt: skip
def test_what_cannot_be_captured_is_said_once_and_computed_without(
    error: Exception, reason: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Pass()
    graphs = ForwardGraphs(forward)
    for _ in range(2):
        graphs(*inputs(2))
    assert len(forward.lengths) == 2

    def fail(capture: _Capture) -> None:
        raise error

    ended: list[Any] = []

    def end_allocations(device: Any, pool: str) -> None:
        ended.append(pool)
        raise RuntimeError("not currently recording to this pool")  # newer versions of PyTorch have done it

    monkeypatch.setattr(_Capture, "end", fail)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end_allocations, raising=False)
    for length in (3, 3, 3, 2, 4, 4):
        each = inputs(length)
        assert torch.equal(graphs(*each), forward(*each))
        assert Streams.current == "default"
    assert ended == ["pool"]
    assert caplog.messages == [f"going on without CUDA graphs: {reason}"]
    assert graphs._graphs == {}, "what was captured before gives its memory back"


def scorer_of(toy_preset: Path, monkeypatch: pytest.MonkeyPatch) -> Scorer:
    """A scorer that takes its processor for a card, with graphs, two views at a time."""
    config = load_config(str(toy_preset), environ={}).config
    torch.manual_seed(0)
    model = build_model(config.model, config.data).eval()
    scorer = Scorer(model, mean=config.data.mean, std=config.data.std)
    scorer._graphs = scorer._tokens = ForwardGraphs(model.forward_tokens)  # type: ignore[assignment]
    scorer.batch_size = 2
    monkeypatch.setattr(scorer, "_is_small", lambda clips: False)
    monkeypatch.setattr(scorer, "_score_on_threads", lambda pieces: [])
    return scorer


def views_of(toy_preset: Path, count: int) -> np.ndarray:
    data = load_config(str(toy_preset), environ={}).config.data
    shape = (count, data.clip.num_frames, data.crop_size, data.crop_size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_views_score_the_same_from_a_graph(toy_preset: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, views = scorer_of(toy_preset, monkeypatch), views_of(toy_preset, 7)
    scores, features = scorer.score(views)
    assert scorer._graphs is not None
    assert [kind[0][0][0] for kind in scorer._graphs._graphs] == [2], "of two views; one was left over, once"
    scorer._tokens = scorer.model.forward_tokens
    expected = scorer.score(views)
    assert np.array_equal(scores, expected[0])
    assert np.array_equal(features, expected[1])


def test_a_full_card_gives_up_its_graphs_before_it_takes_fewer_views(
    toy_preset: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scorer, views = scorer_of(toy_preset, monkeypatch), views_of(toy_preset, 4)
    expected = scorer.score(views)
    compute, full = scorer._score_batch, iter([True, True])

    def limited(clips: Any) -> Any:
        if next(full, False):
            raise torch.OutOfMemoryError
        return compute(clips)

    monkeypatch.setattr(scorer, "_score_batch", limited)
    found = scorer.score(views)
    assert caplog.messages == [
        "going on without CUDA graphs: GPU memory is full",
        "GPU memory is full: scoring 1 views at a time",
    ]
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=1e-6)


def test_a_scorer_has_graphs_where_they_are_asked_for_and_possible(
    toy_preset: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_config(str(toy_preset), environ={}).config
    model = build_model(config.model, config.data)
    colours = {"mean": config.data.mean, "std": config.data.std}
    assert Scorer(model, **colours, graphs=True)._graphs is None
    assert caplog.messages == ["runtime.cuda_graphs: there are none on cpu"]
    with pytest.raises(ValueError, match="under autocast"):
        Scorer(model, **colours, graphs=True, autocast=torch.bfloat16)
    on_card = SimpleNamespace(
        parameters=lambda: iter([SimpleNamespace(device=torch.device("cuda"))]),
        takes_frames=lambda: True,
        forward_frames=model.forward_frames,
    )
    scorer = Scorer(on_card, **colours, graphs=True)  # type: ignore[arg-type]
    assert scorer._tokens is scorer._graphs
    assert isinstance(scorer._graphs, ForwardGraphs)
    assert Scorer(on_card, **colours)._tokens == model.forward_frames  # type: ignore[arg-type]
