"""The switch between kernels and PyTorch, and what it says."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Literal, get_args

import pytest
import torch

from dualformer_cli.kernels import backend
from dualformer_cli.kernels.depthwise_conv3d import depthwise_conv3d, depthwise_conv3d_reference
from dualformer_cli.kernels.pyramid_pool import pyramid_pool
from dualformer_cli.kernels.window_attention import attends_with_triton, window_attention, window_attention_reference

CUDA = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _nothing_said() -> Iterator[None]:
    backend.say_once.cache_clear()
    yield
    backend.say_once.cache_clear()


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend that there is a card of a CUDA capability."""

    def insert(*capability: int) -> None:
        monkeypatch.setattr(backend, "find_spec", lambda name: object())
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Card 1")

    return insert


def test_a_cpu_computes_with_pytorch_and_says_so_once_where_triton_was_asked_for(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(backend, "find_spec", lambda name: object())
    qkv = torch.randn(1, 2, 2, 2, 48)
    expected = window_attention_reference(qkv, (2, 2, 2), 1)
    assert torch.equal(window_attention(qkv, (2, 2, 2), 1), expected)
    assert not caplog.records
    for _ in range(2):
        assert torch.equal(window_attention(qkv, (2, 2, 2), 1, backend="triton"), expected)
    assert caplog.messages == ["computing with PyTorch instead of Triton kernels: they do not run on cpu"]


def test_a_machine_without_triton_says_so(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    assert not backend.uses_triton("triton", torch.zeros(1))
    assert "the package triton is not installed" in caplog.text


def test_what_autocast_does_not_lower_is_computed_in_the_widest_type_of_its_tensors() -> None:
    half, single = torch.zeros(1, dtype=torch.float16), torch.zeros(1)
    assert backend._widest((single, half, 3, None)) == torch.float32
    assert backend._widest((half, single, half)) == torch.float32
    assert backend._widest((half, torch.zeros(1, dtype=torch.bfloat16))) == torch.float32


@pytest.mark.parametrize("capability", [(8, 0), (9, 0), (12, 0)])
def test_cards_from_capability_8_run_the_kernels(capability: tuple[int, int], card: Any) -> None:
    card(*capability)
    assert all(backend._decide(CUDA, dtype, None) for dtype in backend.DTYPES)


def test_an_older_card_falls_back_and_is_named_once(card: Any, caplog: pytest.LogCaptureFixture) -> None:
    card(7, 5)
    with caplog.at_level(logging.WARNING, logger="dualformer_cli"):
        assert not backend._decide(CUDA, torch.float16, None)
        assert not backend._decide(CUDA, torch.float32, None)
    assert caplog.messages == [
        "computing with PyTorch instead of Triton kernels: they need CUDA capability 8.0, Card 1 has 7.5"
    ]


def test_a_type_and_a_head_width_without_kernels_are_named(
    card: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    card(9, 0)
    assert not backend._decide(CUDA, torch.float64, None)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert not attends_with_triton(torch.zeros(1), 20, "triton")
    assert [message.split(": ")[1] for message in caplog.messages] == [
        "there are none for float64",
        "window attention has none for 20 channels per head",
    ]


def test_attention_in_float32_is_left_to_pytorch_unless_asked_for_or_lowered_by_autocast(
    card: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    card(9, 0)
    tokens: Any = SimpleNamespace(device=CUDA, dtype=torch.float32)
    assert not attends_with_triton(tokens, 32)
    assert attends_with_triton(tokens, 32, "triton")
    low: Any = SimpleNamespace(device=CUDA, dtype=torch.bfloat16)
    assert attends_with_triton(low, 32)
    assert not attends_with_triton(low, 32, "torch")
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.float16)
    assert attends_with_triton(tokens, 32)
    assert not caplog.records
    assert not attends_with_triton(torch.zeros(1, device="meta"), 32)  # which autocast does not know


def test_a_further_backend_leaves_to_pytorch_what_is_not_its_own(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    card(9, 0)
    monkeypatch.setattr(backend, "Backend", Literal["auto", "triton", "torch", "flex"])
    tokens: Any = SimpleNamespace(device=CUDA, dtype=torch.bfloat16)
    assert [name for name in get_args(backend.Backend) if backend.uses_triton(name, tokens)] == ["auto", "triton"]


def test_a_backend_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="backend must be one of auto, triton, torch, got 'cuda'"):
        backend.uses_triton("cuda", torch.zeros(1))  # type: ignore[arg-type]


def test_sizes_that_do_not_fit_are_named() -> None:
    x = torch.zeros(1, 2, 4, 4, 6)
    with pytest.raises(ValueError, match=r"tokens \(1, 2, 4, 4, 6\), .* do not divide into windows of \(2, 3, 4\)"):
        window_attention(x, (2, 3, 4), 1)
    with pytest.raises(ValueError, match="6 channels of qkv are not 3 times 4 equal heads"):
        window_attention(x, (2, 4, 4), 4)
    with pytest.raises(ValueError, match="6 channels of qkv are not 3 times 0 equal heads"):
        window_attention(x, (2, 4, 4), 0)
    with pytest.raises(ValueError, match=r"tokens \(1, 2, 4, 4, 6\), .* do not divide into windows of \(2, 0, 4\)"):
        window_attention(x, (2, 0, 4), 1)
    with pytest.raises(ValueError, match=r"token grid \(0, 4, 4\) does not divide into boxes of \(2, 2, 2\)"):
        pyramid_pool(x[:, :0], torch.zeros(6, 1, 2, 2, 2), torch.zeros(6))
    with pytest.raises(ValueError, match=r"got \(1, 2, 4, 4, 6\), \(6, 1, 3, 3, 1\) and \(6,\)"):
        depthwise_conv3d(x, torch.zeros(6, 1, 3, 3, 1), torch.zeros(6))
    with pytest.raises(ValueError, match=r"token grid \(2, 4, 4\) does not divide into boxes of \(2, 3, 2\)"):
        pyramid_pool(x, torch.zeros(6, 1, 2, 3, 2), torch.zeros(6))
    with pytest.raises(ValueError, match="coarse_weight and coarse_bias go together"):
        pyramid_pool(x, torch.zeros(6, 1, 2, 2, 2), torch.zeros(6), torch.zeros(6, 1, 2, 2, 2))


def test_a_compiled_model_asks_the_switch_without_breaking_its_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    x, weight, bias = torch.randn(1, 2, 3, 3, 4), torch.randn(4, 1, 3, 3, 3), torch.randn(4)
    compiled = torch.compile(
        lambda *inputs: depthwise_conv3d(*inputs, backend="triton"), fullgraph=True, backend="eager"
    )
    torch.testing.assert_close(compiled(x, weight, bias), depthwise_conv3d_reference(x, weight, bias))


def test_operands_of_several_devices_are_refused() -> None:
    x = torch.zeros(2)
    backend.check_operands(x, None, x)
    with pytest.raises(ValueError, match="one type and on one device, got float32 on cpu, float32 on meta"):
        backend.check_operands(x, None, x.to("meta"))
    with pytest.raises(ValueError, match="must be on one device, got float32 on cpu, bfloat16 on meta"):
        backend.check_operands(x, x.to("meta", torch.bfloat16), one_type=False)
    backend.check_operands(x, x.bfloat16(), one_type=False)
