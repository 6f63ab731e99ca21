"""What the kernels take on each kind of card: registers, spilled bytes, shared memory; needs no card.

    PYTHONPATH=.:tests/support python tests/benchmarks/kernel_table.py --capability 80 90 --width 32 64

With `--file TABLE.md` the rows are kept there too, and the same command goes on where it was stopped: all of them take
hours of compiling. Exit code 1 if a kernel spills registers or wants more shared memory than a card has.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import triton
from compiled_kernels import DTYPES, OPERATIONS, SHARED_KIB, compiling_for, usage

NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}
HEADER = (
    "| card | kernel | type | width | warps | registers | spilled bytes | shared KiB |",
    "|---|---|---|---:|---:|---:|---:|---:|",
)
KERNELS = Path(__file__).parents[2] / "kernels"


class Row(NamedTuple):
    """One launch of a kernel, as a card would run it."""

    capability: int
    kernel: str
    dtype: str
    width: int
    warps: int
    registers: int
    spilled_bytes: int
    shared_kib: float

    def __str__(self) -> str:
        return f"| sm_{self.capability} | {' | '.join(map(str, self[1:-1]))} | {self.shared_kib:g} |"

    @property
    def is_bad(self) -> bool:
        """Whether registers are spilled, or more shared memory is wanted than there is."""
        return self.spilled_bytes > 0 or self.shared_kib > SHARED_KIB[self.capability]


def read_row(line: str) -> Row:
    """Return the row of a line of the table."""
    card, kernel, dtype, *numbers, shared = (cell.strip() for cell in line.strip("| \n").split("|"))
    return Row(int(card.removeprefix("sm_")), kernel, dtype, *map(int, numbers), float(shared))


def compile_rows(capability: int, operation: str, dtype: str, width: int) -> list[Row]:
    """Return a row for each launch of an operation."""
    with compiling_for(capability) as launches:
        OPERATIONS[operation][0](width, NAMES[dtype])
    return [Row(capability, kernel, dtype, width, code.metadata.num_warps, *usage(code)) for kernel, code in launches]


def compiled_with() -> str:
    """Return a line that names what the rows depend on: Triton and the kernels."""
    sources = [*sorted(KERNELS.glob("*_kernel.py")), KERNELS / "rounding.py"]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    return f"<!-- Triton {triton.__version__}, kernels {digest[:12]} -->"


def start_file(path: Path) -> list[Row]:
    """Return the rows that a file has; begin it where there is none."""
    if not path.exists():
        path.write_text("\n".join((compiled_with(), *HEADER, "")))
    first, *lines = path.read_text().splitlines()
    if first != compiled_with():
        raise SystemExit(f"{path} has rows of {first.strip('<!-> ')}, not of {compiled_with().strip('<!-> ')}")
    return list(map(read_row, lines[len(HEADER) :]))


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line per kernel that a card would run; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, nargs="+", default=list(SHARED_KIB), choices=list(SHARED_KIB))
    parser.add_argument("--operation", nargs="+", default=list(OPERATIONS), choices=list(OPERATIONS))
    parser.add_argument("--dtype", nargs="+", default=list(NAMES), choices=list(NAMES))
    parser.add_argument("--width", type=int, nargs="+", help="channels of a head or token; several when left out")
    parser.add_argument("--file", type=Path, help="keep the rows here and do not make those again that it has")
    arguments = parser.parse_args(argv)
    kept = start_file(arguments.file) if arguments.file else []
    print(*HEADER, sep="\n")
    rows: list[Row] = []
    for capability, operation, dtype in product(arguments.capability, arguments.operation, arguments.dtype):
        for width in arguments.width or OPERATIONS[operation][1]:
            asked = (capability, dtype, width)
            found = [r for r in kept if (r[0], r[2], r[3]) == asked and r.kernel.startswith(f"{operation}_")]
            new = found or compile_rows(capability, operation, dtype, width)
            if arguments.file and not found:
                with arguments.file.open("a") as file:
                    file.writelines(f"{row}\n" for row in new)
            print(*new, sep="\n", flush=True)
            rows += new
    bad = [row for row in rows if row.is_bad]
    most = f"at most {max(row.registers for row in rows)} registers and {max(row.shared_kib for row in rows):g} KiB"
    print(f"{len(rows)} launches, {most}; {len(bad)} spill or want too much shared memory", file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
