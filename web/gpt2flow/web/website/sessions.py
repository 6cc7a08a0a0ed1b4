"""Sessions of people who are signed in, in signed cookies."""

import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from itsdangerous import BadSignature, URLSafeTimedSerializer

_KEY_BYTES: Final = 32
_ID_BYTES: Final = 16
# Most forms of a session whose submission is noted.
_MAX_SUBMITTED: Final = 200
# Most sessions whose sign-out is noted; the oldest of them have expired long before.
_MAX_SIGNED_OUT: Final = 100_000


class FormTokens:
    """Tokens that forms carry against cross-site requests, of one process.

    Args:
        key: Key of the process; None makes one.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(_KEY_BYTES)

    def token(self, session_id: str) -> str:
        """Return the token of a session's forms."""
        return hmac.new(self._key, f"form {session_id}".encode(), hashlib.sha256).hexdigest()

    def check(self, session_id: str, token: str) -> bool:
        """Return whether a form is of this session."""
        return hmac.compare_digest(self.token(session_id).encode(), token.encode())


@dataclass(frozen=True)
class Session:
    """Session of a person.

    Attributes:
        id: Random id.
        name: Name of the person in the file of tokens.
        digest: Digest of the token with which the person signed in.
    """

    id: str
    name: str
    digest: str


class Sessions:
    """Sessions of one process; all end with it.

    Threads do not share an instance: it belongs to the event loop.

    Args:
        seconds: Time after which a session ends.

    Attributes:
        forms: Tokens of the sessions' forms.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        key = secrets.token_bytes(_KEY_BYTES)
        self.forms = FormTokens(key)
        self._serializer = URLSafeTimedSerializer(
            key, salt="session", signer_kwargs={"digest_method": hashlib.sha256}
        )
        self._signed_out: OrderedDict[str, None] = OrderedDict()
        self._submitted: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()

    def open(self, name: str, digest: str) -> tuple[Session, str]:
        """Open a session.

        Args:
            name: Name of the person.
            digest: Digest of the person's token.

        Returns:
            The session, and the value of its cookie.
        """
        session = Session(secrets.token_urlsafe(_ID_BYTES), name, digest)
        value = self._serializer.dumps([session.id, name, digest])
        return session, str(value)

    def resume(self, cookie: str) -> Session | None:
        """Return the session of a cookie; None if it is not valid."""
        try:
            content: Any = self._serializer.loads(cookie, max_age=int(self._seconds))
        except BadSignature:
            return None
        session = Session(*content)
        return None if session.id in self._signed_out else session

    def close(self, session: Session) -> None:
        """Close a session; its cookie is worthless then."""
        self._signed_out[session.id] = None
        self._submitted.pop(session.id, None)
        if len(self._signed_out) > _MAX_SIGNED_OUT:
            self._signed_out.popitem(last=False)

    def submit_once(self, session: Session, form: str) -> bool:
        """Note the submission of a form; return whether it is the first.

        Args:
            session: Session of the person.
            form: Random id of the form as it was shown.
        """
        noted = self._submitted.setdefault(session.id, OrderedDict())
        if form in noted:
            return False
        noted[form] = None
        if len(noted) > _MAX_SUBMITTED:
            noted.popitem(last=False)
        if len(self._submitted) > _MAX_SIGNED_OUT:
            self._submitted.popitem(last=False)
        return True
