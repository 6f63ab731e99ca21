"""What `first_hour.sh` names is there: it runs on a card seldom, and names move."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("first_hour.sh")
ROOT = SCRIPT.parents[2]
TEXT = SCRIPT.read_text(encoding="utf-8")
PROGRAMS = dict(re.findall(r"^cat > \$WORK/(\w+)\.py <<'EOF'\n(.*?)^EOF$", TEXT, re.MULTILINE | re.DOTALL))


def test_the_script_is_one_that_bash_can_read() -> None:
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0
    assert len(PROGRAMS) == 9


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_a_program_imports_from_this_package_is_there(name: str) -> None:
    for node in ast.walk(ast.parse(PROGRAMS[name])):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dualformer_cli"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


def test_the_files_that_its_steps_run_are_there() -> None:
    named = set(re.findall(r"(?:tests|dualformer_cli)/[\w/]+\.\w+", TEXT))
    assert named
    assert {path for path in named if not (ROOT / path).is_file()} == set()
