"""Every command of the README runs as written, in a fresh checkout."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from tests.support.project import PROJECT

README = PROJECT / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ADDRESS = re.compile(r"--address (\S+)")
DEFAULT_ADDRESS = "127.0.0.1:50051"


def checkout(directory: Path) -> Path:
    """Copy the project's files, with the environment that `make test` has installed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source, target = PROJECT / name, directory / name
        if source.is_file():  # Not one that was deleted and not committed.
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    (directory / ".venv").symlink_to(PROJECT / ".venv")
    # Otherwise an edited file would have `make` install the copy into the shared environment.
    installed = [directory / "pyproject.toml", directory / "constraints.txt"]
    for path in [*installed, *(directory / "native").rglob("*")]:
        os.utime(path, (0, 0))
    return directory


def script() -> str:
    """Return the README's blocks as one script that waits for its servers."""
    lines = ["set -euo pipefail"]
    for language, code in BLOCK.findall(README.read_text(encoding="utf-8")):
        if language == "python":
            lines.append(f"python - <<'PYTHON'\n{code}PYTHON")
        if language != "sh":
            continue
        for line in code.splitlines():
            lines.append(line)
            if line.rstrip().endswith("&"):
                found = ADDRESS.search(line)
                address = found[1] if found else DEFAULT_ADDRESS
                lines.append(f"until gpt2flow health --address {address}; do sleep 0.2; done")
    return "\n".join(lines) + "\n"


@pytest.mark.timeout(900)
def test_every_command_runs_as_written(tmp_path: Path) -> None:
    if not (PROJECT / ".venv").is_dir():
        pytest.skip("the project's environment is not .venv")
    directory = checkout(tmp_path / "gpt2flow")
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-c", script()],
            cwd=directory,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        code = process.wait(timeout=840)
    finally:
        # The README leaves its servers running, unless it failed before the first.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    output = log.read_text(encoding="utf-8")
    assert code == 0, output
    assert "After-sales · 售后: as expected" in output
    assert '{"action":"track_order","order":"SO-1042"}' in output
    assert "Your cart is now at" in output
    assert "perplexity" in output


def test_both_languages_have_the_same_code() -> None:
    chinese = PROJECT / "README.zh-CN.md"
    english, translated = (
        BLOCK.findall(page.read_text(encoding="utf-8")) for page in (README, chinese)
    )
    assert english == translated
