"""Command line of the project: its commands, run as processes."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.waiting import SECONDS

# Address that refuses connections: no server of this machine has the discard port.
UNREACHABLE = "127.0.0.1:9"


def gpt2flow(*arguments: str, stdin: str = "", cwd: Path | None = None) -> tuple[int, str, str]:
    """Run `gpt2flow`; return its exit code, its output and its errors."""
    done = subprocess.run(
        [sys.executable, "-m", "gpt2flow.cli", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=2 * SECONDS,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def commands(command: Any, name: str = "gpt2flow") -> Iterator[tuple[str, Any]]:
    """Yield a command of Typer and those below it, by name."""
    yield name, command
    for key, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {key}")
