"""Keep what every command prints and writes, and compare it after a change.

    python tests/record/record.py make before.json --root CHECKOUT_OF_BEFORE
    python tests/record/record.py make after.json
    python tests/record/record.py compare before.json after.json
    python tests/record/record.py make at40.json --columns 40
    python tests/record/record.py wide at40.json --columns 40

Each command line of commands.py runs in a process of its own (server.py), without network, with one thread. Kept are
exit code, stdout, stderr, and the text or the names and digests of what each file holds; kept.py lists what is free.
The code is a copy of that in --root, by default of the checkout that holds the script, so that it can be edited while
the record is made. Floats depend on the processor and on torch: both records are made on one machine, and
none is committed. With `--columns` stdout and stderr are a terminal of that many columns, and kept is what is left on
it; `wide` prints the lines that do not fit. `--only '^(?!help)'` leaves the help texts out.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import queue
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from commands import COMMANDS, TRAIN
from kept import content, normalise
from terminal import shown, too_wide

CODE = ("dualformer_cli", "kernels", "presets", "pyproject.toml")


@contextmanager
def work_folder(root: Path) -> Iterator[Path]:
    """Yield a folder with a copy of the code and empty folders for caches; nothing of it stays.

    Its name has one length: tables and paths that wrap at 100 columns wrap at the same place in every record.
    """
    for number in range(10):
        work = Path(tempfile.gettempdir()).resolve() / f"dualformer-record-{number}"
        try:
            work.mkdir()
            break
        except FileExistsError:
            continue
    else:
        raise SystemExit(f"{work.parent} holds ten folders of records: remove those of runs that were killed")
    try:
        for name in ("tmp", "home", "cache", "runs", "in", "code"):
            (work / name).mkdir()
        for name in CODE:
            copy = shutil.copy2 if (root / name).is_file() else shutil.copytree
            copy(root / name, work / "code" / name)
        yield work
    finally:
        shutil.rmtree(work)


def environment(work: Path, columns: int | None = None) -> dict[str, str]:
    """Return the same for every command, whoever calls: one thread, no colours, no network, own caches."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    single = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    home = {"HOME": str(work / "home"), "XDG_CACHE_HOME": str(work / "cache"), "TMPDIR": str(work / "tmp")}
    proxy = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    screen = (
        {"NO_COLOR": "1", "TERM": "xterm"}
        if columns
        else {"COLUMNS": "100", "LINES": "40", "NO_COLOR": "1", "TERM": "dumb"}
    )
    other = {"CUDA_VISIBLE_DEVICES": "", "PYTHONHASHSEED": "0", "DUALFORMER_OFFLINE": "1"}
    return {**kept, **single, **home, **proxy, **screen, **other, "PYTHONPATH": str(work / "code")}


