"""The errors of the server: one base class, a code each. Knows no gRPC."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from types import TracebackType

# So many bad fields are named at once. A request can hold millions.
MAX_VIOLATIONS = 64


class ErrorCode(Enum):
    """What went wrong, in terms a client can act on."""

    INVALID_REQUEST = "invalid_request"
    MODEL_NOT_FOUND = "model_not_found"
    OVERLOADED = "overloaded"
    TIME_LIMIT = "time_limit"
    LOADING = "loading"
    DRAINING = "draining"
    BROKEN = "broken"
    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission_denied"
    INVALID_CONFIG = "invalid_config"
    INVALID_BUNDLE = "invalid_bundle"
    STARTUP_FAILED = "startup_failed"
    INTERNAL = "internal"


class ServerError(Exception):
    """Base of every error that the server raises on purpose.

    The message is one line and safe to show to the caller.
    """

    code = ErrorCode.INTERNAL


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One bad field of a request: its path as in the message, and why."""

    field: str
    description: str


class InvalidRequestError(ServerError):
    """The request has bad fields; `violations` names them, at most `MAX_VIOLATIONS`."""

    code = ErrorCode.INVALID_REQUEST

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        self.violations = tuple(violations[:MAX_VIOLATIONS])
        super().__init__(
            "; ".join(
                f"{v.field}: {v.description}" if v.field else v.description for v in self.violations
            )
        )

    @classmethod
    def of(cls, field: str, description: str) -> "InvalidRequestError":
        """Return the error of a single bad field."""
        return cls([FieldViolation(field, description)])


class Violations:
    """Collects what several checks find, so that the bad fields are named at once.

    Used as a context around each check, and asked at the end.
    """

    def __init__(self) -> None:
        self._found: list[FieldViolation] = []

    def add(self, field: str, description: str) -> None:
        """Note a bad field."""
        self._found.append(FieldViolation(field, description))

    def extend(self, found: Iterable[FieldViolation]) -> None:
        """Note bad fields."""
        self._found += found

    def raise_if_any(self) -> None:
        """Raise InvalidRequestError when anything was found."""
        if self._found:
            raise InvalidRequestError(self._found)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if isinstance(error, InvalidRequestError):
            self._found += error.violations
            return True
        return False


class ModelNotFoundError(ServerError):
    """No model of this name is loaded."""

    code = ErrorCode.MODEL_NOT_FOUND

    def __init__(self, name: str, loaded: Sequence[str]) -> None:
        super().__init__(f"no model named {name!r}; loaded: {', '.join(loaded) or 'none'}")


class LoadingError(ServerError):
    """The model is not loaded yet; the same request may succeed later."""

    code = ErrorCode.LOADING


class OverloadedError(ServerError):
    """The queue is full; the same request may succeed later."""

    code = ErrorCode.OVERLOADED

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class TimeLimitError(ServerError):
    """The request's deadline or time limit passed before it ended."""

    code = ErrorCode.TIME_LIMIT


class DrainingError(ServerError):
    """The server ends and admits nothing new."""

    code = ErrorCode.DRAINING


class BrokenModelError(ServerError):
    """A defect has stopped the model; it serves again once it is loaded again."""

    code = ErrorCode.BROKEN

    def __init__(self, name: str) -> None:
        super().__init__(f"model {name!r} has failed and must be loaded again")


class UnauthenticatedError(ServerError):
    """The request does not say who sends it, or says so wrongly."""

    code = ErrorCode.UNAUTHENTICATED


class PermissionDeniedError(ServerError):
    """Who sends the request is known, and may not do this; `violations` names what fields ask."""

    code = ErrorCode.PERMISSION_DENIED

    def __init__(self, message: str, violations: Sequence[FieldViolation] = ()) -> None:
        super().__init__(message)
        self.violations = tuple(violations)


class ConfigError(ServerError):
    """A setting of the server is unusable; `field` names it where it is a single one."""

    code = ErrorCode.INVALID_CONFIG

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class BundleError(ServerError):
    """A bundle is missing, damaged or of another format."""

    code = ErrorCode.INVALID_BUNDLE


class StartupError(ServerError):
    """The server cannot start, for a reason outside of it."""

    code = ErrorCode.STARTUP_FAILED


class EngineError(ServerError):
    """A defect ended the request; the cause stands in the log."""

    code = ErrorCode.INTERNAL


class GrammarError(ValueError):
    """A grammar does not compile, or grew too complex while it ran; says why in one line."""
