"""Python programs in processes that are forked from one that has loaded torch and the product already.

A start from nothing takes seconds of processor time, nearly all of it for the same imports. What only such a start
shows (what --help loads, how the interpreter ends) is in test_app.py; ranks are started from nothing by a launcher.
"""

from __future__ import annotations

import inspect
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import dualformer_cli

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "pytest",  # of which a forked process looks for what is main here
        "torch._dynamo",  # optimizers load it
        "dualformer_cli.app",
        "dualformer_cli.engine.parallel.launch",
        "dualformer_cli.engine.training.loop",
        "dualformer_cli.tasks.evaluate",
        "dualformer_cli.tasks.gradcam",
        "dualformer_cli.tasks.prediction_run",
        "dualformer_cli.tasks.train",
        "dualformer_cli.tasks.write_token_labels",
    ]
)


class WarmPython(subprocess.Popen[str]):
    """`subprocess.Popen` of a command that begins with this Python, but for what is done before its program runs."""

    def _execute_child(self, *given: Any) -> None:
        of = inspect.signature(subprocess.Popen._execute_child).bind(self, *given).arguments  # type: ignore[attr-defined]
        environ = dict(os.environ if of["env"] is None else of["env"])
        ends = [of[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        streams = [Connection(os.dup(number if end == -1 else end)) for number, end in enumerate(ends)]
        arguments, folder = list(map(str, of["args"]))[1:], str(of["cwd"] or os.getcwd())
        _start_server()
        self._process = _CONTEXT.Process(
            target=_run, args=(arguments, environ, folder, streams, of["start_new_session"]), daemon=True
        )
        self._process.start()
        self.pid, self._child_created = self._process.pid, True
        for stream in streams:
            stream.close()
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(of[name] for name in pipes))  # type: ignore[attr-defined]

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None:
            self.returncode = self._process.exitcode
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        self._process.join(timeout)
        if self._internal_poll() is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode


def run(command: Sequence[str], *, timeout: float = 300, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command that begins with this Python to its end, and return what it printed."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with WarmPython(command, **pipes, **options) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def _start_server() -> None:
    """Let the process that all are forked from load the product that is tested here, and torch for one thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(Path(dualformer_cli.__file__).parents[1]))
        forkserver.ensure_running()


def _run(
    arguments: list[str], environ: dict[str, str], folder: str, streams: list[Connection], has_own_session: bool
) -> None:
    """Become `python ARGUMENTS`: -m and a module or a script, and what these are given."""
    if has_own_session:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    tempfile.tempdir = None  # which TMPDIR names
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
        runpy.run_path(arguments[0], run_name="__main__")
