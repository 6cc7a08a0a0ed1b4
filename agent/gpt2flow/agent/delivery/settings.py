"""Settings of the delivery, and the routes that they describe."""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from gpt2flow.agent.config import Clock
from gpt2flow.agent.delivery.local import ConsoleTransport, FileTransport
from gpt2flow.agent.delivery.mail import MailTransport, SmtpServer, SmtpTls, parse_address
from gpt2flow.agent.delivery.message import OutgoingMessage
from gpt2flow.agent.delivery.routing import Route, mail_route, remaining_route
from gpt2flow.agent.delivery.webhook import WebhookTransport
from gpt2flow.agent.errors import InputError

_MAX_PORT = 65_535
# Sizes that the Standard Webhooks specification allows.
_MIN_BYTES, _MAX_BYTES = 24, 64
_PREFIX = "whsec_"


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
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL as error:
            raise InputError(f"--webhook is {text!r}, which is no URL: {error}") from error
        if url.scheme not in {"https", "http"} or not url.host or (url.port or 0) > _MAX_PORT:
            raise InputError(f"--webhook is {text!r}, must be an https URL")
        if url.userinfo:
            raise InputError("--webhook has a user or a password, which a URL must not show")
        is_local = _is_loopback(url.host)
        if url.scheme == "http" and not is_local:
            raise InputError(f"--webhook is {text!r}, must be https except on this machine")
        secrets = parse_webhook_secrets(self.webhook_secret or "")
        return WebhookTransport(url, secrets, clock, direct=is_local)

    def _mail(self, address: str) -> Route:
        host, port = _host_and_port("--smtp", address)
        if self.smtp_user and self.smtp_tls is SmtpTls.NONE and not _is_loopback(host):
            raise InputError(
                "--smtp-tls none would send the password in plain text to another host"
            )
        if self.smtp_user and not self.smtp_password:
            raise InputError("the SMTP password is empty")
        server = SmtpServer(host, port, self.smtp_tls, self.smtp_user, self.smtp_password)
        sender = parse_address("--smtp-from", self.smtp_from or "", display_name=True)
        staff = self.staff_address and parse_address("--staff-address", self.staff_address)
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


def _host_and_port(option: str, text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port or parts.netloc != text or parts.username is not None:
        raise InputError(f"{option} is {text!r}, must be host:port")
    return host, port


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_webhook_secrets(text: str) -> list[bytes]:
    """Parse webhook secrets, one a line.

    Raises:
        InputError: There is none, or one is invalid; the message does not show it.
    """
    secrets = []
    for number, line in enumerate(text.split(), start=1):
        try:
            secret = base64.b64decode(line.removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if not (line.startswith(_PREFIX) and _MIN_BYTES <= len(secret) <= _MAX_BYTES):
            raise InputError(
                f"webhook secret {number} is none, must be {_PREFIX} and the base64 of"
                f" {_MIN_BYTES} to {_MAX_BYTES} bytes"
            )
        secrets.append(secret)
    if not secrets:
        raise InputError("the webhook secret is empty")
    return secrets


def read_secret(option: str, path: Path) -> str:
    """Read a secret from a file, without its last line break.

    Args:
        option: Option that named the file, for the error.
        path: Path of the file.

    Raises:
        InputError: The file cannot be read, or is empty.
    """
    try:
        secret = path.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise InputError(f"{option} {path}: {reason}") from error
    if not secret.strip():
        raise InputError(f"{option} {path}: the file is empty")
    return secret
