"""Command `gpt2flow agent payment-service`, a provider for demos and tests."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported
from gpt2flow.cli.processes import announce


def payment_service(
    address: Annotated[
        str, typer.Option(help="host:port to listen on; port 0 picks a free one.")
    ] = "127.0.0.1:8090",
    data: Annotated[
        Path, typer.Option(help="SQLite file of the payments; it is created if there is none.")
    ] = Path("payments.sqlite"),
    tokens: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of the tokens that clients must send one of; needed on an address that "
            "other machines can reach.",
            show_default="everybody on this machine is served",
        ),
    ] = None,
    refuse: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<account>",
            help="Account whose payments are refused; may repeat.",
            show_default="none",
        ),
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(
            metavar="<amount>",
            help="Largest amount of a charge; one above it is refused.",
            show_default="any amount",
        ),
    ] = None,
    delay: Annotated[
        float, typer.Option(help="Seconds between a decision and its answer, for tests of kills.")
    ] = 0.0,
    ready_file: Annotated[
        Path | None,
        typer.Option(
            help="File that is written when ready: the bound port, one line.",
            show_default="none",
        ),
    ] = None,
) -> None:
    """Run a small payment service over HTTP until SIGTERM or Ctrl-C.

    It is a provider for demos and tests: it keeps accounts, and moves no money.
    """
    with needs_extra("service"):
        from gpt2flow.agent.errors import AgentError, InputError
        from gpt2flow.agent.payments.ledger import PaymentRules
        from gpt2flow.agent.payments.service import PaymentServiceConfig, serve_payments
    with reported(bad_input=InputError, failure=AgentError):
        rules = PaymentRules(frozenset(refuse or []), None if limit is None else _amount(limit))
        config = PaymentServiceConfig(address, data, rules, tokens, delay)
        serve_payments(config, lambda port: announce(ready_file, port))


def _amount(text: str) -> Decimal:
    from gpt2flow.agent.payments.contract import parse_amount

    try:
        return parse_amount(text)
    except ValueError as error:
        raise CommandError(f"--limit is {text!r}, {error}", Exit.BAD_INPUT) from error


def add_commands(group: typer.Typer) -> None:
    """Add the command to the group."""
    group.command()(payment_service)
