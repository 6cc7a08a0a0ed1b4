"""PostgreSQL server of a test run: search, start and end."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from tests.support.postgresql import (
    PostgresqlServer,
    UnavailableError,
    find_programs,
    postgresql_server,
    skip,
)
from tests.support.project import PROJECT
from tests.support.waiting import eventually

SERVER = """
import signal
from tests.support.postgresql import postgresql_server
with postgresql_server() as server:
    print(server.folder, flush=True)
    signal.pause()
"""


def program(path: Path, text: str = "") -> Path:
    """Write an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_the_newest_version_of_debian_is_found_first(tmp_path: Path) -> None:
    for version in ("9.6", "15", "13"):
        program(tmp_path / version / "bin/initdb")
    (tmp_path / "17/bin").mkdir(parents=True)
    assert find_programs(tmp_path) == tmp_path / "15/bin"


def test_the_search_path_is_next_and_then_the_reason_names_the_remedy(tmp_path: Path) -> None:
    program(tmp_path / "bin/initdb")
    assert find_programs(tmp_path / "none", str(tmp_path / "bin")) == tmp_path / "bin"
    with pytest.raises(UnavailableError, match=r"no PostgreSQL server .* `make postgresql`"):
        find_programs(tmp_path / "none", str(tmp_path / "none"))


def test_without_a_server_a_test_is_skipped_and_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no server"):
        skip("no server")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no server"):
        skip("no server")


@pytest.mark.process
def test_two_runs_have_servers_of_their_own(postgresql: PostgresqlServer) -> None:
    with postgresql_server() as other:
        other.execute("CREATE DATABASE {}", "only_here")
        psycopg.connect(other.url("only_here")).close()
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            psycopg.connect(postgresql.url("only_here"))
    assert not other.folder.exists()


@pytest.mark.process
def test_a_killed_server_keeps_what_was_committed() -> None:
    with postgresql_server() as server:
        server.execute("CREATE DATABASE {}", "kept")
        server.stop(signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.url("kept"))
        server.start()
        psycopg.connect(server.url("kept")).close()


@pytest.mark.process
def test_a_killed_run_leaves_neither_server_nor_folder(postgresql: PostgresqlServer) -> None:
    del postgresql  # Skips this test where there is no server.
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        folder = Path(run.stdout.readline().strip())
        pid = int((folder / "data/postmaster.pid").read_text().splitlines()[0])
        run.send_signal(signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    # What its user cannot remove is an empty folder.
    eventually(lambda: not folder.exists() or not list(folder.iterdir()))
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.process
def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    for name in ("initdb", "postgres"):
        program(tmp_path / "bin" / name, "echo 'no space left' >&2; exit 1")
    server = PostgresqlServer(tmp_path / "bin", tmp_path, None)
    with pytest.raises(UnavailableError, match="makes no data directory: no space left"):
        server.create()
    with pytest.raises(UnavailableError, match=r"does not start: .*no space left"):
        server.start()


@pytest.mark.process
@pytest.mark.parametrize(
    "user, apt, expected",
    [
        (0, "exit 0", ("Installing PostgreSQL\n", "")),
        (0, "exit 1", ("Installing PostgreSQL\n", "the tests on it are skipped")),
        (1000, "exit 0", ("", "as root: apt-get install postgresql")),
    ],
    ids=["root", "no network", "user"],
)
def test_make_installs_a_missing_server_or_says_how(
    tmp_path: Path, user: int, apt: str, expected: tuple[str, str]
) -> None:
    bin_ = tmp_path / "bin"
    program(bin_ / "id", f"echo {user}")
    program(bin_ / "apt-get", f'echo "$@" >> {tmp_path / "calls"}; {apt}')
    for name in ("sh", "ls", "make"):
        (bin_ / name).symlink_to(shutil.which(name) or "")
    done = subprocess.run(
        ["make", "--no-print-directory", "postgresql", f"POSTGRESQL={tmp_path / 'none'}"],
        cwd=PROJECT,
        env={**os.environ, "PATH": str(bin_)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, expected[0])
    assert expected[1] in done.stderr
    calls = tmp_path / "calls"
    asked = calls.read_text(encoding="utf-8").splitlines() if calls.exists() else []
    installs = {(0, "exit 0"): ["-qq update", "-qq install -y postgresql"]}
    assert asked == installs.get((user, apt), ["-qq update"] if user == 0 else [])
