"""Commands of the group `gpt2flow agent`."""

import typer

from gpt2flow.cli.commands.agent import (
    cases,
    dispatch,
    evaluate,
    messages,
    payment_service,
    record,
    serve,
    upkeep,
)


def add_commands(parent: typer.Typer) -> None:
    """Add the command group."""
    app = typer.Typer(help="Run the shop agent on customer messages.", no_args_is_help=True)
    for module in (messages, serve, cases, dispatch, payment_service, evaluate, record, upkeep):
        module.add_commands(app)
    parent.add_typer(app, name="agent")
