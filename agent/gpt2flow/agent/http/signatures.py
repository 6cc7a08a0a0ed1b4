"""Signatures of requests, as in Standard Webhooks."""

import base64
import binascii
import threading
from collections.abc import Mapping
from pathlib import Path

import structlog
from standardwebhooks import Webhook, WebhookVerificationError

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.http.requests import RequestError

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
_PREFIX = "whsec_"
# Bounds of Standard Webhooks for a secret.
_MIN_BYTES, _MAX_BYTES = 24, 64
_TIMESTAMP_RULE = "must be the Unix time in seconds, at most 5 minutes from now"


class SecretFileError(InputError):
    """File of webhook secrets that cannot be used."""


class SignatureVerifier:
    """Verifier of signed requests.

    Several secrets are valid at a time, so that one can replace another without a gap. The file is
    reread when it changes. If it cannot be used then, the former secrets stay valid.

    Args:
        path: File of the secrets, one a line.

    Raises:
        SecretFileError: The file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp = _stamp(path)
        self._secrets = read_secrets(path)

    def verify(self, headers: Mapping[str, str], content: str) -> None:
        """Verify the signature of a request.

        Args:
            headers: Headers of the request, by names in lower case.
            content: Text that was signed.

        Raises:
            RequestError: The signature is missing, wrong, or of another time.
        """
        for name in (ID, TIMESTAMP, SIGNATURE):
            if not headers.get(name):
                raise RequestError(401, name, "the header is missing: requests must be signed")
        given = {name: headers[name] for name in (ID, TIMESTAMP, SIGNATURE)}
        for secret in self._current():
            try:
                secret.verify(content, given, json_parse=False)
            except WebhookVerificationError as error:
                # The other errors of this class are about the time, whatever the secret.
                if "signature found" not in str(error):
                    raise RequestError(401, TIMESTAMP, _TIMESTAMP_RULE) from error
            except ValueError:
                break  # The header has another form, which the library does not check.
            else:
                return
        raise RequestError(401, SIGNATURE, "no secret of this endpoint has made this signature")

    def _current(self) -> list[Webhook]:
        with self._lock:
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self._stamp = stamp
                log = structlog.get_logger().bind(file=str(self._path))
                try:
                    self._secrets = read_secrets(self._path)
                except SecretFileError as error:
                    log.warning("reload_failed", reason=str(error))
                else:
                    log.info("reloaded", secrets=len(self._secrets))
            return self._secrets


def read_secrets(path: Path) -> list[Webhook]:
    """Read a file of webhook secrets.

    Args:
        path: Path of the file: one secret a line, blank lines apart.

    Raises:
        SecretFileError: The file is unreadable, has no secret, or an invalid one.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise SecretFileError(f"--secret-file {path}: {reason}") from error
    secrets = [
        _parse(path, number, line.strip())
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not secrets:
        raise SecretFileError(f"--secret-file {path}: has no secret; one a line is expected")
    return secrets


def _parse(path: Path, number: int, line: str) -> Webhook:
    try:
        secret = base64.b64decode(line.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not _MIN_BYTES <= len(secret) <= _MAX_BYTES:
        # The value is not shown: it is secret.
        raise SecretFileError(
            f"--secret-file {path}: line {number} is no secret, must be {_PREFIX} and the base64 of"
            f" {_MIN_BYTES} to {_MAX_BYTES} bytes"
        )
    return Webhook(secret)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
