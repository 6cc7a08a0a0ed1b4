"""Commands of the group `gpt2flow agent`."""

import typer

from gpt2flow.cli.commands.agent import (
    cases,
    dispatch,
    evaluate,
    forget,
    messages,
    migrate,
    payment_service,
    serve,
)


def add_commands(parent: typer.Typer) -> None:
    """Add the command group."""
    app = typer.Typer(help="Run the shop agent on customer messages.", no_args_is_help=True)
    for module in (messages, serve, cases, dispatch, payment_service, evaluate, migrate, forget):
        module.add_commands(app)
    parent.add_typer(app, name="agent")
