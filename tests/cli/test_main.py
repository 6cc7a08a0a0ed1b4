"""Tests of the command line as a whole."""

import subprocess
import sys

import pytest
import typer

from gpt2flow.cli.main import COMMANDS, build_app


def names(*arguments: str) -> set[str]:
    """Return the names of the commands that the arguments can reach."""
    command = typer.main.get_command(build_app(arguments))
    return set(command.commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_name_of_a_command_builds_that_command_alone(name: str) -> None:
    assert names(name, "--help") == {name}


@pytest.mark.parametrize("arguments", [(), ("--help",), ("--debug", "serve"), ("nonsense",)])
def test_other_arguments_build_every_command(arguments: tuple[str, ...]) -> None:
    assert names(*arguments) == set(COMMANDS)


def test_a_command_does_not_import_the_others() -> None:
    program = (
        "import sys; from gpt2flow.cli.main import build_app; build_app(['serve'])\n"
        "print(*(name for name in sys.modules if name.startswith('gpt2flow.cli.commands.')))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["gpt2flow.cli.commands.serve"]
