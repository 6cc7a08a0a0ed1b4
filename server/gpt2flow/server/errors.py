"""Errors of the server: one base class, and a code per class."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from types import TracebackType

# Most violations that one error names: a request can hold millions of bad fields.
MAX_VIOLATIONS = 64


class ErrorCode(Enum):
    """Kind of an error, in terms that a client can act on."""

    INVALID_REQUEST = "invalid_request"
    MODEL_NOT_FOUND = "model_not_found"
    OVERLOADED = "overloaded"
    TIME_LIMIT = "time_limit"
    LOADING = "loading"
    UNLOADED = "unloaded"
    LOAD_FAILED = "load_failed"
    DRAINING = "draining"
    BROKEN = "broken"
    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission_denied"
    INVALID_CONFIG = "invalid_config"
    INVALID_BUNDLE = "invalid_bundle"
    STARTUP_FAILED = "startup_failed"
    INTERNAL = "internal"


class ServerError(Exception):
    """Base class of every error that the server raises on purpose.

    The message is one line and safe to show to the caller.
    """

    code = ErrorCode.INTERNAL


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """Bad field of a request.

    Attributes:
        field: Path of the field in the message; empty for the message as a whole.
        description: Rule that it violates.
    """

    field: str
    description: str


class InvalidRequestError(ServerError):
    """Error of a request with bad fields.

    Attributes:
        violations: The bad fields, at most `MAX_VIOLATIONS`.
    """

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
    """Collection of violations from several checks.

    As a context around a check, it collects the violations that the check raises.
    """

    def __init__(self) -> None:
        self._found: list[FieldViolation] = []

    def add(self, field: str, description: str) -> None:
        """Add a violation."""
        self._found.append(FieldViolation(field, description))

    def extend(self, found: Iterable[FieldViolation]) -> None:
        """Add several violations."""
        self._found += found

    def raise_if_any(self) -> None:
        """Raise all violations at once.

        Raises:
            InvalidRequestError: There is at least one violation.
        """
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
    """Error of a request for a model that is not loaded."""

    code = ErrorCode.MODEL_NOT_FOUND

    def __init__(self, name: str, loaded: Sequence[str]) -> None:
        super().__init__(f"no model named {name!r}; loaded: {', '.join(loaded) or 'none'}")


class VersionNotFoundError(ServerError):
    """Error of a request for an unknown version of a model."""

    code = ErrorCode.MODEL_NOT_FOUND

    def __init__(self, name: str, version: str, versions: Sequence[str]) -> None:
        super().__init__(
            f"model {name!r} has no version {version[:64]!r}; versions: {', '.join(versions)}"
        )


class LoadingError(ServerError):
    """Refusal while the model is loading; a retry may succeed."""

    code = ErrorCode.LOADING


class UnloadedError(ServerError):
    """Refusal while a model is out of service on request."""

    code = ErrorCode.UNLOADED

    def __init__(self, name: str) -> None:
        super().__init__(f"model {name!r} is unloaded; RepositoryModelLoad brings it back")


class LoadFailedError(ServerError):
    """Failure of a load that a client requested; the present model stays."""

    code = ErrorCode.LOAD_FAILED

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"model {name!r} was not loaded: {reason}")


class OverloadedError(ServerError):
    """Refusal while a queue or quota is full; a retry may succeed.

    The message ends with the delay.

    Attributes:
        retry_after_seconds: Delay after which to retry.
    """

    code = ErrorCode.OVERLOADED

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(f"{message}; retry in {retry_after_seconds:.1f} s")
        self.retry_after_seconds = retry_after_seconds


class TimeLimitError(ServerError):
    """Error of a request that exceeds its time, or is bound to."""

    code = ErrorCode.TIME_LIMIT


class DrainingError(ServerError):
    """Refusal while the server or the model is shutting down."""

    code = ErrorCode.DRAINING


class BrokenModelError(ServerError):
    """Error of a model that an internal error has stopped; reload it."""

    code = ErrorCode.BROKEN

    def __init__(self, name: str) -> None:
        super().__init__(f"model {name!r} has failed and must be loaded again")


class UnauthenticatedError(ServerError):
    """Error of a request with missing or invalid credentials."""

    code = ErrorCode.UNAUTHENTICATED


class PermissionDeniedError(ServerError):
    """Error of a request that its caller is not permitted to make.

    Attributes:
        violations: Fields that exceed the permissions of the caller, if any.
    """

    code = ErrorCode.PERMISSION_DENIED

    def __init__(self, message: str, violations: Sequence[FieldViolation] = ()) -> None:
        super().__init__(message)
        self.violations = tuple(violations)


class ConfigError(ServerError):
    """Error of an unusable setting of the server.

    Attributes:
        field: Name of the setting; None if several contradict each other.
    """

    code = ErrorCode.INVALID_CONFIG

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class BundleError(ServerError):
    """Error of a bundle that is missing, damaged or of another format."""

    code = ErrorCode.INVALID_BUNDLE


class StartupError(ServerError):
    """Error at start with an external cause, such as a used port."""

    code = ErrorCode.STARTUP_FAILED


class EngineError(ServerError):
    """Internal error that ended the request; the log holds its cause."""

    code = ErrorCode.INTERNAL


class GrammarError(ValueError):
    """Error of a grammar that does not compile, or exceeds its limits.

    The message is one line of at most 300 characters.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split())[:300])
