"""What the pages of docs/ assume: servers of the shipped bundle, and files with their secrets."""

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
    """A server with TLS and tokens; `folder` has `ca.pem` and `token`."""

    address: str
    folder: Path
    token: str


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(SHIPPED_BUNDLE, tmp_path_factory.mktemp("server")) as where:
        yield where


@pytest.fixture(scope="session")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Protected]:
    folder = tmp_path_factory.mktemp("protected")
    authority = AuthorityFiles(folder, "ca")
    pair = authority.pair("server")
    made = subprocess.run(
        [sys.executable, "-m", "gpt2flow.cli", "token", "example", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    token = json.loads(made.stdout)
    tokens = folder / "tokens.toml"
    tokens.write_text(token["entry"])
    tokens.chmod(0o600)
    (folder / "token").write_text(f"{token['token']}\n")
    options = [f"--tls-certificate={pair.certificate}", f"--tls-key={pair.key}"]
    with server(SHIPPED_BUNDLE, folder, *options, f"--tokens={tokens}") as where:
        yield Protected(where, folder, token["token"])