def printed(path: Path, columns: int | None) -> str:
    """Return what a command printed into a file, or what is left of it on a terminal."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:  # a terminal's \r is no end of a line
        text = file.read()
    return text if columns is None else shown(text)


class Server:
    """One process of server.py; it runs one command line at a time."""

    def __init__(self, work: Path, columns: int | None) -> None:
        self.columns = columns
        command = [sys.executable, str(Path(__file__).with_name("server.py"))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment(work, columns), **pipes)
        folder = Path(tempfile.mkdtemp(dir=work))
        self.files = {name: folder / name for name in ("stdin", "stdout", "stderr")}

    def run(self, line: str, stdin: str, folder: Path) -> dict[str, Any]:
        """Exit code, stdout and stderr of one command line, not yet normalised."""
        for name, path in self.files.items():
            path.write_text(stdin if name == "stdin" else "", encoding="utf-8")
        request = {"argv": shlex.split(line), "folder": str(folder), "columns": self.columns}
        request |= {n: str(p) for n, p in self.files.items()}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        texts = {name: printed(self.files[name], self.columns) for name in ("stdout", "stderr")}
        return {"line": line, "exit": code, **texts}

    def stop(self) -> None:
        """End the process."""
        self.process.communicate()


def run_entry(name: str, server: Server, work: Path) -> dict[str, Any]:
    """Return the steps of one entry, run in a folder of its own, and the files they left there."""
    folder = work / "runs" / re.sub(r"\W+", "-", name)
    folder.mkdir()
    (folder / "in").symlink_to(work / "in")
    names = {str(folder): "HERE", str(work): "WORK", sys.executable: "python"}
    # a checkpoint keeps speeds and memory, so its digest is another at each run
    names[hashlib.sha256((work / "in" / "mini.pt").read_bytes()).hexdigest()] = "DIGEST"
    steps, stdin, start = [], "", time.monotonic()
    for line in COMMANDS[name]:
        if line.startswith("< "):
            stdin = line[2:]
            continue
        if line.startswith("+ "):
            shutil.copytree(work / "in" / line[2:], folder / line[2:])
            continue
        step = server.run(line, stdin, folder)
        steps.append({**step, **{key: normalise(step[key], names).split("\n") for key in ("stdout", "stderr")}})
        stdin = ""
    print(f"{time.monotonic() - start:6.1f} s  {name}: {[step['exit'] for step in steps]}", file=sys.stderr, flush=True)
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and (folder / "in") not in path.parents)
    return {
        "steps": steps,
        "files": {path.relative_to(folder).as_posix(): content(path, names).split("\n") for path in found},
    }


def make_inputs(work: Path, server: Server) -> None:
    """Fill work/in; the checkpoint is one that the tool itself trains."""
    from inputs import make_datasets, make_lists, make_videos

    folder = work / "in"
    make_videos(folder)
    make_lists(folder)
    make_datasets(folder / "data")
    (folder / "in").symlink_to(folder)
    trained = server.run(f"{TRAIN} --output ../trained --seed 1", "", folder)
    if trained["exit"] != 0:
        raise SystemExit(f"training the checkpoint failed:\n{trained['stderr']}")
    (folder / "in").unlink()
    shutil.copy(work / "trained" / "checkpoints" / "last.pt", folder / "mini.pt")
    whole = (folder / "mini.pt").read_bytes()
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 2])
    for path in folder.rglob("*"):  # `prepare` keeps when its inputs were written, and a digest of it
        os.utime(path, (1_000_000_000, 1_000_000_000))


def record(root: Path, names: list[str], jobs: int, file: Path, columns: int | None = None) -> None:
    """Write name -> steps and files of each named entry, run on the code in `root`; what is done by then stays."""
    made: dict[str, Any] = {}
    lock = threading.Lock()
    with work_folder(root) as work, file.open("w", encoding="utf-8") as output:
        free: queue.Queue[Server] = queue.Queue()
        first = Server(work, None)
        make_inputs(work, first)
        first.stop()
        servers = [Server(work, columns) for _ in range(jobs)]
        for server in servers:
            free.put(server)

        def run(name: str) -> None:
            server = free.get()
            try:
                entry = run_entry(name, server, work)
                with lock:
                    made[name] = entry
                    done = {each: made[each] for each in names if each in made}
                    output.seek(0)  # it never becomes shorter
                    output.write(json.dumps(done, indent=1, ensure_ascii=False))
                    output.flush()
            finally:
                free.put(server)

        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(run, names))
        for server in servers:
            server.stop()


def flat(entry: dict[str, Any]) -> dict[str, list[str]]:
    """Return the lines of each part of an entry by a name to print: '1. flops tiny: stdout', 'file a.csv'."""
    parts = {f"file {name}": lines for name, lines in entry["files"].items()}
    for at, step in enumerate(entry["steps"], 1):
        parts[f"{at}. {step['line']}: exit"] = [str(step["exit"])]
        parts |= {f"{at}. {step['line']}: {key}": step[key] for key in ("stdout", "stderr")}
    return parts


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return a readable text for each part that differs, is new or is gone."""
    found = [f"{name}: only in the first record" for name in before if name not in after]
    found += [f"{name}: only in the second record" for name in after if name not in before]
    for name in (name for name in before if name in after):
        old, new = flat(before[name]), flat(after[name])
        for part in sorted({**old, **new}):
            lines, others = old.get(part, ["(none)"]), new.get(part, ["(none)"])
            if lines != others:
                diff = difflib.unified_diff(lines, others, "before", "after", lineterm="", n=1)
                found.append("\n".join([f"{name} | {part}", *diff]))
    return found


def read(path: Path, only: str) -> dict[str, Any]:
    """Return the entries of a record whose name holds the regular expression."""
    return {name: entry for name, entry in json.loads(path.read_text("utf-8")).items() if re.search(only, name)}


def main() -> int:
    """Make, compare or look through; return 1 if anything differs or does not fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--only", default="", help="only entries whose name holds this regular expression")
    actions = parser.add_subparsers(dest="action", required=True)
    make = actions.add_parser("make", parents=[common], help="run the command lines and write what they said")
    make.add_argument("file", type=Path)
    make.add_argument("--root", type=Path, default=Path(__file__).parents[2], help="the checkout whose code is run")
    make.add_argument("--jobs", type=int, default=2, help="command lines at a time (2)")
    make.add_argument("--columns", type=int, help="run them on a terminal of that many columns")
    wide = actions.add_parser("wide", parents=[common], help="print the lines that do not fit")
    wide.add_argument("file", type=Path)
    wide.add_argument("--columns", type=int, required=True, help="of the terminal")
    compare = actions.add_parser("compare", parents=[common], help="print what differs in two records")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    options = parser.parse_args()
    if options.action == "make":
        names = [name for name in COMMANDS if re.search(options.only, name)]
        record(options.root.resolve(), names, options.jobs, options.file, options.columns)
        return 0
    if options.action == "wide":
        entries = read(options.file, options.only)
        printed = [(name, step["line"], step["stdout"]) for name, entry in entries.items() for step in entry["steps"]]
        found = [
            f"{name} | {line}: {text}" for name, line, texts in printed for text in too_wide(texts, options.columns)
        ]
        print("\n".join(found))
        return 1 if found else 0
    before, after = (read(path, options.only) for path in (options.before, options.after))
    found = differences(before, after)
    print("\n\n".join(found) if found else f"{len(before)} entries, no difference")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
