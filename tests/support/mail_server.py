"""SMTP server on 127.0.0.1 whose refusals a test chooses."""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER, PASSWORD = "shop", "correct horse"


class MailServer:
    """Server that keeps the mails that it accepts.

    Attributes:
        mails: Accepted mails.
        recipients: Recipients of each, as the envelope names them.
        refusals: Answers to give instead, by command: RCPT, MAIL or DATA.
        logins: Names of the accounts that logged in.
        encrypted: Whether the connection of each mail was encrypted.
    """

    def __init__(self) -> None:
        self.port = 0
        self.mails: list[EmailMessage] = []
        self.contents: list[bytes] = []
        self.recipients: list[list[str]] = []
        self.refusals: dict[str, str] = {}
        self.logins: list[str] = []
        self.encrypted: list[bool] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def handle_MAIL(  # noqa: N802 - aiosmtpd calls it
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        del server, session
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return self.refusals.get("MAIL", "250 OK")

    async def handle_RCPT(  # noqa: N802 - aiosmtpd calls it
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        del server, session, options
        envelope.rcpt_tos.append(address)
        return self.refusals.get("RCPT", "250 OK")

    async def handle_DATA(  # noqa: N802 - aiosmtpd calls it
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        del server
        if "DATA" in self.refusals:
            return self.refusals["DATA"]
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        self.contents.append(envelope.content)
        self.recipients.append([str(each) for each in envelope.rcpt_tos])
        self.encrypted.append(session.ssl is not None)
        return "250 OK"

    def authenticate(self, *given: Any) -> AuthResult:
        data = given[-1]
        assert isinstance(data, LoginPassword)
        self.logins.append(data.login.decode())
        return AuthResult(success=data.password.decode() == PASSWORD, handled=False)


class _Controller(Controller):
    def _trigger_server(self) -> None:
        assert isinstance(self.server, asyncio.Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]


@contextmanager
def mail_server(
    *, starttls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[MailServer]:
    """Run a server until the block ends.

    Args:
        starttls: Certificate of a server that demands STARTTLS and a login.
        tls: Certificate of a server that is encrypted from the start.
    """
    server = MailServer()
    more: dict[str, Any] = {} if tls is None else {"ssl_context": tls}
    if starttls is not None:
        more |= {
            "tls_context": starttls,
            "require_starttls": True,
            "authenticator": server.authenticate,
            "auth_required": True,
        }
    controller = _Controller(server, hostname="127.0.0.1", port=0, **more)
    controller.start()
    server.port = controller.port
    try:
        yield server
    finally:
        controller.stop()
