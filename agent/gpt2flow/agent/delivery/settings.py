"""Settings of the delivery, and the routes that they describe."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

from gpt2flow.agent.config import Clock
from gpt2flow.agent.delivery.local import ConsoleTransport, FileTransport
from gpt2flow.agent.delivery.mail import MailTransport, SmtpServer, SmtpTls, parse_mailbox
from gpt2flow.agent.delivery.message import OutgoingMessage
from gpt2flow.agent.delivery.routing import Route, mail_route, remaining_route
from gpt2flow.agent.delivery.webhook import WebhookTransport
from gpt2flow.agent.errors import InputError
from gpt2flow.agent.net.addresses import parse_address, parse_url
from gpt2flow.agent.net.secrets import parse_webhook_secrets
from gpt2flow.web.addresses import is_loopback


@dataclass(frozen=True)
class DeliverySettings:
    """Where messages go; at least one of webhook, SMTP, file and console.

    Attributes:
        webhook: URL that gets the messages.
        webhook_secret: Secrets to sign with, one a line.
        smtp: SMTP server as `host:port`.
        smtp_from: Address that mails are from.
        smtp_user: Account on the server.
        smtp_password: Its password.
        staff_address: Address of messages to the staff.
        file: File of JSON lines to append messages to.
        console: Function that prints a message.
    """

    webhook: str | None = None
    webhook_secret: str | None = field(default=None, repr=False)
    smtp: str | None = None
    smtp_from: str | None = None
    smtp_user: str | None = None
    smtp_password: str | None = field(default=None, repr=False)
    smtp_tls: SmtpTls = SmtpTls.STARTTLS
    staff_address: str | None = None
    file: Path | None = None
    console: Callable[[OutgoingMessage], None] | None = None

    def routes(self, clock: Clock) -> list[Route]:
        """Return the transports, and what each takes.

        E-mail contacts go by SMTP if there is a server. Everything else goes to the webhook, the
        file or the console.

        Raises:
            InputError: A setting is invalid, missing, or without effect.
        """
        self._check_combination()
        routes = [] if self.smtp is None else [self._mail(self.smtp)]
        if self.webhook is not None:
            routes.append(remaining_route(self._webhook(self.webhook, clock)))
        if self.file is not None:
            routes.append(remaining_route(FileTransport(self.file)))
        if self.console is not None:
            routes.append(remaining_route(ConsoleTransport(self.console)))
        return routes

    def _check_combination(self) -> None:
        given = {each.name for each in fields(self) if getattr(self, each.name) is not None}
        others = sorted(given & {"webhook", "file", "console"}, reverse=True)
        if not others and "smtp" not in given:
            raise InputError("nothing to send with: give --webhook, --smtp, --file or --console")
        if len(others) > 1:
            raise InputError(
                f"--{others[0]} takes everything, so that --{others[1]} gets nothing; give one"
            )
        for name, needed in _NEEDS.items():
            if name in given and needed not in given:
                raise InputError(f"{_option(name)} needs {_option(needed)}")
        if self.smtp_tls is not SmtpTls.STARTTLS and "smtp" not in given:
            raise InputError("--smtp-tls needs --smtp")

    def _webhook(self, text: str, clock: Clock) -> WebhookTransport:
        url = parse_url(text, "--webhook")
        secrets = parse_webhook_secrets(self.webhook_secret or "", "webhook secret")
        return WebhookTransport(url, secrets, clock, direct=is_loopback(url.host))

    def _mail(self, address: str) -> Route:
        host, port = parse_address(address, "--smtp", lowest_port=1)
        if self.smtp_user and self.smtp_tls is SmtpTls.NONE and not is_loopback(host):
            raise InputError(
                "--smtp-tls none would send the password in plain text to another host"
            )
        if self.smtp_user and not self.smtp_password:
            raise InputError("the SMTP password is empty")
        server = SmtpServer(host, port, self.smtp_tls, self.smtp_user, self.smtp_password)
        sender = parse_mailbox("--smtp-from", self.smtp_from or "", display_name=True)
        staff = self.staff_address and parse_mailbox("--staff-address", self.staff_address)
        transport = MailTransport(server, sender, staff or None)
        return mail_route(transport, has_staff_address=bool(staff))


# Settings that need another one.
_NEEDS = {
    "webhook": "webhook_secret",
    "webhook_secret": "webhook",
    "smtp": "smtp_from",
    "smtp_from": "smtp",
    "smtp_user": "smtp_password",
    "smtp_password": "smtp_user",
    "staff_address": "smtp",
}
_FROM_FILES = {"webhook_secret", "smtp_password"}


def _option(name: str) -> str:
    """Return the option of a setting."""
    return f"--{name.replace('_', '-')}" + ("-file" if name in _FROM_FILES else "")
