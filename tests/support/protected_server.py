"""Server process with TLS and bearer tokens."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.certificates import AuthorityFiles
from tests.support.command_line import gpt2flow
from tests.support.project import SHIPPED_BUNDLE
from tests.support.server_process import server_process


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


@contextmanager
def protected_server(folder: Path) -> Iterator[Protected]:
    """Serve the shipped bundle as `shop`, with certificates and a token."""
    pair = AuthorityFiles(folder, "ca").pair("server")
    _, out, _ = gpt2flow("token", "example", "--json")
    token = json.loads(out)
    tokens = folder / "tokens.toml"
    tokens.write_text(token["entry"])
    tokens.chmod(0o600)
    (folder / "token").write_text(f"{token['token']}\n")
    options = (
        f"--tls-certificate={pair.certificate}",
        f"--tls-key={pair.key}",
        f"--tokens={tokens}",
    )
    with server_process(SHIPPED_BUNDLE, folder, *options, name="shop", limits=()) as server:
        yield Protected(server.address, folder, token["token"])
