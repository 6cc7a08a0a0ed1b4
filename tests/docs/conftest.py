"""Servers that the pages of docs/ assume, and files with their secrets."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.certificates import AuthorityFiles
from tests.support.project import SHIPPED_BUNDLE

from gpt2flow.cli.demo.processes import server


@dataclass(frozen=True)
class Protected:
    """Server with TLS and tokens.

    Attributes:
        address: Address of the server.
        folder: Directory with `ca.pem` and `token`.
        token: Secret that `token` holds.
    """

    address: str
    folder: Path
    token: str


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(SHIPPED_BUNDLE, tmp_path_factory.mktemp("server")) as server_address:
        yield server_address


@pytest.fixture(scope="session")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Protected]:
    folder = tmp_path_factory.mktemp("protected")
    authority = AuthorityFiles(folder, "ca")
    pair = authority.pair("server")
    completed = subprocess.run(
        [sys.executable, "-m", "gpt2flow.cli", "token", "example", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    token = json.loads(completed.stdout)
    tokens = folder / "tokens.toml"
    tokens.write_text(token["entry"])
    tokens.chmod(0o600)
    (folder / "token").write_text(f"{token['token']}\n")
    options = [f"--tls-certificate={pair.certificate}", f"--tls-key={pair.key}"]
    with server(SHIPPED_BUNDLE, folder, *options, f"--tokens={tokens}") as server_address:
        yield Protected(server_address, folder, token["token"])
