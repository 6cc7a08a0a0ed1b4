"""Commands of docs/grpcurl.md, sent by reflection and, if installed, by grpcurl."""

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from tests.support.doc_pages import ADDRESS, blocks
from tests.support.protected_server import Protected
from tests.support.reflection_client import Reflected

# Flags of the page that take a value.
_WITH_VALUE = {"-d", "-H", "-max-time", "-cacert"}

GRPCURL = shutil.which("grpcurl")


@dataclass(frozen=True)
class Command:
    """Command of the page.

    Attributes:
        text: The whole command.
        flags: Values of the flags; empty for a flag without a value.
        target: Positional arguments after the address.
    """

    text: str
    flags: dict[str, str]
    target: list[str]

    @property
    def plain(self) -> bool:
        return "-plaintext" in self.flags


def parse(text: str) -> Command:
    arguments, flags, positional = iter(shlex.split(text)[1:]), {}, []
    for argument in arguments:
        if argument.startswith("-"):
            flags[argument] = next(arguments) if argument in _WITH_VALUE else ""
        else:
            positional.append(argument)
    assert positional[0] == ADDRESS
    return Command(text.strip(), flags, positional[1:])


COMMANDS = [
    parse(text)
    for block in blocks("grpcurl.md")
    for text in re.split(r"^(?=grpcurl )", block, flags=re.MULTILINE)
    if text.startswith("grpcurl ")
]


def name(command: Command) -> str:
    return " ".join(argument.rpartition(".")[2] for argument in command.target)


def answers(reflected: Reflected, command: Command) -> list[Any]:
    match command.target:
        case ["list"]:
            return sorted(reflected.services())
        case ["list" | "describe", symbol]:
            return [reflected.describe(symbol)]
        case [path]:
            return list(reflected.call(path, command.flags.get("-d", "{}")))
    raise AssertionError(command)


def test_the_page_calls_every_method() -> None:
    methods = {
        path.rpartition("/")[2] for command in COMMANDS for path in command.target if "/" in path
    }
    assert methods == {
        "Generate",
        "GenerateStream",
        "Score",
        "Tokenize",
        "Detokenize",
        "ListModels",
        "GetModel",
        "Check",
    }


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.plain], ids=name)
def test_a_plaintext_command_is_answered(address: str, command: Command) -> None:
    with grpc.insecure_channel(address) as channel:
        assert answers(Reflected(channel), command)


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.plain], ids=name)
def test_a_command_with_tls_and_token_is_answered(protected: Protected, command: Command) -> None:
    assert command.flags["-H"] == "authorization: Bearer $TOKEN"
    credentials = grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials((protected.folder / command.flags["-cacert"]).read_bytes()),
        grpc.access_token_call_credentials(protected.token),
    )
    with grpc.secure_channel(protected.address, credentials) as channel:
        assert answers(Reflected(channel), command)


@pytest.mark.skipif(GRPCURL is None, reason="no grpcurl on this machine")
@pytest.mark.parametrize("command", COMMANDS, ids=name)
def test_grpcurl_accepts_the_command(address: str, protected: Protected, command: Command) -> None:
    server_address = address if command.plain else protected.address
    completed = subprocess.run(
        ["sh", "-c", command.text.replace(ADDRESS, server_address)],
        capture_output=True,
        text=True,
        cwd=protected.folder,
        env={**os.environ, "TOKEN": protected.token},
        timeout=60,
        check=False,
    )
    assert (completed.returncode, completed.stderr) == (0, "")
    assert completed.stdout
