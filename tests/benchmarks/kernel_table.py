"""What the kernels take on each kind of card: registers, spilled bytes, shared memory; needs no card.

    PYTHONPATH=.:tests/support python tests/benchmarks/kernel_table.py --capability 80 90 --width 32 64

Exit code 1 if a kernel spills registers or wants more shared memory than a card has.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import product

from compiled_kernels import DTYPES, OPERATIONS, SHARED_KIB, compiling_for, usage

NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line per kernel that a card would run; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, nargs="+", default=list(SHARED_KIB), choices=list(SHARED_KIB))
    parser.add_argument("--operation", nargs="+", default=list(OPERATIONS), choices=list(OPERATIONS))
    parser.add_argument("--dtype", nargs="+", default=list(NAMES), choices=list(NAMES))
    parser.add_argument("--width", type=int, nargs="+", help="channels of a head or token; several when left out")
    arguments = parser.parse_args(argv)
    print("| card | kernel | type | width | warps | registers | spilled bytes | shared KiB |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    num_bad = 0
    for capability, operation, dtype in product(arguments.capability, arguments.operation, arguments.dtype):
        launch, widths = OPERATIONS[operation]
        for width in arguments.width or widths:
            with compiling_for(capability) as launches:
                launch(width, NAMES[dtype])
            for kernel, code in launches:
                taken = usage(code)
                num_bad += taken.spilled_bytes > 0 or taken.shared_kib > SHARED_KIB[capability]
                row = (f"sm_{capability}", kernel, dtype, width, code.metadata.num_warps, *taken[:2])
                print("|", *(f"{cell} |" for cell in row), f"{taken.shared_kib:g} |", flush=True)
    print(f"{num_bad} kernels spill or want too much shared memory", file=sys.stderr)
    return int(num_bad > 0)


if __name__ == "__main__":
    sys.exit(main())
