"""Settings of the server from the commands of a deployment."""

from collections.abc import Callable

import pytest
import typer

import gpt2flow.server
from gpt2flow.cli.main import build_app

Configured = Callable[[list[str]], gpt2flow.server.ServerConfig]


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Configured:
    """Return a function that runs `serve` and returns the server's settings."""

    def run(arguments: list[str]) -> gpt2flow.server.ServerConfig:
        configs: list[gpt2flow.server.ServerConfig] = []
        monkeypatch.setattr(gpt2flow.server, "serve", lambda config, *_: configs.append(config))
        typer.main.get_command(build_app()).main(arguments, standalone_mode=False)
        return configs[0]

    return run
