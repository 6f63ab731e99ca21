"""Start the command line: for `dualformer`, for `python -m dualformer_cli` and for torchrun."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn

from dualformer_cli.app import main


def run() -> NoReturn:
    """Run the command line and leave with its exit code, without taking the interpreter apart.

    That would take 0.4 s of processor time with torch, after the last line of a command. What is registered for the end
    runs.
    """
    code = 0
    try:
        main()
    except SystemExit as leave:
        code = int(leave.code or 0)
    threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter does: threads that are no daemons end
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
