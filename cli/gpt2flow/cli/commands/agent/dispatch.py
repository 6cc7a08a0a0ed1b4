"""Command `gpt2flow agent dispatch`, which sends the outbox."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt2flow.cli.agent_options import (
    Database,
    LogFormat,
    LogFormatOption,
    MetricsAddress,
    OtlpEndpoint,
)
from gpt2flow.cli.connection import with_options
from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported

if TYPE_CHECKING:
    from sqlalchemy import URL

    from gpt2flow.agent.delivery.dispatcher import Dispatcher
    from gpt2flow.agent.delivery.message import OutgoingMessage
    from gpt2flow.agent.delivery.observation import DeliveryObserver, ObservationSettings
    from gpt2flow.agent.delivery.queue import OutboxQueue
    from gpt2flow.agent.delivery.routing import Route
    from gpt2flow.agent.delivery.settings import DeliverySettings


class _Tls(StrEnum):
    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclass(frozen=True)
class ReceiverOptions:
    """Options that say where messages go."""

    webhook: Annotated[
        str | None,
        typer.Option(
            help="URL that gets messages as signed requests; https, except on this machine.",
            envvar="GPT2FLOW_WEBHOOK",
        ),
    ] = None
    webhook_secret_file: Annotated[
        Path | None,
        typer.Option(
            help="File of the secret to sign with: whsec_ and base64, one or several lines.",
            envvar="GPT2FLOW_WEBHOOK_SECRET_FILE",
            show_default="the variable GPT2FLOW_WEBHOOK_SECRET",
        ),
    ] = None
    smtp: Annotated[
        str | None,
        typer.Option(
            help="SMTP server that gets messages to e-mail contacts, as host:port.",
            envvar="GPT2FLOW_SMTP",
        ),
    ] = None
    smtp_from: Annotated[
        str | None,
        typer.Option(help="Address that mails are from.", envvar="GPT2FLOW_SMTP_FROM"),
    ] = None
    smtp_user: Annotated[
        str | None,
        typer.Option(help="Account on the SMTP server.", envvar="GPT2FLOW_SMTP_USER"),
    ] = None
    smtp_password_file: Annotated[
        Path | None,
        typer.Option(
            help="File of the account's password.",
            envvar="GPT2FLOW_SMTP_PASSWORD_FILE",
            show_default="the variable GPT2FLOW_SMTP_PASSWORD",
        ),
    ] = None
    smtp_tls: Annotated[
        _Tls,
        typer.Option(
            help="Encryption of the connection to the SMTP server.", envvar="GPT2FLOW_SMTP_TLS"
        ),
    ] = _Tls.STARTTLS
    staff_address: Annotated[
        str | None,
        typer.Option(
            help="E-mail address of messages to the staff.", envvar="GPT2FLOW_STAFF_ADDRESS"
        ),
    ] = None
    file: Annotated[
        Path | None,
        typer.Option(help="File that messages are appended to, one JSON object per line."),
    ] = None
    console: Annotated[bool, typer.Option("--console", help="Print messages.")] = False

    @property
    def are_given(self) -> bool:
        """Whether there is any receiver."""
        return bool(self.webhook or self.smtp or self.file or self.console)

    def settings(self, *, as_json: bool) -> "DeliverySettings":
        """Return the settings of the delivery.

        Raises:
            InputError: A secret cannot be read.
        """
        from gpt2flow.agent.delivery.mail import SmtpTls
        from gpt2flow.agent.delivery.settings import DeliverySettings
        from gpt2flow.agent.net.secrets import read_secret

        def secret(path: Path | None, option: str, variable: str, owner: str | None) -> str | None:
            if path is not None:
                return read_secret(option, path)
            # A variable may be set for another command; it counts only where it is needed.
            return os.environ.get(variable) if owner is not None else None

        return DeliverySettings(
            webhook=self.webhook,
            webhook_secret=secret(
                self.webhook_secret_file,
                "--webhook-secret-file",
                "GPT2FLOW_WEBHOOK_SECRET",
                self.webhook,
            ),
            smtp=self.smtp,
            smtp_from=self.smtp_from,
            smtp_user=self.smtp_user,
            smtp_password=secret(
                self.smtp_password_file,
                "--smtp-password-file",
                "GPT2FLOW_SMTP_PASSWORD",
                self.smtp_user,
            ),
            smtp_tls=SmtpTls(self.smtp_tls.value),
            staff_address=self.staff_address,
            file=self.file,
            console=(_print_json if as_json else _print_message) if self.console else None,
        )


@dataclass(frozen=True)
class ObservationOptions:
    """Options that say what an operator sees of the attempts."""

    log_format: LogFormatOption = LogFormat.CONSOLE
    metrics_address: MetricsAddress = None
    otlp_endpoint: OtlpEndpoint = None


@with_options(ReceiverOptions, "receivers")
@with_options(ObservationOptions, "observation")
def dispatch(
    database: Database = "gpt2flow.sqlite",
    once: Annotated[bool, typer.Option("--once", help="Send what is due, and exit.")] = False,
    interval: Annotated[
        float,
        typer.Option(help="Seconds between looks at an outbox in which nothing is due, from 0.1."),
    ] = 1.0,
    attempts: Annotated[
        int, typer.Option(help="Number of attempts after which a message is dead, 1 to 100.")
    ] = 12,
    revive: Annotated[
        bool,
        typer.Option(
            "--revive",
            help="Make dead messages pending again first; without a receiver, exit then.",
        ),
    ] = False,
    dead: Annotated[
        bool, typer.Option("--dead", help="Print dead messages with their errors, and exit.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, one object per line.")
    ] = False,
    *,
    receivers: ReceiverOptions,
    observation: ObservationOptions,
) -> None:
    """Send the messages of the outbox until SIGTERM or Ctrl-C.

    Messages to e-mail contacts go to the SMTP server, if there is one.
    Everything else goes to the webhook, the file or the console.

    A message that is not taken is tried again for about a day, and then dead.
    """
    with needs_extra("service"):
        from gpt2flow.agent import shop
        from gpt2flow.agent.config import utc_now
        from gpt2flow.agent.delivery.backoff import Backoff
        from gpt2flow.agent.delivery.dispatcher import Dispatcher, DispatchSummary, check_interval
        from gpt2flow.agent.delivery.observation import ObservationSettings
        from gpt2flow.agent.delivery.queue import OutboxQueue
        from gpt2flow.agent.errors import AgentError, InputError
    if dead and revive:
        raise CommandError("--dead and --revive exclude each other", Exit.BAD_INPUT)
    with reported(bad_input=InputError, failure=AgentError), ExitStack() as resources:
        url, backoff = shop.database_url(database), Backoff(attempts)
        check_interval(interval)
        seen = ObservationSettings(observation.metrics_address, observation.otlp_endpoint)
        routes: list[Route] = []
        if receivers.are_given or not (dead or revive):
            routes = receivers.settings(as_json=as_json).routes(utc_now)
        opened = shop.Database.open_existing(url)
        resources.callback(opened.close)
        queue = OutboxQueue(opened, routes, utc_now, backoff)
        if dead:
            _print_dead(queue, as_json)
            return
        revived, summary = queue.revive() if revive else 0, DispatchSummary()
        if routes:
            with _observer(url, seen, observation.log_format) as observer:
                dispatcher = Dispatcher(queue, observer, interval=interval)
                asyncio.run(_run(dispatcher, routes, once))
            summary = dispatcher.summary
        pending, without_transport = queue.count_waiting()
        figures = {"revived": revived, **asdict(summary), "pending": pending}
        if routes:
            figures["pending_without_transport"] = without_transport
        text = ", ".join(f"{number} {name}".replace("_", " ") for name, number in figures.items())
        typer.echo(json.dumps(figures) if as_json else text)


@contextmanager
def _observer(
    url: "URL", settings: "ObservationSettings", log_format: LogFormat
) -> Iterator["DeliveryObserver"]:
    from gpt2flow.agent.delivery.observation import observing
    from gpt2flow.agent.telemetry.log import logging_to_stderr

    with logging_to_stderr(log_format.value), observing(url, settings) as observer:
        yield observer


async def _run(dispatcher: "Dispatcher", routes: "list[Route]", once: bool) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, dispatcher.stop)
    try:
        await dispatcher.run(once=once)
    finally:
        for route in routes:
            await route.transport.close()


def _print_message(message: "OutgoingMessage") -> None:
    from gpt2flow.agent.delivery.message import printable

    recipient = message.contact or (
        message.audience if message.audience == "staff" else message.session
    )
    typer.echo(printable(f"→ {recipient}: {message.text}"))


def _print_json(message: "OutgoingMessage") -> None:
    typer.echo(json.dumps(message.payload(), ensure_ascii=False))


def _print_dead(queue: "OutboxQueue", as_json: bool) -> None:
    for row in queue.dead_letters():
        line = {"key": row.key, "attempts": row.attempts, "error": row.error}
        text = f"{row.key}: {row.attempts} attempts, {row.error}"
        typer.echo(json.dumps(line, ensure_ascii=False) if as_json else text)


def add_commands(group: typer.Typer) -> None:
    """Add the command to the group."""
    group.command()(dispatch)
