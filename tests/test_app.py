"""The command line as a process: exit codes, one-line errors, a --help that loads nothing heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from dualformer_cli import __version__
from dualformer_cli.app import app
from dualformer_cli.documents.preset import preset_schema

GROUPS = {group.name or "": group.typer_instance for group in app.registered_groups}
COMMANDS = sorted(command.name or "" for command in app.registered_commands)
COMMANDS_OF_GROUPS = [
    (name, command.name or "") for name, group in GROUPS.items() for command in (group or app).registered_commands
]

ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith(("DUALFORMER_", "_DUALFORMER_"))}

PROBE = """
import errno, os, signal, sys
from dualformer_cli.app import main, register
from dualformer_cli.commands.options import PresetOption, VerboseOption
from dualformer_cli.errors import DualFormerError

def probe(preset: PresetOption = None, verbose: VerboseOption = False) -> None:
    '''Do what the test wants.'''
{body}

register("probe", probe)
main()
"""


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    settings = {"capture_output": True, "text": True, "env": ENVIRON, "timeout": 120, **options}
    return subprocess.run([sys.executable, *arguments], **settings)  # type: ignore[call-overload,no-any-return]


def dualformer(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return run("-m", "dualformer_cli", *arguments, **options)


def probe(body: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the app with one more command, whose body is given."""
    indented = "\n".join(f"    {line}" for line in body.splitlines())
    return run("-c", PROBE.format(body=indented), "probe", *arguments, **options)


@pytest.mark.parametrize(
    "arguments",
    [(), *[(name,) for name in [*COMMANDS, *GROUPS]], *COMMANDS_OF_GROUPS],
    ids=lambda names: "-".join(names) or "app",
)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_never_imports_what_is_slow(arguments: tuple[str, ...], option: str) -> None:
    code = (
        "import sys\n"
        "from dualformer_cli.app import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print(*sys.modules, file=sys.stderr)\n"
    )
    result = run("-c", code, *arguments, option)
    assert result.returncode == 0
    assert result.stdout.startswith("Usage: dualformer ")
    loaded = {name.partition(".")[0] for name in result.stderr.split()}
    assert "dualformer_cli" in loaded
    assert not loaded & {
        "torch",
        "numpy",
        "av",
        "decord",
        "yaml",
        "rich",
        "timm",
        "fvcore",
        "PIL",
        "triton",
        "pydantic",
    }


@pytest.mark.parametrize(("arguments", "code"), [(("--version",), 0), (("no-such-command",), 2)])
def test_a_command_leaves_after_threads_and_what_is_registered_and_takes_nothing_apart(
    arguments: tuple[str, ...], code: int
) -> None:
    program = (
        "import atexit, threading, time\n"
        "from dualformer_cli import __main__\n"
        "class Kept:\n"
        "    def __del__(self): print('taken apart')\n"
        "kept = Kept()\n"
        "atexit.register(print, 'registered')\n"
        "threading.Thread(target=lambda: (time.sleep(0.3), print('thread'))).start()\n"
        "__main__.run()\n"
    )
    result = run("-c", program, *arguments)
    assert result.returncode == code
    lines = result.stdout.splitlines()
    assert "thread" in lines
    assert lines[-1] == "registered"


def test_completion_of_commands_and_presets_loads_nothing_heavy() -> None:
    def complete(words: str) -> list[str]:
        code = "import atexit\natexit.register(lambda: print(*sys.modules, file=sys.stderr))\n" + PROBE.format(
            body="    pass"
        )
        position = str(len(words.split(" ")) - 1)
        completing = {"_DUALFORMER_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": position}
        result = run("-c", code, env={**ENVIRON, **completing})
        assert not {"torch", "numpy", "av", "yaml"} & set(result.stderr.split())
        return result.stdout.split()

    assert complete("dualformer pro") == ["probe"]
    assert complete("dualformer probe --preset k400-t") == ["k400-tiny", "k400-tiny-tokenlabel"]
    assert {"tiny", "base", "ucf101-tiny"} <= set(complete("dualformer probe --preset "))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_can_be_shown(shell: str) -> None:
    result = dualformer(env={**ENVIRON, "_DUALFORMER_COMPLETE": f"source_{shell}"})
    assert result.returncode == 0
    assert "_DUALFORMER_COMPLETE=complete_" in result.stdout
    assert "--show-completion" in dualformer("--help").stdout


def test_an_error_of_the_user_is_one_line_and_exit_1() -> None:
    result = probe(r"raise DualFormerError('no \x1b[2Jpreset \'a\nb\udcff\'; did you mean \'ä\'?')")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == "dualformer: no \\x1b[2Jpreset 'a\\nb\\udcff'; did you mean 'ä'?\n"


