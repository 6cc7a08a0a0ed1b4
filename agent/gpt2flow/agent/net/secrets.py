"""Secrets in files, and the form of those that sign webhooks."""

import base64
import binascii
from pathlib import Path

from gpt2flow.agent.errors import InputError

_PREFIX = "whsec_"
# Sizes that the Standard Webhooks specification allows.
_MIN_BYTES, _MAX_BYTES = 24, 64


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
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise InputError(f"{option} {path}: {reason}") from error
    if not secret.strip():
        raise InputError(f"{option} {path}: the file is empty")
    return secret


def parse_webhook_secrets(text: str, source: str) -> list[bytes]:
    """Parse webhook secrets, one a line, blank lines apart.

    Args:
        text: Text of the secrets.
        source: Origin of the text, for the error.

    Returns:
        The secrets as random bytes, at least one.

    Raises:
        InputError: There is none, or one is invalid; the message does not show it.
    """
    lines = enumerate(text.splitlines(), start=1)
    secrets = [
        _parse(line.strip(), f"{source}: line {number}") for number, line in lines if line.strip()
    ]
    if not secrets:
        raise InputError(f"{source}: has no secret; one a line is expected")
    return secrets


def _parse(line: str, source: str) -> bytes:
    try:
        secret = base64.b64decode(line.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not (line.startswith(_PREFIX) and _MIN_BYTES <= len(secret) <= _MAX_BYTES):
        # The value is not shown: it is secret.
        raise InputError(
            f"{source} is no secret, must be {_PREFIX} and the base64 of {_MIN_BYTES} to"
            f" {_MAX_BYTES} bytes"
        )
    return secret
