"""Commands of the group `gpt2flow agent`."""

import typer

from gpt2flow.cli.commands.agent import cases, evaluate, messages


def add_commands(parent: typer.Typer) -> None:
    """Add the command group."""
    app = typer.Typer(help="Run the shop agent on customer messages.", no_args_is_help=True)
    for module in (messages, cases, evaluate):
        module.add_commands(app)
    parent.add_typer(app, name="agent")
