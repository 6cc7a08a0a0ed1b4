"""Command that runs the payment service."""

import socket
from pathlib import Path

import pytest
from tests.support.command_line import gpt2flow

pytestmark = pytest.mark.process


@pytest.mark.parametrize(
    "options, message",
    [
        (["--address", "nowhere"], "--address is 'nowhere', must be host:port"),
        (["--address", "127.0.0.1:65536"], "must be host:port with a port from 0 to 65535"),
        (["--address", "0.0.0.0:8090"], "name the tokens of clients with --tokens"),
        (["--address", "[::]:8090"], "name the tokens of clients with --tokens"),
        (["--tokens", "missing.toml"], "--tokens missing.toml: No such file"),
        (["--limit", "10 EUR"], "--limit is '10 EUR', must be a decimal string above 0"),
        (["--limit", "0"], "--limit is '0', must be a decimal string above 0"),
        (["--limit", "nan"], "--limit is 'nan', must be"),
        (["--delay", "-1"], "--delay is -1.0, must be finite and at least 0"),
        (["--delay", "nan"], "--delay is nan, must be a finite number"),
        (["--delay", "soon"], "--delay"),
        (["--data", "missing/payments.sqlite"], "missing/payments.sqlite: unable to open"),
        (["--data", "text"], "text: file is not a database"),
        (["--ready-file", "missing/port"], "--ready-file missing/port: No such file"),
        (["--colour"], "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_argument_exits_with_2_in_one_line(
    tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "text").write_text("no database" * 100)
    given = ["agent", "payment-service", "--address", "127.0.0.1:0", *options]
    code, out, err = gpt2flow(*given, cwd=tmp_path)
    errors = [line for line in err.splitlines() if not line.startswith("{")]
    assert (code, out, len(errors)) == (2, "", 1), err
    assert message in errors[0]


def test_a_port_in_use_exits_with_1_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        code, _, err = gpt2flow("agent", "payment-service", "--address", address, cwd=tmp_path)
    assert code == 1
    assert err == f"gpt2flow: error: cannot listen on {address}: Address already in use\n"
