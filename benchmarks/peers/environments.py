"""Virtual environments of the peers, built from pinned requirements on first use."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

_REQUIREMENTS = Path(__file__).parent / "requirements"
# `llama_build` compiles the library and its server for this processor, not the package.
_VARIABLES = {"CMAKE_ARGS": "-DLLAMA_BUILD=OFF", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


class EnvironmentFailedError(Exception):
    """Failure to create a virtual environment, with the reason."""


def make_environment(name: str, folder: Path) -> Path:
    """Return the Python of an environment, created or updated if needed.

    Args:
        name: Name of the requirements file, without its suffix.
        folder: Directory that holds the environments.

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
            completed = subprocess.run(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_VARIABLES},
                check=False,
            )
            if completed.returncode:
                raise EnvironmentFailedError(f"{_find_error(log)} (see {log.name} of {name})")
    stamp.write_text(digest, encoding="ascii")
    return python


def _find_error(log: Path) -> str:
    """Return the first line with an error, or else the last."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in lines if "ERROR" in line), lines[-1] if lines else "pip failed")
