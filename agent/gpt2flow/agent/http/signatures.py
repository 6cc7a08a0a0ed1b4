"""Signatures of requests, as in Standard Webhooks."""

import threading
from collections.abc import Mapping
from pathlib import Path

import structlog
from standardwebhooks import Webhook, WebhookVerificationError

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.http.requests import RequestError
from gpt2flow.agent.net.secrets import parse_webhook_secrets, read_secret

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
_TIMESTAMP_RULE = "must be the Unix time in seconds, at most 5 minutes from now"


class SignatureVerifier:
    """Verifier of signed requests.

    Several secrets are valid at a time, so that one can replace another without a gap. The file is
    reread when it changes. If it cannot be used then, the former secrets stay valid.

    Args:
        path: File of the secrets, one a line.

    Raises:
        InputError: The file cannot be used.
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
                except InputError as error:
                    log.warning("reload_failed", reason=str(error))
                else:
                    log.info("reloaded", secrets=len(self._secrets))
            return self._secrets


def read_secrets(path: Path) -> list[Webhook]:
    """Read a file of webhook secrets.

    Args:
        path: Path of the file: one secret a line, blank lines apart.

    Raises:
        InputError: The file is unreadable, has no secret, or an invalid one.
    """
    option = "--secret-file"
    secrets = parse_webhook_secrets(read_secret(option, path), f"{option} {path}")
    return [Webhook(secret) for secret in secrets]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
