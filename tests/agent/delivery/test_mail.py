"""E-mail, to a real SMTP server."""

import socket
import ssl
from email.headerregistry import Address
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.certificates import AuthorityFiles
from tests.support.mail_server import PASSWORD, USER, MailServer, mail_server
from tests.support.outbox import outgoing

from gpt2flow.agent.delivery import mail
from gpt2flow.agent.delivery.mail import MailTransport, SmtpServer, SmtpTls, parse_mailbox
from gpt2flow.agent.delivery.message import DeliveryError, OutgoingMessage
from gpt2flow.agent.errors import InputError
from gpt2flow.agent.shop import Audience

pytestmark = pytest.mark.process

SENDER = Address("Shop", addr_spec="shop@example.com")
STAFF = Address(addr_spec="staff@example.com")


def transport(port: int, staff: Address | None = STAFF, **account: Any) -> MailTransport:
    settings = {"tls": SmtpTls.NONE} | account
    return MailTransport(SmtpServer("127.0.0.1", port, **settings), SENDER, staff)


async def refused(sender: MailTransport, message: OutgoingMessage) -> DeliveryError:
    with pytest.raises(DeliveryError) as raised:
        await sender.send(message)
    return raised.value


async def test_a_customer_gets_a_mail(mails: MailServer) -> None:
    text = "Your code is 123456.\n.\nSee you, Zoë"
    await transport(mails.port).send(outgoing("s/1", text=text))
    (found,) = mails.mails
    assert found["From"] == "Shop <shop@example.com>"
    assert found["To"] == "ann@example.com"
    assert found["Subject"] == "Message from the shop"
    assert found["Auto-Submitted"] == "auto-generated"
    assert found["Content-Language"] == "en"
    assert parsedate_to_datetime(found["Date"]) == outgoing().created_at
    assert found.get_content().splitlines() == text.splitlines()
    assert mails.recipients == [["ann@example.com"]]


@pytest.mark.parametrize(
    "fields, subject",
    [
        ({"language": "zh"}, "商店消息"),
        ({"language": "zh", "case_id": 7}, "商店消息 (C-7)"),
        ({"case_id": 7}, "Message from the shop (C-7)"),
        ({"language": "fr"}, "Message from the shop"),
        (
            {"audience": Audience.STAFF, "contact": None, "case_id": 7},
            "Message for the staff (C-7)",
        ),
        ({"audience": Audience.STAFF, "contact": None, "language": "zh"}, "员工消息"),
    ],
)
async def test_the_subject_is_in_the_language_of_the_message(
    mails: MailServer, fields: dict[str, Any], subject: str
) -> None:
    await transport(mails.port).send(outgoing(**fields))
    assert mails.mails[0]["Subject"] == subject


async def test_a_chinese_text_arrives_as_it_was(mails: MailServer) -> None:
    await transport(mails.port).send(outgoing(text="您的验证码是 123456。" * 100, language="zh"))
    assert mails.mails[0].get_content() == "您的验证码是 123456。" * 100 + "\n"
    assert max(map(len, mails.contents[0].splitlines())) < 1000


async def test_staff_get_their_messages_at_their_address(mails: MailServer) -> None:
    staff = outgoing(audience=Audience.STAFF, contact=None)
    await transport(mails.port).send(staff)
    assert mails.recipients == [["staff@example.com"]]
    error = await refused(transport(mails.port, staff=None), staff)
    assert error.is_permanent


async def test_each_attempt_has_the_same_message_id(mails: MailServer) -> None:
    sender = transport(mails.port)
    for key in ("s/1", "s/1", "s/2", "会话/1\r\nBcc: eve@example.com"):
        await sender.send(outgoing(key))
    first, again, second, odd = (each["Message-ID"] for each in mails.mails)
    assert first == again
    assert len({first, second, odd}) == 3
    assert all(each["Message-ID"].endswith("@example.com>") for each in mails.mails)


