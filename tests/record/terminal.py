"""A command on a pseudo-terminal of some columns: what stands on it in the end, and what does not fit."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Callable, Iterable
from typing import NoReturn

CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b.|([\r\n])|([^\x1b\r\n]+)", re.DOTALL)


def run_on_terminal(become: Callable[[], NoReturn], columns: int, output: str) -> int:
    """Fork, let the child be a command on a terminal, keep what it prints in a file, and return its exit code."""
    child, terminal = pty.fork()
    if child == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        become()
    with open(output, "wb") as file:
        try:
            while block := os.read(terminal, 65536):
                file.write(block)
        except OSError:  # EIO: the child has left the terminal
            pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def shown(raw: str) -> str:
    """Return what is left on a terminal: lines that were erased or drawn over are gone, colours too."""
    lines: list[str] = [""]
    row = column = 0
    for found in CONTROL.finditer(raw):
        number, command, move, text = found.groups()
        if text is not None:
            lines[row] = lines[row].ljust(column)[:column] + text + lines[row][column + len(text) :]
            column += len(text)
        elif move == "\r":
            column = 0
        elif move == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif command == "A":
            row = max(0, row - int(number or 1))
        elif command == "K":
            lines[row] = "" if number == "2" else lines[row][:column]
    return "\n".join(line.rstrip() for line in lines)


def too_wide(lines: Iterable[str], columns: int) -> list[str]:
    """Return the lines that a terminal would break inside a word: that do not fit, though they have several words."""
    from rich.cells import cell_len

    return [line for line in lines if cell_len(line) > columns and len(line.split()) > 1]
