"""Keep what every command prints and writes, and compare it after a change.

    python tests/record/record.py write before.json --at main      at the old commit
    python tests/record/record.py compare before.json              at the new one

Each command line of commands.py runs in a process of its own (server.py), without network, with one thread. Kept are
exit code, stdout, stderr and the digest or text of each file; times, speeds and this machine's names are replaced by
words. Floats depend on the processor: both records are made on one machine, and none is committed.
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
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from commands import COMMANDS, TRAIN

REPOSITORY = Path(__file__).resolve().parents[2]
LONGEST_TEXT = 20_000
PICTURES = {".mp4", ".gif", ".png", ".avi", ".webm", ".jpg"}
TEXTS = {".csv", ".json", ".jsonl", ".txt", ".srt", ".yaml", ".html", ".tsv"}
NUMBER = r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?"
TIMES = [
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?([+-]\d\d:?\d\d|Z)?"), "DATE"),
    (
        re.compile(rf'("[a-z_]*(?:seconds|per_second|_time|time_|eta|memory_mib|elapsed|latency)[a-z_]*": ?){NUMBER}'),
        r"\1TIME",
    ),
    (re.compile(rf"{NUMBER} ?[a-zA-Z]*(?:/s\b| per second| a second)"), "SPEED"),
    (
        re.compile(rf"\b(in|took|after|about|left|eta|ETA|~) ?{NUMBER} ?(ms|s|seconds?|min|minutes?|h|hours?)\b"),
        r"\1 TIME",
    ),
    (re.compile(rf"(/[a-z_]*(?:seconds|per_second|elapsed)[a-z_]* = ){NUMBER}"), r"\1TIME"),
    (re.compile(rf"{NUMBER} (ms|s|seconds?|minutes?|min|h|hours?) left"), "TIME left"),
    (re.compile(rf"{NUMBER} [KMGT]i?B (of memory|free|available)"), r"SIZE \1"),
]


def normalise(text: str, names: dict[str, str]) -> str:
    """The text with each key of `names` replaced by its word, and times, speeds and free space by placeholders."""
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, names[name])
    for pattern, word in TIMES:
        text = pattern.sub(word, text)
    return text


def pixels(path: Path) -> str:
    """Number of frames, their sizes and the digest of their decoded pixels."""
    import av

    digest, sizes, count = hashlib.sha256(), set(), 0
    with av.open(f"file:{path}") as container:
        for frame in container.decode(video=0):
            digest.update(frame.to_ndarray(format="rgb24").tobytes())
            sizes.add(f"{frame.width}x{frame.height}")
            count += 1
    return f"{count} frames {','.join(sorted(sizes))} {digest.hexdigest()}"


def leaves(value: Any, name: str = "") -> list[str]:
    """One line per tensor, array or plain value in nested mappings and lists: its name and what it is."""
    if isinstance(value, dict):
        return [line for key in value for line in leaves(value[key], f"{name}/{key}")]
    if isinstance(value, list | tuple):
        return [line for at, item in enumerate(value) for line in leaves(item, f"{name}/{at}")]
    if hasattr(value, "detach"):
        import torch

        value = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    if hasattr(value, "tobytes"):
        return [f"{name} {value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()[:16]}"]
    return [f"{name} = {value!r}"]


def content(path: Path, names: dict[str, str]) -> str:
    """What is kept of an output file: its text if short, else a digest of what it says."""
    kind = path.suffix.lower()
    if kind in TEXTS:
        text = normalise(path.read_text(encoding="utf-8", errors="replace"), names)
        return text if len(text) <= LONGEST_TEXT else hashlib.sha256(text.encode()).hexdigest()
    if kind == ".png" and path.name == "curves.png":
        return "a picture with times"
    try:
        if kind in PICTURES:
            return pixels(path)
        if kind == ".npz":
            import numpy as np

            with np.load(path, allow_pickle=False) as arrays:
                return "\n".join(leaves(dict(arrays)))
        if kind in {".pt", ".pth"}:
            import torch

            saved = torch.load(path, map_location="cpu", weights_only=False)
            return normalise("\n".join(leaves(saved)), names)
    except Exception as error:
        return f"unreadable: {type(error).__name__}"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def environment(work: Path, tree: Path) -> dict[str, str]:
    """The same for every command, whoever calls: one thread, 100 columns, no colours, no network, caches in `work`."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    single = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    home = {"HOME": str(work / "home"), "XDG_CACHE_HOME": str(work / "cache"), "TMPDIR": str(work / "tmp")}
    proxy = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    other = {"COLUMNS": "100", "LINES": "40", "NO_COLOR": "1", "TERM": "dumb", "CUDA_VISIBLE_DEVICES": ""}
    return {
        **kept,
        **single,
        **home,
        **proxy,
        **other,
        "PYTHONPATH": str(tree),
        "PYTHONHASHSEED": "0",
        "DUALFORMER_OFFLINE": "1",
    }


class Server:
    """One process of server.py, started on the code in `tree`; it runs one command line at a time."""

    def __init__(self, work: Path, tree: Path) -> None:
        command = [sys.executable, str(Path(__file__).with_name("server.py"))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment(work, tree), **pipes)
        self.files = {name: Path(tempfile.mkdtemp(dir=work)) / name for name in ("stdin", "stdout", "stderr")}

    def run(self, line: str, stdin: str, folder: Path) -> dict[str, Any]:
        """Exit code, stdout and stderr of one command line, not yet normalised."""
        for name, path in self.files.items():
            path.write_text(stdin if name == "stdin" else "", encoding="utf-8")
        request = {"argv": shlex.split(line), "folder": str(folder), **{n: str(p) for n, p in self.files.items()}}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        texts = {name: self.files[name].read_text("utf-8", "replace") for name in ("stdout", "stderr")}
        return {"line": line, "exit": code, **texts}

    def stop(self) -> None:
        """End the process."""
        self.process.communicate()


