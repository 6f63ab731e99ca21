"""The kernels compiled for GPUs that need not be here: memory, registers, matrix instructions, and how often."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

triton = pytest.importorskip("triton", reason="needs the package triton")

from compiled_kernels import CUOBJDUMP, OPERATIONS, SHARED_KIB, Launch, compiling_for, empty, usage  # noqa: E402

from dualformer_cli.kernels import backend  # noqa: E402
from dualformer_cli.kernels import pyramid_pool_kernel as pool  # noqa: E402
from dualformer_cli.kernels.backend import is_interpreted  # noqa: E402

TABLE = Path(__file__).parents[1] / "benchmarks" / "kernel_table.py"

pytestmark = [
    pytest.mark.skipif(is_interpreted(), reason="needs TRITON_INTERPRET unset"),
    pytest.mark.skipif(not CUOBJDUMP.is_file(), reason="needs the cuobjdump of triton's Linux wheel"),
]

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
WIDTH = {"bias_gelu": 256, "frame_patches": 4}
"""Channels of an operation, or pixels along a patch, as in the table; 64 channels of the others."""


def compiled(operation: str, width: int, dtype: torch.dtype, capability: int, *, b: int = 2) -> list[Launch]:
    with compiling_for(capability) as launches:
        OPERATIONS[operation][0](width, dtype, b=b)
    assert launches
    return launches


def check(launches: list[Launch], capability: int) -> None:
    """Nothing is spilled, and the card has as much shared memory."""
    for kernel, code in launches:
        taken = usage(code)
        assert taken.spilled_bytes == 0, f"{kernel} spills: {taken}"
        assert taken.shared_kib <= SHARED_KIB[capability], f"{kernel} wants too much: {taken}"


# 80, 90 and 100 compile to different instructions; 86, 89 and 120 are as 80, with less shared memory
@pytest.mark.parametrize(
    ("capability", "width", "instruction"),
    [
        (80, 32, "mma.sync"),
        (80, 24, "mma.sync"),
        (80, 64, "mma.sync"),
        (86, 48, "mma.sync"),
        (86, 64, "mma.sync"),
        (120, 64, "mma.sync"),
        (90, 32, "wgmma.mma_async"),
        (80, 48, "mma.sync"),
        (90, 48, "wgmma.mma_async"),
        (100, 64, "tcgen05.mma"),
        (100, 40, "tcgen05.mma"),
    ],
)
def test_window_attention_multiplies_in_matrix_units_and_spills_nothing(
    capability: int, width: int, instruction: str
) -> None:
    launches = compiled("window_attention", width, BF16, capability)
    check(launches, capability)
    assert all(instruction in code.asm["ptx"] for _, code in launches)


@pytest.mark.parametrize("capability", [80, 90])
def test_weights_are_added_up_by_the_matrix_units(capability: int) -> None:
    kernel, code = compiled("window_attention", 32, BF16, capability)[0]
    assert kernel == "window_attention_forward_kernel"
    of_a_thread = 64 * 64 // 128
    assert code.asm["ptx"].count("add.f32") < of_a_thread  # what remains is the maximum's negative and the end


@pytest.mark.parametrize(("capability", "width"), [(80, 32), (90, 64)])
def test_window_attention_in_float32_keeps_all_bits_and_spills_nothing(capability: int, width: int) -> None:
    launches = compiled("window_attention", width, FP32, capability)
    check(launches, capability)
    assert all("tf32" not in code.asm["ptx"] for _, code in launches)


@pytest.mark.parametrize(
    ("operation", "width", "dtype", "capability"),
    [
        ("depthwise_conv3d", 64, BF16, 80),
        ("depthwise_conv3d", 64, FP32, 86),
        ("depthwise_conv3d", 64, FP32, 100),
        ("pyramid_pool", 64, BF16, 86),
        ("pyramid_pool", 64, FP16, 90),
        ("add_layer_norm", 64, BF16, 80),
        ("add_layer_norm", 1024, BF16, 90),
        ("bias_gelu", 256, BF16, 80),
        ("frame_patches", 4, BF16, 80),
    ],
)
def test_other_operations_spill_nothing(operation: str, width: int, dtype: torch.dtype, capability: int) -> None:
    check(compiled(operation, width, dtype, capability), capability)


@pytest.mark.parametrize(
    "operation", ["depthwise_conv3d", "pyramid_pool", "add_layer_norm", "bias_gelu", "frame_patches"]
)
def test_another_number_of_clips_compiles_nothing_anew(operation: str) -> None:
    capability = 86 if operation == "pyramid_pool" else 80
    first = [code for _, code in compiled(operation, WIDTH.get(operation, 64), BF16, capability, b=1)]
    for b in (2, 7, 64):
        again = [code for _, code in compiled(operation, WIDTH.get(operation, 64), BF16, capability, b=b)]
        assert all(one is other for one, other in zip(first, again, strict=True))


def test_compiling_is_said_once_and_not_where_the_kernels_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    fine, weight = empty(1, 1, 2, 2, 16, dtype=BF16), empty(16, 1, 1, 2, 2, dtype=BF16)
    x = empty(1, 1, 4, 4, 16, dtype=BF16)
    backend.say_once.cache_clear()
    for capability in (89, 89, 120):
        pool.pyramid_pool_backward_input_kernel.device_caches.pop(capability, None)  # as in another process
        with compiling_for(capability):
            pool.backward_input(fine, weight, fine, None, x)
    assert caplog.messages == [f"compiling GPU kernels, once; they are kept in {tmp_path}"]
    backend.say_once.cache_clear()
    pool.pyramid_pool_backward_input_kernel.device_caches.pop(89)
    with compiling_for(89):
        pool.backward_input(fine, weight, fine, None, x)
    assert len(caplog.messages) == 1


@pytest.fixture
def table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kernel_table", TABLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_shows_each_kernel_and_fails_where_one_spills(
    table: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--capability", "80", "--operation", "depthwise_conv3d", "--dtype", "bfloat16", "--width", "64"]
    assert table.main(options) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    kernels = ("forward", "forward", "backward_weight")
    assert [row.split(" | ")[:4] for row in rows] == [
        ["| sm_80", f"depthwise_conv3d_{kernel}_kernel", "bfloat16", "64"] for kernel in kernels
    ]
    monkeypatch.setattr(table, "usage", lambda code: usage(code)._replace(spilled_bytes=8))
    assert table.main(options) == 1
    said = capsys.readouterr().err
    assert said.startswith("3 launches, at most ")
    assert said.endswith("; 3 spill or want too much shared memory\n")
