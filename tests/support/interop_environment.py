"""Environments of programs that nobody here wrote."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.support.project import PROJECT
from tests.support.waiting import SECONDS

PROGRAMS = PROJECT / "tests" / "interop" / "openai"
# Targets of the Makefile that install what `make test` needs.
_TARGETS = {"openai": "openai-client", "triton": "triton-client"}


def python_of(name: str) -> Path:
    """Return the interpreter of an environment of the Makefile."""
    python = PROJECT / "build" / "interop" / name / "bin" / "python"
    target = _TARGETS.get(name, "interop")
    assert python.exists(), f"the environment of {name} is missing; run `make {target}`"
    return python


def environment() -> dict[str, str]:
    """Return the variables of this process, without proxies and PYTHONPATH."""
    left_out = ("_proxy", "_PROXY", "PYTHONPATH")
    return {key: value for key, value in os.environ.items() if not key.endswith(left_out)}


def run_program(name: str, *arguments: str, folder: Path = PROGRAMS) -> Any:
    """Run a program in an environment, and return the JSON it prints.

    Args:
        name: Name of the package; the program is `NAME_client.py`.
        arguments: Arguments of the program.
        folder: Directory of the program.
    """
    command = [str(python_of(name)), str(folder / f"{name}_client.py"), *arguments]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)
