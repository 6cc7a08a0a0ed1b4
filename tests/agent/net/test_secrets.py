"""Secrets in files, and secrets of webhooks."""

import base64
from pathlib import Path

import pytest
from tests.support.webhook_receiver import SECRET

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.net.secrets import parse_webhook_secrets, read_secret


def test_secrets_stand_one_a_line() -> None:
    secrets = [b"a" * 24, b"b" * 64]
    lines = [f"whsec_{base64.b64encode(secret).decode()}" for secret in secrets]
    assert parse_webhook_secrets("\n \n".join(lines) + "\n", "key") == secrets


@pytest.mark.parametrize(
    "line",
    [
        base64.b64encode(b"a" * 24).decode(),
        f"whsec_{base64.b64encode(b'a' * 23).decode()}",
        f"whsec_{base64.b64encode(b'a' * 65).decode()}",
        "whsec_####",
        "whsec_钥匙",
        "whsec_",
    ],
)
def test_a_secret_of_another_form_is_refused_without_showing_it(line: str) -> None:
    with pytest.raises(
        InputError,
        match=r"^key: line 2 is no secret, must be whsec_ and the base64 of 24 to 64 bytes$",
    ) as raised:
        parse_webhook_secrets(f"{SECRET}\n{line}", "key")
    assert line not in str(raised.value).replace("must be whsec_", "")


def test_a_secret_is_read_from_a_file_without_its_line_break(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(" correct horse \r\n", encoding="utf-8")
    assert read_secret("--smtp-password-file", file) == " correct horse "
    for content, reason in ((b"\n", "the file is empty"), (b"\xff", "is not UTF-8")):
        file.write_bytes(content)
        with pytest.raises(InputError, match=f"--smtp-password-file .*: {reason}"):
            read_secret("--smtp-password-file", file)
    with pytest.raises(InputError, match="No such file or directory"):
        read_secret("--smtp-password-file", tmp_path / "nowhere")


def test_a_text_without_a_secret_is_refused() -> None:
    with pytest.raises(InputError, match=r"^key: has no secret; one a line is expected$"):
        parse_webhook_secrets("\n \n", "key")
