"""Command `gpt2flow agent record`: what it refuses before a browser starts."""

import socket
from pathlib import Path

import pytest
from tests.support.command_line import UNREACHABLE, gpt2flow

pytestmark = pytest.mark.process

URL = ["--url", f"http://{UNREACHABLE}/"]
PORT = ["--remote-port", "0"]


@pytest.fixture(autouse=True)
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "action, options, message",
    [
        ("dance", [*URL, *PORT], "action is 'dance', expected one of sign-in, "),
        (
            "add_to_cart",
            ["--url", "ftp://shop/", *PORT],
            "--url is 'ftp://shop/', must be an https",
        ),
        ("add_to_cart", ["--url", "http://a:b@shop/", *PORT], "--url has a user or a password"),
        ("add_to_cart", ["--url", "http://[::1", *PORT], "--url is 'http://[::1', which is no URL"),
        ("add_to_cart", ["--url", "http://127.0.0.1:99999/", *PORT], "Port out of range 0-65535"),
        ("add_to_cart", ["--url", "http://shop.example/", *PORT], "must be https except on this"),
        ("add_to_cart", URL, "there is no display: start the recorder on a desktop, or give"),
        ("add_to_cart", [*URL, *PORT, "--outcome", "x"], "--outcome is 'x', expected one of ["),
        ("view_cart", [*URL, *PORT], "--outcome is 'missing', expected one of ['empty', 'shown']"),
        ("sign-in", [*URL, *PORT, "--outcome", "x"], "the sign-in has no outcomes"),
        ("sign-in", [*URL, *PORT], "--argument session=… is missing"),
        ("add_to_cart", [*URL, *PORT, "--argument", "x=1"], "--argument names 'x', expected one"),
        ("add_to_cart", [*URL, *PORT, "--browser", "/no/chromium"], "'/no/chromium'"),
        ("add_to_cart", [*URL, *PORT, "--flows", "/no/flows"], "/no/flows"),
    ],
)
def test_a_wrong_setting_is_named(
    action: str, options: list[str], message: str, tmp_path: Path
) -> None:
    out = tmp_path / "screens.en.yaml"
    code, _, error = gpt2flow("agent", "record", action, "--out", str(out), *options)
    assert (code, len(error.splitlines())) == (2, 1), error
    assert message in error
    assert not out.exists()


def test_an_invalid_file_of_recordings_is_named(tmp_path: Path) -> None:
    out = tmp_path / "screens.en.yaml"
    out.write_text("actions: 3\n", encoding="utf-8")
    code, _, error = gpt2flow("agent", "record", "add_to_cart", *URL, *PORT, "--out", str(out))
    assert code == 2
    assert f"{out}: field actions" in error
    assert out.read_text(encoding="utf-8") == "actions: 3\n"


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        given = ["--remote-port", port, "--out", str(tmp_path / "screens.en.yaml")]
        code, _, error = gpt2flow("agent", "record", "add_to_cart", *URL, *given)
    assert code == 2
    assert f"--remote-port is {port}: Address already in use" in error
