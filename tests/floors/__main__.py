"""Floors: run server and client on the oldest packages that are allowed.

Runs as `python -m tests.floors [--work DIR]`. It makes an environment for each.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tests.floors.requirements import floors
from tests.support.project import PROJECT, SHIPPED_BUNDLE
from tests.support.server_process import server_process


def main() -> None:
    """Make the environments, and run the smoke test in each."""
    parser = argparse.ArgumentParser(prog="python -m tests.floors", description=__doc__)
    parser.add_argument("--work", type=Path, default=PROJECT / "build/floors", help="Directory.")
    work: Path = parser.parse_args().work
    client = _environment(work / "client", floors("client"))
    with (
        tempfile.TemporaryDirectory() as folder,
        server_process(SHIPPED_BUNDLE, Path(folder)) as server,
    ):
        _run(client, "tests.floors.smoke", "client", server.address)
    server_python = _environment(work / "server", floors("server"))
    _run(server_python, "gpt2flow.cli", "serve", "--help")
    _run(server_python, "tests.floors.smoke", "server")
    sys.stdout.write("client and server run on their floors\n")


def _environment(folder: Path, versions: dict[str, str]) -> Path:
    """Return the interpreter of an environment with exactly these versions."""
    python = folder / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pinned = [f"{name}=={version}" for name, version in versions.items()]
    sys.stdout.write(f"{folder.name}: {' '.join(pinned)}\n")
    sys.stdout.flush()
    subprocess.run([python, "-m", "pip", "install", "--quiet", *pinned], check=True)
    return python


def _run(python: Path, module: str, *arguments: str) -> None:
    """Run a module of this project, whatever its packages, in an environment."""
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    roots = settings["tool"]["hatch"]["build"]["dev-mode-dirs"]
    path = os.pathsep.join(str(PROJECT / root) for root in roots)
    subprocess.run(
        [python, "-m", module, *arguments],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        check=True,
    )


if __name__ == "__main__":
    main()
