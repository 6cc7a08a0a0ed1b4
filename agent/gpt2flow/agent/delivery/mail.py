"""E-mail over SMTP."""

import hashlib
import re
import ssl
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from enum import StrEnum

import aiosmtplib
from email_validator import EmailNotValidError, validate_email

from gpt2flow.agent.delivery.message import DeliveryError, OutgoingMessage
from gpt2flow.agent.errors import InputError
from gpt2flow.agent.shop import Audience

_TIMEOUT_SECONDS = 10.0
# First answer of SMTP that says "never", after which trying again is useless.
_FIRST_PERMANENT = 500
_NAMED_ADDRESS = re.compile(r"([^<>\x00-\x1f\x7f]+)<([^<>]+)>")
_SUBJECTS = {
    (Audience.CUSTOMER, "en"): "Message from the shop",
    (Audience.CUSTOMER, "zh"): "商店消息",
    (Audience.STAFF, "en"): "Message for the staff",
    (Audience.STAFF, "zh"): "员工消息",
}


class SmtpTls(StrEnum):
    """Encryption of the connection to an SMTP server."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclass(frozen=True)
class SmtpServer:
    """SMTP server and the account on it.

    Attributes:
        user: Name of the account; None logs in to none.
    """

    host: str
    port: int
    tls: SmtpTls = SmtpTls.STARTTLS
    user: str | None = None
    password: str | None = field(default=None, repr=False)


class MailTransport:
    """Sender of messages as e-mails.

    Args:
        server: Server that takes the mails.
        sender: Address that they are from.
        staff: Address of messages to the staff; None if there is none.
    """

    name = "smtp"

    def __init__(self, server: SmtpServer, sender: Address, staff: Address | None = None) -> None:
        self._server = server
        self._sender = sender
        self._staff = staff
        self._tls = None if server.tls is SmtpTls.NONE else ssl.create_default_context()

    async def send(self, message: OutgoingMessage) -> None:
        """Send a message; the server's acceptance is success.

        Raises:
            DeliveryError: The server did not accept it, or could not be reached.
        """
        mail = self._compose(message)
        server = self._server
        try:
            await aiosmtplib.send(
                mail,
                hostname=server.host,
                port=server.port,
                username=server.user,
                password=server.password,
                timeout=_TIMEOUT_SECONDS,
                use_tls=server.tls is SmtpTls.TLS,
                start_tls=server.tls is SmtpTls.STARTTLS,
                tls_context=self._tls,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            refusal = error.recipients[0]
            raise self._refusal(refusal, refusal.code >= _FIRST_PERMANENT) from error
        except (aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPDataError) as error:
            raise self._refusal(error, error.code >= _FIRST_PERMANENT) from error
        except aiosmtplib.SMTPResponseException as error:
            # A refused connection or login is no matter of the message.
            raise self._refusal(error, is_permanent=False) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise DeliveryError(f"{server.host}: {error}") from error

    async def close(self) -> None:
        """Do nothing: each mail has a connection of its own."""

    def _refusal(
        self,
        error: aiosmtplib.SMTPResponseException,
        is_permanent: bool,  # noqa: FBT001
    ) -> DeliveryError:
        reason = f"{self._server.host} answered {error.code} {error.message}"
        return DeliveryError(reason, is_permanent=is_permanent)

    def _compose(self, message: OutgoingMessage) -> EmailMessage:
        mail = EmailMessage()
        mail["From"] = self._sender
        mail["To"] = self._recipient(message)
        mail["Subject"] = _subject(message)
        mail["Date"] = message.created_at
        mail["Message-ID"] = message_id(message.key, self._sender.domain)
        # Keeps holiday replies and other robots from answering.
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.text)
        # Last: setting the text removes all headers about the content.
        mail["Content-Language"] = "zh" if message.language == "zh" else "en"
        return mail

    def _recipient(self, message: OutgoingMessage) -> Address:
        if message.contact is None:
            if message.audience is Audience.STAFF and self._staff is not None:
                return self._staff
            raise DeliveryError("the message has no e-mail address", is_permanent=True)
        try:
            return parse_mailbox("contact", message.contact)
        except InputError as error:
            raise DeliveryError(str(error), is_permanent=True) from error


def _subject(message: OutgoingMessage) -> str:
    subject = _SUBJECTS[message.audience, "zh" if message.language == "zh" else "en"]
    return f"{subject} ({message.case})" if message.case else subject


def message_id(key: str, domain: str) -> str:
    """Return the Message-ID of a message, the same in every attempt."""
    return f"<{hashlib.sha256(key.encode()).hexdigest()[:32]}@{domain}>"


def parse_mailbox(name: str, text: str, *, display_name: bool = False) -> Address:
    """Parse an e-mail address.

    Args:
        name: Name of the field, for the error.
        text: The address.
        display_name: Whether `Shop <shop@example.com>` is allowed too.

    Raises:
        InputError: The text is no address, or more than one.
    """
    # The library takes names in ASCII only.
    named = _NAMED_ADDRESS.fullmatch(text) if display_name else None
    shown, address = (named[1].strip(' "'), named[2]) if named else ("", text)
    try:
        found = validate_email(address, check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError as error:
        raise InputError(f"{name}: {text!r} is no e-mail address: {error}") from error
    return Address(shown, username=found.local_part, domain=found.ascii_domain)
