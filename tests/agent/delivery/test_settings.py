"""Settings of the delivery."""

from pathlib import Path
from typing import Any

import pytest
from tests.support.outbox import outgoing
from tests.support.webhook_receiver import SECRET, WebhookReceiver

from gpt2flow.agent.config import utc_now
from gpt2flow.agent.delivery.local import ConsoleTransport, FileTransport
from gpt2flow.agent.delivery.mail import MailTransport, SmtpTls
from gpt2flow.agent.delivery.settings import DeliverySettings
from gpt2flow.agent.delivery.webhook import WebhookTransport
from gpt2flow.agent.errors import InputError

WEBHOOK = {"webhook": "https://shop.example/hook", "webhook_secret": SECRET}
SMTP = {"smtp": "mail.example:587", "smtp_from": "shop@example.com"}
LOGIN = {"smtp_user": "shop", "smtp_password": "correct horse"}


@pytest.mark.parametrize(
    "settings, kinds",
    [
        (WEBHOOK, [WebhookTransport]),
        (WEBHOOK | {"webhook": "http://127.0.0.1:8080/hook"}, [WebhookTransport]),
        (WEBHOOK | {"webhook": "http://[::1]:8080"}, [WebhookTransport]),
        (WEBHOOK | {"webhook": "http://localhost"}, [WebhookTransport]),
        (SMTP, [MailTransport]),
        (SMTP | LOGIN | {"smtp_tls": SmtpTls.TLS}, [MailTransport]),
        (SMTP | {"smtp_tls": SmtpTls.NONE}, [MailTransport]),
        (SMTP | LOGIN | {"smtp": "[::1]:25", "smtp_tls": SmtpTls.NONE}, [MailTransport]),
        (
            SMTP | {"staff_address": "staff@example.com"} | WEBHOOK,
            [MailTransport, WebhookTransport],
        ),
        ({"file": Path("messages.jsonl")}, [FileTransport]),
        (SMTP | {"console": print}, [MailTransport, ConsoleTransport]),
    ],
)
def test_settings_give_transports_mails_first(
    settings: dict[str, Any],
    kinds: list[type],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    routes = DeliverySettings(**settings).routes(utc_now)
    assert [type(route.transport) for route in routes] == kinds


@pytest.mark.parametrize(
    "settings, message",
    [
        ({}, "nothing to send with: give --webhook, --smtp, --file or --console"),
        ({"staff_address": "a@b.cd"}, "nothing to send with"),
        (
            WEBHOOK | {"console": print},
            "--webhook takes everything, so that --console gets nothing",
        ),
        (WEBHOOK | {"file": Path("x")}, "--webhook takes everything, so that --file gets nothing"),
        ({"file": Path("x"), "console": print}, "--file takes everything, so that --console gets"),
        ({"webhook": "https://a.example"}, "--webhook needs --webhook-secret-file"),
        (SMTP | {"webhook_secret": SECRET}, "--webhook-secret-file needs --webhook"),
        (WEBHOOK | {"webhook": "http://shop.example"}, "must be https except on this machine"),
        (WEBHOOK | {"webhook": "ftp://shop.example"}, "'ftp://shop.example', must be an https URL"),
        (WEBHOOK | {"webhook": "shop.example"}, "'shop.example', must be an https URL"),
        (WEBHOOK | {"webhook": "https://"}, "'https://', must be an https URL"),
        (WEBHOOK | {"webhook": "https://a.example:99999"}, "Port out of range"),
        (WEBHOOK | {"webhook": "https://a.example/\n"}, "which is no URL"),
        (WEBHOOK | {"webhook": "https://u:p@a.example"}, "a user or a password"),
        (WEBHOOK | {"webhook_secret": "\n"}, "webhook secret: has no secret"),
        (
            WEBHOOK | {"webhook_secret": "hunter2"},
            "webhook secret: line 1 is no secret",
        ),
        ({"smtp": "mail.example:25"}, "--smtp needs --smtp-from"),
        (WEBHOOK | {"smtp_from": "a@b.cd"}, "--smtp-from needs --smtp"),
        (WEBHOOK | {"staff_address": "a@b.cd"}, "--staff-address needs --smtp"),
        (WEBHOOK | {"smtp_tls": SmtpTls.TLS}, "--smtp-tls needs --smtp"),
        (SMTP | {"smtp_user": "shop"}, "--smtp-user needs --smtp-password-file"),
        (SMTP | {"smtp_password": "x"}, "--smtp-password-file needs --smtp-user"),
        (SMTP | LOGIN | {"smtp_password": ""}, "the SMTP password is empty"),
        (SMTP | LOGIN | {"smtp_tls": SmtpTls.NONE}, "the password in plain text"),
        (SMTP | {"smtp": "mail.example"}, "--smtp is 'mail.example', must be host:port"),
        (SMTP | {"smtp": "mail.example:0"}, "must be host:port"),
        (SMTP | {"smtp": "mail.example:smtp"}, "must be host:port"),
        (SMTP | {"smtp": "mail.example:99999"}, "must be host:port"),
        (SMTP | {"smtp": ":25"}, "must be host:port"),
        (SMTP | {"smtp": "u@mail.example:25"}, "must be host:port"),
        (SMTP | {"smtp": "mail.example:25/x"}, "must be host:port"),
        (SMTP | {"smtp_from": "shop"}, "--smtp-from: 'shop' is no e-mail address"),
        (SMTP | {"staff_address": "all"}, "--staff-address: 'all' is no e-mail address"),
        ({"file": Path("nowhere/x")}, "--file nowhere/x: No such file or directory"),
    ],
)
def test_a_setting_that_is_wrong_or_without_effect_is_refused(
    settings: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as raised:
        DeliverySettings(**settings).routes(utc_now)
    assert message in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.process
async def test_a_receiver_on_this_machine_is_reached_without_the_proxy(
    receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    settings = DeliverySettings(webhook=receiver.url, webhook_secret=SECRET)
    (route,) = settings.routes(utc_now)
    await route.transport.send(outgoing())
    await route.transport.close()
    assert receiver.keys == ["k-1"]
