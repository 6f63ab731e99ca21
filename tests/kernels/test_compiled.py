"""The kernels compiled for GPUs that need not be here: memory, registers, matrix instructions."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="needs the package triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from dualformer_cli.kernels import depthwise_conv3d_kernel as conv  # noqa: E402
from dualformer_cli.kernels import pyramid_pool_kernel as pool  # noqa: E402
from dualformer_cli.kernels import window_attention_kernel as window  # noqa: E402
from dualformer_cli.kernels.backend import is_interpreted  # noqa: E402

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"

pytestmark = [
    pytest.mark.skipif(is_interpreted(), reason="needs TRITON_INTERPRET unset"),
    pytest.mark.skipif(not CUOBJDUMP.is_file(), reason="needs the cuobjdump of triton's Linux wheel"),
]

SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024}
"""Shared memory that a block can have, by CUDA capability."""

FLOAT32_TENSORS = {"logsumexp", "delta", "partial"}
NUMBERS = {"scale": "fp32"}

ATTENTION = {
    "forward": (window.window_attention_forward_kernel, window.FORWARD_CONFIGS),
    "query": (window.window_attention_backward_query_kernel, window.QUERY_CONFIGS),
    "key": (window.window_attention_backward_key_kernel, window.KEY_CONFIGS),
}
BOXES = {"FT": 2, "FH": 8, "FW": 8, "CT": 1, "CH": 7, "CW": 7}
OTHERS = {
    "position": (conv.depthwise_conv3d_forward_kernel, {"MIRRORED": False, "BLOCK_P": conv.FORWARD_POSITIONS}),
    "position gradient": (conv.depthwise_conv3d_forward_kernel, {"MIRRORED": True, "BLOCK_P": conv.FORWARD_POSITIONS}),
    "position weights": (conv.depthwise_conv3d_backward_weight_kernel, {"BLOCK_P": conv.WEIGHT_POSITIONS}),
    "pool": (pool.pyramid_pool_forward_kernel, {**BOXES, "BLOCK_B": pool.BLOCK_BOXES, "BLOCK_T": pool.BLOCK_TAPS}),
    "pool gradient": (
        pool.pyramid_pool_backward_input_kernel,
        {**BOXES, "WITH_COARSE": True, "BLOCK_P": pool.BLOCK_TOKENS},
    ),
    "pool weights": (
        pool.pyramid_pool_backward_weight_kernel,
        {"KT": 2, "KH": 8, "KW": 8, "BLOCK_B": pool.BLOCK_BOXES, "BLOCK_T": pool.BLOCK_TAPS},
    ),
}


def compiled(kernel: Any, dtype: str, capability: int, constants: dict[str, Any], options: dict[str, int]) -> Any:
    """Compile a kernel as a launch with aligned tensors and channels that 16 divides would."""
    signature, hints = {}, {}
    for index, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name.startswith(("grid_", "num_")) or name in ("fine_boxes", "coarse_boxes", "scale", "channels"):
            signature[name] = NUMBERS.get(name, "i32")
        elif name in ("columns_per_program", "boxes_per_program"):
            signature[name] = "i32"
        else:
            signature[name] = "*fp32" if name in FLOAT32_TENSORS else f"*{dtype}"
        if signature[name].startswith("*") or name == "channels":
            hints[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, hints)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def spilled_bytes(code: Any, folder: Path) -> int:
    """Stack of a thread, where registers go that do not fit."""
    file = folder / "kernel.cubin"
    file.write_bytes(code.asm["cubin"])
    usage = subprocess.run([CUOBJDUMP, "--dump-resource-usage", file], capture_output=True, text=True, check=True)
    found = re.search(r"STACK:(\d+)", usage.stdout)
    assert found, usage.stdout
    return int(found[1])


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("name", "config"),
    [(name, config) for name, (_, configs) in ATTENTION.items() for config in configs],
)
def test_window_attention_multiplies_in_matrix_units_and_spills_nothing(
    name: str, config: dict[str, int], capability: int, tmp_path: Path
) -> None:
    code = attention(name, config, "bf16", capability)
    assert code.metadata.shared <= SHARED_BYTES[capability]
    assert spilled_bytes(code, tmp_path) == 0
    assert ("wgmma.mma_async" if capability == 90 else "mma.sync") in code.asm["ptx"]


@pytest.mark.parametrize("name", ATTENTION)
def test_window_attention_in_float32_keeps_all_bits_and_spills_nothing(name: str, tmp_path: Path) -> None:
    code = attention(name, window.float32_config(32), "fp32", 80)
    assert code.metadata.shared <= SHARED_BYTES[80]
    assert spilled_bytes(code, tmp_path) == 0
    assert "tf32" not in code.asm["ptx"]


def attention(name: str, config: dict[str, int], dtype: str, capability: int) -> Any:
    kernel = ATTENTION[name][0]
    constants: dict[str, Any] = {"WT": 8, "WH": 7, "WW": 7, "D": 32}
    constants |= {key: value for key, value in config.items() if key.startswith("BLOCK")}
    if name == "forward":
        constants["WITH_LOGSUMEXP"] = True
    options = {key: value for key, value in config.items() if key.startswith("num")}
    return compiled(kernel, dtype, capability, constants, options)


@pytest.mark.parametrize(("dtype", "capability"), [("bf16", 80), ("fp16", 90), ("fp32", 90)])
@pytest.mark.parametrize("name", OTHERS)
def test_position_and_pyramid_spill_nothing(name: str, dtype: str, capability: int, tmp_path: Path) -> None:
    kernel, constants = OTHERS[name]
    code = compiled(kernel, dtype, capability, {**constants, "BLOCK_C": 64}, {"num_warps": 4})
    assert code.metadata.shared <= SHARED_BYTES[capability]
    assert spilled_bytes(code, tmp_path) == 0
