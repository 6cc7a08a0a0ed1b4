"""The image as its Dockerfile says: built, then run with nothing writable and no privilege.

`make image-check` runs this; pytest does not collect it by itself, since it needs root and, as
every build, the package index.
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
    # Those whom the image runs as must be able to reach their root.
    for path in (folder, *folder.parents):
        path.chmod(path.stat().st_mode | 0o111)
    yield Image(load(), PROJECT, folder)
    shutil.rmtree(folder)


@contextmanager
def running(image: Image, log: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start the server in namespaces of its own, and ends it."""
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


def beside(
    process: "subprocess.Popen[str]", *command: str, namespaces: tuple[str, ...] = ("mount", "net")
) -> "subprocess.CompletedProcess[str]":
    """Run a command in namespaces of a running process."""
    enter = ["nsenter", f"--target={process.pid}", *(f"--{each}" for each in namespaces)]
    return subprocess.run([*enter, *command], capture_output=True, text=True, check=False)


def wait_until_healthy(image: Image, process: "subprocess.Popen[str]", log: Path) -> None:
    """Run the HEALTHCHECK until it succeeds."""
    word, _, command = settings(load(), "server")["HEALTHCHECK"].rest.partition(" ")
    assert word == "CMD"
    check = f"{image.within('server')} {' '.join(json.loads(command))}"
    deadline = time.monotonic() + 120
    while (checked := beside(process, "sh", "-c", check)).returncode:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, checked.stderr
        time.sleep(0.2)
    assert checked.stdout.strip() == "SERVING"


def facts(process: "subprocess.Popen[str]") -> dict[str, list[str]]:
    """Return what the kernel says of a process."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return {key: value.split() for key, _, value in (line.partition(":") for line in lines)}


def megabytes(root: Path) -> float:
    """Return the size of the files that a stage adds to its base image."""
    files = [path for path in (root / "opt").rglob("*") if not path.is_symlink()]
    return sum(path.stat().st_size for path in files) / 1e6


def test_server(image: Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It gets healthy, has no privilege, can write nowhere, and ends at SIGTERM."""
    log = tmp_path / "log"
    with running(image, log) as process:
        wait_until_healthy(image, process, log)
        for path in ("/file", "/opt/gpt2flow/file", "/models/file", "/usr/file"):
            # As root, so that it is the mount that refuses.
            touched = beside(process, "chroot", str(image.root("server")), "touch", path)
            assert "Read-only file system" in touched.stderr
        known = facts(process)
        assert set(known["Uid"]) == set(known["Gid"]) == {"10001"}
        assert int(known["CapEff"][0], 16) == int(known["CapBnd"][0], 16) == 0
        assert known["NoNewPrivs"] == ["1"]
        memory = int(known["VmRSS"][0]) * 1024 / 1e6
        size = megabytes(image.root("server"))
        with capsys.disabled():
            print(f"\nserver: {size:.0f} MB, {memory:.0f} MB of memory")  # noqa: T201 - a figure
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    assert json.loads(log.read_text().splitlines()[-1])["event"] == "stopped"


def test_agent(image: Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It carries out a message with the server, and writes nowhere but into its volume."""
    volume = tmp_path / "data"
    volume.mkdir()
    os.chown(volume, 10001, 10001)
    arguments = ["agent", "ask", "please add 2 umbrellas to my cart", "--json"]
    arguments += ["--address", "127.0.0.1:50051"]
    script = image.script("agent", arguments, writable={"/data": volume})
    with running(image, tmp_path / "log") as process:
        wait_until_healthy(image, process, tmp_path / "log")
        asked = beside(process, "unshare", "--mount", "sh", "-c", script, namespaces=("net",))
    assert asked.returncode == 0, asked.stderr
    actions = [action["action"] for action in json.loads(asked.stdout)["actions"]]
    assert "add_to_cart" in actions
    assert (volume / "gpt2flow.sqlite").stat().st_uid == 10001
    with capsys.disabled():
        print(f"\nagent: {megabytes(image.root('agent')):.0f} MB")  # noqa: T201 - a figure
