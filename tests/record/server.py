"""Run command lines of dualformer one after the other, each in a fork of a process that has imported torch already.

A request is a line of JSON on stdin: argv, folder and the three files for stdin, stdout and stderr; the answer is the
exit code. Importing is half of the time of a short command; only what is not ours is imported ahead.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import sys
from functools import partial
from typing import NoReturn

import av  # noqa: F401
import torch  # noqa: F401
import torchvision  # noqa: F401
from terminal import run_on_terminal

LONGEST_SECONDS = 300


def become(request: dict) -> NoReturn:
    """Be the process that the request describes, until its end; with `columns` stdout and stderr are a terminal."""
    streams = ("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY | os.O_CREAT), ("stderr", os.O_WRONLY | os.O_CREAT)
    for number, (name, flags) in enumerate(streams[:1] if request["columns"] else streams):
        os.dup2(os.open(request[name], flags), number)
    os.chdir(request["folder"])
    signal.alarm(LONGEST_SECONDS)
    sys.argv = ["dualformer", *request["argv"]]
    sys.path[0] = request["folder"]
    runpy.run_module("dualformer_cli", run_name="__main__", alter_sys=True)
    sys.exit(0)


gc.freeze()
requests = os.fdopen(os.dup(0), "rb", buffering=0)
while line := requests.readline():
    request = json.loads(line)
    if request["columns"]:
        print(run_on_terminal(partial(become, request), request["columns"], request["stdout"]), flush=True)
        continue
    child = os.fork()
    if child == 0:
        requests.close()
        become(request)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