def run_entry(name: str, server: Server, work: Path, tree: Path) -> dict[str, Any]:
    """All lines of one entry in a folder of its own, and the files they left there."""
    folder = work / "runs" / re.sub(r"\W+", "-", name)
    folder.mkdir(parents=True)
    (folder / "in").symlink_to(work / "in")
    names = {str(folder): "HERE", str(work): "WORK", str(tree): "CODE", sys.executable: "python"}
    # a checkpoint keeps how long it took, so its digest is another at each run
    names[hashlib.sha256((work / "in" / "mini.pt").read_bytes()).hexdigest()] = "DIGEST"
    steps, stdin, start = [], "", time.monotonic()
    for line in COMMANDS[name]:
        if line.startswith("< "):
            stdin = line[2:]
            continue
        step = server.run(line, stdin, folder)
        steps.append({**step, **{key: normalise(step[key], names) for key in ("stdout", "stderr")}})
        stdin = ""
    print(f"{time.monotonic() - start:6.1f} s  {name}: {[step['exit'] for step in steps]}", file=sys.stderr, flush=True)
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and (folder / "in") not in path.parents)
    return {"steps": steps, "files": {path.relative_to(folder).as_posix(): content(path, names) for path in found}}


def make_inputs(work: Path, server: Server) -> None:
    """Fill work/in; the checkpoint is one that the tool itself trains."""
    from inputs import make_lists, make_videos

    folder = work / "in"
    folder.mkdir()
    make_videos(folder)
    make_lists(folder)
    (work / "in" / "in").symlink_to(folder)
    trained = server.run(f"{TRAIN} --output ../trained --seed 1", "", folder)
    if trained["exit"] != 0:
        raise SystemExit(f"training the checkpoint failed:\n{trained['stderr']}")
    (folder / "in").unlink()
    shutil.copy(work / "trained" / "checkpoints" / "last.pt", folder / "mini.pt")
    whole = (folder / "mini.pt").read_bytes()
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 2])


def record(tree: Path, names: list[str], jobs: int) -> dict[str, Any]:
    """name -> steps and files of each named entry, run on the code in `tree`."""
    # the folder's name has one length everywhere: tables and paths that wrap at 100 columns wrap at the same place
    with tempfile.TemporaryDirectory(prefix="record-") as folder:
        work = Path(folder).resolve()
        for name in ("tmp", "home", "cache"):
            (work / name).mkdir()
        free: queue.Queue[Server] = queue.Queue()
        servers = [Server(work, tree) for _ in range(jobs)]
        make_inputs(work, servers[0])
        for server in servers:
            free.put(server)

        def run(name: str) -> dict[str, Any]:
            server = free.get()
            try:
                return run_entry(name, server, work, tree)
            finally:
                free.put(server)

        with ThreadPoolExecutor(jobs) as pool:
            made = dict(zip(names, pool.map(run, names), strict=True))
        for server in servers:
            server.stop()
        return made


def flat(entry: dict[str, Any]) -> dict[str, str]:
    """The parts of an entry by a name to print: '1. exit', '1. stdout', 'file a.csv'."""
    steps = {
        f"{at}. {step['line']}: {key}": str(step[key])
        for at, step in enumerate(entry["steps"], 1)
        for key in ("exit", "stdout", "stderr")
    }
    return {**steps, **{f"file {name}": text for name, text in entry["files"].items()}}


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """A readable text for each part that differs, is new or is gone."""
    found = []
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in before or name not in after:
            found.append(f"{name}: only in the {'first' if name in before else 'second'} record")
            continue
        old, new = flat(before[name]), flat(after[name])
        for part in [*old, *(part for part in new if part not in old)]:
            if old.get(part) != new.get(part):
                lines = (
                    text.splitlines() if text is not None else ["(none)"] for text in (old.get(part), new.get(part))
                )
                diff = difflib.unified_diff(*lines, "before", "after", lineterm="", n=1)
                found.append("\n".join([f"{name} | {part}", *diff]))
    return found


def main() -> int:
    """Write or compare; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["write", "compare"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", default="", help="only entries whose name contains this")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--at", help="run the code of this git revision instead of that beside the script")
    options = parser.parse_args()
    names = [name for name in COMMANDS if options.only in name]
    if not names:
        parser.error(f"no entry has {options.only!r} in its name")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "code" if options.at else REPOSITORY
        git = ["git", "-C", str(REPOSITORY), "worktree"]
        if options.at:
            subprocess.run([*git, "add", "--quiet", "--detach", str(tree), options.at], check=True)
        try:
            made = record(tree, names, options.jobs)
        finally:
            if options.at:
                subprocess.run([*git, "remove", "--force", str(tree)], check=True)
    if options.action == "write":
        options.file.write_text(json.dumps(made, indent=1, ensure_ascii=False), encoding="utf-8")
        return 0
    kept = json.loads(options.file.read_text(encoding="utf-8"))
    found = differences({name: kept[name] for name in kept if options.only in name}, made)
    print("\n\n".join(found) if found else f"{len(names)} entries, no difference")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
