"""Directories appear atomically, and leftovers of killed processes are removed."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from gpt2flow.files.atomic import TargetError, atomic_directory

WRITER = """
import sys
from pathlib import Path
from gpt2flow.files.atomic import atomic_directory

with atomic_directory(Path(sys.argv[1])) as directory:
    (directory / "file").write_text("half")
    print("writing", flush=True)
    sys.stdin.readline()
"""
NOBODY = 65534


@contextmanager
def writer(target: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process that pauses amid writing until it receives a line."""
    command = [sys.executable, "-c", WRITER, str(target)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert output(process).readline() == "writing\n"
            yield process
        finally:
            process.kill()


def output(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def write(target: Path) -> None:
    with atomic_directory(target) as directory:
        (directory / "file").write_text("whole")


@pytest.mark.process
def test_leftovers_of_a_killed_process_are_removed_by_the_next(tmp_path: Path) -> None:
    with writer(tmp_path / "bundle") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".bundle.")
    write(tmp_path / "another")
    assert left.exists()
    write(tmp_path / "bundle")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["another", "bundle"]


@pytest.mark.process
def test_the_staging_directory_of_a_living_process_stays(tmp_path: Path) -> None:
    with writer(tmp_path / "bundle") as process:
        (staging,) = tmp_path.iterdir()
        write(tmp_path / "bundle")
        assert (staging / "whole" / "file").read_text() == "half"
        process.communicate("\n", timeout=60)
        # The first to finish wins.
        assert process.returncode == 1
    assert (tmp_path / "bundle" / "file").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_only_abandoned_staging_directories_are_removed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("mine")
    (tmp_path / ".bundle.abcdefgh.partial").symlink_to(elsewhere)
    for name in (".bundle.partial", ".bundle.mine.partial", ".other.abcdefgh.partial"):
        (tmp_path / name).mkdir()
    before = set(tmp_path.iterdir())
    write(tmp_path / "bundle")
    assert set(tmp_path.iterdir()) == before | {tmp_path / "bundle"}
    assert (elsewhere / "file").exists()


@pytest.mark.parametrize("kind", ["directory", "empty directory", "file"])
def test_a_target_that_appears_meanwhile_is_left_alone(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "bundle"

    def appear() -> None:
        if kind == "file":
            target.write_text("mine")
        else:
            target.mkdir()
        if kind == "directory":
            (target / "file").write_text("mine")

    with (
        pytest.raises(
            TargetError, match=r"bundle exists already; remove it or choose another path$"
        ),
        atomic_directory(target),
    ):
        appear()
    assert list(tmp_path.iterdir()) == [target]
    assert target.is_file() or all(path.read_text() == "mine" for path in target.iterdir())


def test_created_parents_are_removed_after_a_failure(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(KeyError), atomic_directory(tmp_path / "there" / "some" / "where" / "it"):
        raise KeyError
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_an_unwritable_parent_is_a_target_error(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    with _as_nobody(), pytest.raises(TargetError, match=r"cannot be created: Permission denied$"):
        write(closed / "bundle")


def test_a_full_disk_is_not_a_target_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.mkdtemp", fail)
    with pytest.raises(OSError, match="No space left on device"):
        write(tmp_path / "bundle")


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Drop root's privileges, since permissions do not stop root."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(mine)