@pytest.mark.parametrize(
    "error",
    [
        "torch.OutOfMemoryError('tried to allocate 2 GiB')",
        "RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`')",
    ],
)
def test_a_full_gpu_is_one_line_that_says_what_takes_less_and_another_bug_keeps_its_traceback(error: str) -> None:
    result = probe(f"import torch\nraise {error}")
    assert result.returncode == 1
    assert result.stderr.startswith("dualformer: the GPU's memory is full; --precision bf16 takes less, and so does ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" in probe("raise RuntimeError('a bug')").stderr


@pytest.mark.parametrize("place", ["before", "after"])
def test_verbose_shows_the_traceback_of_an_error_before_its_line(place: str) -> None:
    body = "raise DualFormerError('broken: 3')"
    if place == "after":
        result = probe(body, "-v")
    else:
        indented = PROBE.format(body=f"    {body}")
        result = run("-c", indented, "--verbose", "probe")
    assert result.returncode == 1
    assert "Traceback (most recent call last):" in result.stderr
    assert result.stderr.endswith("\ndualformer: broken: 3\n")


def test_a_bug_keeps_its_traceback() -> None:
    result = probe("raise ZeroDivisionError('a bug')")
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback (most recent call last):")
    assert result.stderr.endswith("ZeroDivisionError: a bug\n")


@pytest.mark.parametrize("error", ["EOFError('a bug')", "BrokenPipeError(errno.EPIPE, 'a bug')"])
def test_a_bug_that_typer_would_swallow_keeps_its_traceback(error: str) -> None:
    result = probe(f"raise {error}")
    assert result.returncode == 1
    assert f"{error.partition('(')[0]}: " in result.stderr.splitlines()[-1]
    assert "a bug" in result.stderr


@pytest.mark.parametrize("code", [0, 3, 75])
def test_a_command_chooses_its_exit_code(code: int) -> None:
    result = probe(f"import typer\nprint('done')\nraise typer.Exit({code})")
    assert (result.returncode, result.stdout, result.stderr) == (code, "done\n", "")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("predcit",), "no such command 'predcit'; did you mean 'predict'?"),
        (("--nonsense",), "no such option: --nonsense; dualformer --help lists what there is"),
        (("probe", "--preset"), "option '--preset' requires an argument"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong_in_one_line_of_the_voice_of_every_other(
    arguments: tuple[str, ...], problem: str
) -> None:
    result = run("-c", PROBE.format(body="    pass"), *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"dualformer: {problem}\n")


def test_no_arguments_show_the_help_and_exit_2() -> None:
    result = dualformer()
    assert result.returncode == 2
    assert "Usage: dualformer" in result.stdout + result.stderr


def test_an_interrupt_exits_130_with_one_line() -> None:
    result = probe("raise KeyboardInterrupt")
    assert (result.returncode, result.stderr) == (130, "dualformer: interrupted\n")


def test_sigterm_unwinds_and_exits_143() -> None:
    result = probe("try:\n    os.kill(os.getpid(), signal.SIGTERM)\nfinally:\n    print('cleaned up')")
    assert (result.returncode, result.stdout, result.stderr) == (143, "cleaned up\n", "")


def test_a_forked_worker_still_dies_of_sigterm() -> None:
    body = (
        "child = os.fork()\n"
        "if not child:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os._exit(0)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert probe(body).stdout == "-15\n"


@pytest.mark.parametrize("body", ["for _ in range(100_000):\n    print('line')", "print('x' * 1_000_000)"])
def test_a_reader_that_leaves_ends_the_command_quietly(body: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = probe(body, capture_output=False, stdout=writer, stderr=subprocess.PIPE)
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device without space")
def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        result = probe("print('x')", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1
    assert result.stderr == "dualformer: cannot write the output: no space left on device; free some space\n"


def test_a_file_that_the_system_refuses_is_one_line_and_verbose_shows_where() -> None:
    body = "open('/no such folder/x')"
    plain, verbose = probe(body), probe(body, "--verbose")
    assert plain.returncode == verbose.returncode == 1
    assert plain.stderr == "dualformer: '/no such folder/x': no such file or directory; -v shows where\n"
    assert "Traceback (most recent call last):" in verbose.stderr
    assert probe("raise OSError(errno.EIO, 'Input/output error')").stderr == (
        "dualformer: input/output error; -v shows where\n"
    )


def test_warnings_are_logged_on_stderr_in_one_line_and_details_only_with_verbose() -> None:
    body = (
        "import logging\nlog = logging.getLogger('dualformer_cli.x')\nlog.warning('odd %s', 'a\\nb')\nlog.info('so')\n"
        "log.debug('more')"
    )
    quiet, verbose = probe(body), probe(body, "--verbose")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "warning: odd a\\nb\nso\n")
    assert verbose.stderr == "warning: odd a\\nb\nso\ndebug: more\n"


def test_the_version_names_what_matters_for_a_bug_report() -> None:
    result = dualformer("--version")
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"dualformer {__version__}"
    names = [line.split()[0] for line in lines]
    for name in ("python", "torch", "cpu", "av", "decord", "triton"):
        assert name in names
    assert "CUDA" in result.stdout


def test_the_schema_of_presets_is_one_json_document() -> None:
    result = dualformer("--print-schema")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == preset_schema()


def test_every_command_has_help_text_and_every_option_says_what_it_does() -> None:
    group = get_command(app)
    commands = dict(group.commands)  # type: ignore[attr-defined]
    for name in GROUPS:
        commands.update({f"{name} {inner}": command for inner, command in commands[name].commands.items()})
    for name, command in commands.items():
        assert command.help, f"{name} has no help text"
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help text"


def test_options_work_in_the_test_runner_too() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "Usage: dualformer" in result.output
    assert isinstance(app, typer.Typer)


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
    ids=["nothing", "a count", "a policy"],
)
def test_waiting_threads_sleep_soon_unless_the_user_says_otherwise(given: dict[str, str], spins: str) -> None:
    """OpenMP reads it when torch loads, so that it must stand there before."""
    own = {name: value for name, value in ENVIRON.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    program = "import dualformer_cli, os, sys; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    assert run("-c", program, env={**own, **given}).stdout.split() == [spins, "False"]