@pytest.mark.parametrize(
    "contact",
    [
        "ann@example.com\r\nBcc: eve@example.com",
        "ann@example.com\nBcc: eve@example.com",
        "ann@example.com, eve@example.com",
        "ann@example.com>\r\nRCPT TO:<eve@example.com",
        "ann@example.com\x00",
        "ann <ann@example.com>",
        "@example.com",
        "ann@",
        "ann",
        "",
    ],
)
async def test_a_contact_can_inject_no_header_and_no_recipient(
    mails: MailServer, contact: str
) -> None:
    error = await refused(transport(mails.port), outgoing(contact=contact))
    assert error.is_permanent
    assert "\n" not in str(error)
    assert mails.mails == []


async def test_a_text_can_inject_no_header_and_end_no_mail(mails: MailServer) -> None:
    text = "Bcc: eve@example.com\r\n\r\n.\r\nMAIL FROM:<eve@example.com>\r\n"
    await transport(mails.port).send(outgoing(text=text))
    (found,) = mails.mails
    assert "Bcc" not in found
    assert found.get_content().splitlines() == text.splitlines()


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize(
    "code, is_permanent", [(550, True), (554, True), (421, False), (452, False)]
)
async def test_answers_from_500_are_permanent_and_from_400_temporary(
    mails: MailServer, command: str, *, code: int, is_permanent: bool
) -> None:
    mails.refusals[command] = f"{code} because of {command}"
    error = await refused(transport(mails.port), outgoing())
    assert str(error) == f"127.0.0.1 answered {code} because of {command}"
    assert error.is_permanent is is_permanent
    assert mails.mails == []


async def test_a_server_that_is_down_or_silent_is_a_temporary_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mail, "_TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert not (await refused(transport(port), outgoing())).is_permanent
    error = await refused(transport(port), outgoing())
    assert str(error).startswith("127.0.0.1: ")
    assert not error.is_permanent


def contexts(folder: Path) -> tuple[AuthorityFiles, ssl.SSLContext]:
    """Return an authority, and the server side of a certificate of its."""
    files = AuthorityFiles(folder)
    pair = files.pair("mail")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    return files, context


async def test_starttls_encrypts_before_the_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, context = contexts(tmp_path)
    account: dict[str, Any] = {"tls": SmtpTls.STARTTLS, "user": USER, "password": PASSWORD}
    with mail_server(starttls=context) as server:
        error = await refused(transport(server.port, **account), outgoing())
        assert "CERTIFICATE_VERIFY_FAILED" in str(error)
        assert not error.is_permanent
        monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
        await transport(server.port, **account).send(outgoing())
        assert (server.encrypted, server.logins) == ([True], [USER])
        error = await refused(transport(server.port, **account | {"password": "no"}), outgoing())
        # The operator can mend it, so that messages must wait rather than die.
        assert not error.is_permanent
        assert "535" in str(error)
        assert "no" not in str(error).split()


async def test_a_server_without_starttls_gets_nothing(mails: MailServer) -> None:
    error = await refused(transport(mails.port, tls=SmtpTls.STARTTLS), outgoing())
    assert not error.is_permanent
    assert mails.mails == []


async def test_tls_encrypts_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, context = contexts(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    with mail_server(tls=context) as server:
        await transport(server.port, tls=SmtpTls.TLS).send(outgoing())
        assert len(server.mails) == 1


@pytest.mark.parametrize("text", ["", "shop", "a@b.c\nBcc: x@y.z", "a@b.c, d@e.f", "<a@b.c"])
def test_an_address_of_the_settings_is_checked(text: str) -> None:
    with pytest.raises(InputError, match=r"--smtp-from: .* is no e-mail address"):
        parse_mailbox("--smtp-from", text, display_name=True)


@pytest.mark.parametrize("text", ["Zoë's Shop <shop@x.com>", '"商店" <shop@x.com>', "shop@x.com"])
def test_an_address_can_have_a_name(text: str) -> None:
    address = parse_mailbox("--smtp-from", text, display_name=True)
    name = text.partition("<")[0].strip(' "') if "<" in text else ""
    assert (address.display_name, address.addr_spec) == (name, "shop@x.com")
