"""The virtual environments of the peers: made when first needed, from pinned requirements."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

_REQUIREMENTS = Path(__file__).parent / "requirements"
# llama-cpp-python's library is the one that is built for this processor, beside its server.
_VARIABLES = {"CMAKE_ARGS": "-DLLAMA_BUILD=OFF", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


class EnvironmentFailedError(Exception):
    """An environment cannot be made; says why."""


def make_environment(name: str, folder: Path) -> Path:
    """Return the Python of an environment, which is made unless its requirements are installed.

    Raises:
        EnvironmentFailedError: pip could not install them.
    """
    requirements = _REQUIREMENTS / f"{name}.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    home = folder / name / "venv"
    python, stamp = home / "bin" / "python", home / ".installed"
    if stamp.exists() and stamp.read_text(encoding="ascii") == digest:
        return python
    log = folder / name / "install.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(home)],
            [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)],
        ):
            done = subprocess.run(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_VARIABLES},
                check=False,
            )
            if done.returncode:
                raise EnvironmentFailedError(f"{_error(log)} (see {log.name} of {name})")
    stamp.write_text(digest, encoding="ascii")
    return python


def _error(log: Path) -> str:
    """Return the first line that says what went wrong."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in lines if "ERROR" in line), lines[-1] if lines else "pip failed")
