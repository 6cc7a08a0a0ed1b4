"""`gpt2flow agent`."""

import typer


def add_commands(app: typer.Typer) -> None:
    """Adds `agent` and its subcommands."""
