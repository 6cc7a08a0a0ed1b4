"""Tests of the connection options of client commands: address, TLS and token."""

import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tests.support.certificates import AuthorityFiles
from tests.support.command_line import gpt2flow
from tests.support.flaky_server import FlakyService, listening

from gpt2flow.agent.config import AgentConfig
from gpt2flow.cli.connection import DEFAULT_ADDRESS
from gpt2flow.server import ServerConfig


@pytest.fixture
def authority(tmp_path: Path) -> AuthorityFiles:
    return AuthorityFiles(tmp_path)


@pytest.fixture
def served(authority: AuthorityFiles) -> Iterator[tuple[str, FlakyService]]:
    """Server that requires client certificates and records tokens."""
    pair, flaky = authority.pair("server"), FlakyService()
    credentials = grpc.ssl_server_credentials(
        [(pair.key.read_bytes(), pair.certificate.read_bytes())],
        root_certificates=authority.ca.read_bytes(),
        require_client_auth=True,
    )
    with listening(flaky, credentials) as address:
        yield address, flaky


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    return path


@pytest.fixture
def tls(authority: AuthorityFiles) -> list[str]:
    mine = authority.pair("client")
    files = {"ca": authority.ca, "certificate": mine.certificate, "key": mine.key}
    return [f"--tls-{name}={path}" for name, path in files.items()]


def test_generate_uses_tls_and_token(
    served: tuple[str, FlakyService], tls: list[str], token: Path
) -> None:
    address, flaky = served
    protected = [*tls, "--token-file", str(token)]
    assert gpt2flow("generate", "hi", "--address", address, *protected) == (0, "0 1 \n", "")
    assert flaky.calls[0].metadata["authorization"] == "Bearer s3cret"


def test_the_environment_names_the_token_file(
    monkeypatch: pytest.MonkeyPatch,
    served: tuple[str, FlakyService],
    tls: list[str],
    token: Path,
) -> None:
    address, flaky = served
    monkeypatch.setitem(os.environ, "GPT2FLOW_TOKEN_FILE", str(token))
    assert gpt2flow("generate", "hi", "--address", address, *tls)[0] == 0
    assert flaky.calls[0].metadata["authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("command", [["bench"], ["agent", "ask", "hi"]])
def test_other_commands_use_tls_and_token(
    command: list[str],
    served: tuple[str, FlakyService],
    tls: list[str],
    token: Path,
    tmp_path: Path,
) -> None:
    protected = [*tls, "--token-file", str(token)]
    _, _, err = gpt2flow(*command, "--address", served[0], *protected, cwd=tmp_path)
    # The flaky service lacks some methods that these commands call.
    assert "UNIMPLEMENTED" in err
    _, _, err = gpt2flow(*command, "--address", served[0], *protected[:1], cwd=tmp_path)
    assert "no server answers" in err


def test_a_token_leaves_this_machine_without_tls_only_if_allowed(token: Path) -> None:
    remote = ["generate", "hi", "--address", "192.0.2.1:1", "--timeout", "0.05"]
    code, _, err = gpt2flow(*remote, "--token-file", str(token))
    assert code == 2
    assert "in plain text" in err
    code, _, err = gpt2flow(*remote, "--token-file", str(token), "--insecure")
    assert code == 1
    assert "in plain text" not in err


@pytest.mark.parametrize("command", [["generate", "hi"], ["health"]])
def test_an_untrusted_certificate_is_reported_on_one_line(
    command: list[str], served: tuple[str, FlakyService], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    ca = AuthorityFiles(tmp_path / "other").ca
    arguments = [*command, "--address", served[0], "--timeout", "60", "--tls-ca", str(ca)]
    code, out, err = gpt2flow(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith("gpt2flow: error: no server answers at")
    assert err.count("\n") == 1
    assert "Tls handshake failed" in err


def test_server_agent_and_commands_have_the_same_default_address() -> None:
    assert ServerConfig(models={"m": Path("m")}).address == DEFAULT_ADDRESS
    assert AgentConfig().address == DEFAULT_ADDRESS
