"""Check of the built image, run read-only and without privileges.

`make image-check` runs this. pytest does not collect it, since it needs root and, as every build,
the package index.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.dockerfile import load, settings
from tests.support.image import Image
from tests.support.project import PROJECT

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare"
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    folder = tmp_path_factory.mktemp("image")
    # The users that the image runs as must be able to reach its root.
    for path in (folder, *folder.parents):
        path.chmod(path.stat().st_mode | 0o111)
    yield Image(load(), PROJECT, folder)
    shutil.rmtree(folder)


@contextmanager
def running(image: Image, log: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run the server in namespaces of its own within the block."""
    script = image.script("server", readable={"/models": PROJECT / "models"})
    with log.open("w") as output:
        process = subprocess.Popen(
            ["unshare", "--mount", "--net", "sh", "-c", script],
            stdout=output,
            stderr=output,
            text=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def run_beside(
    process: "subprocess.Popen[str]", *command: str, namespaces: tuple[str, ...] = ("mount", "net")
) -> "subprocess.CompletedProcess[str]":
    """Run a command in the namespaces of a running process."""
    enter = ["nsenter", f"--target={process.pid}", *(f"--{name}" for name in namespaces)]
    return subprocess.run([*enter, *command], capture_output=True, text=True, check=False)


def wait_until_healthy(image: Image, process: "subprocess.Popen[str]", log: Path) -> None:
    """Run the HEALTHCHECK until it succeeds."""
    keyword, _, command = settings(load(), "server")["HEALTHCHECK"].rest.partition(" ")
    assert keyword == "CMD"
    check = f"{image.command_prefix('server')} {' '.join(json.loads(command))}"
    deadline = time.monotonic() + 120
    while (checked := run_beside(process, "sh", "-c", check)).returncode:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, checked.stderr
        time.sleep(0.2)
    assert checked.stdout.strip() == "SERVING"


def kernel_status(process: "subprocess.Popen[str]") -> dict[str, list[str]]:
    """Return the fields of the process's /proc/PID/status."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return {key: value.split() for key, _, value in (line.partition(":") for line in lines)}


def megabytes(root: Path) -> float:
    """Return the size of a stage's own files, in 10^6 bytes."""
    files = [path for path in (root / "opt").rglob("*") if not path.is_symlink()]
    return sum(path.stat().st_size for path in files) / 1e6


def test_the_server_runs_read_only_unprivileged_and_ends_at_sigterm(
    image: Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    with running(image, log) as process:
        wait_until_healthy(image, process, log)
        for path in ("/file", "/opt/gpt2flow/file", "/models/file", "/usr/file"):
            # Run as root, so that only the mount can refuse.
            touched = run_beside(process, "chroot", str(image.root("server")), "touch", path)
            assert "Read-only file system" in touched.stderr
        status = kernel_status(process)
        assert set(status["Uid"]) == set(status["Gid"]) == {"10001"}
        assert int(status["CapEff"][0], 16) == int(status["CapBnd"][0], 16) == 0
        assert status["NoNewPrivs"] == ["1"]
        memory = int(status["VmRSS"][0]) * 1024 / 1e6
        size = megabytes(image.root("server"))
        with capsys.disabled():
            print(f"\nserver: {size:.0f} MB, {memory:.0f} MB resident")  # noqa: T201 - a figure
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    assert json.loads(log.read_text().splitlines()[-1])["event"] == "stopped"


def test_the_agent_carries_out_a_message_and_writes_only_to_its_volume(
    image: Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    volume = tmp_path / "data"
    volume.mkdir()
    os.chown(volume, 10001, 10001)
    arguments = ["agent", "ask", "please add 2 umbrellas to my cart", "--json"]
    arguments += ["--address", "127.0.0.1:50051"]
    script = image.script("agent", arguments, writable={"/data": volume})
    with running(image, tmp_path / "log") as process:
        wait_until_healthy(image, process, tmp_path / "log")
        asked = run_beside(process, "unshare", "--mount", "sh", "-c", script, namespaces=("net",))
    assert asked.returncode == 0, asked.stderr
    actions = [action["action"] for action in json.loads(asked.stdout)["actions"]]
    assert "add_to_cart" in actions
    assert (volume / "gpt2flow.sqlite").stat().st_uid == 10001
    with capsys.disabled():
        print(f"\nagent: {megabytes(image.root('agent')):.0f} MB")  # noqa: T201 - a figure
