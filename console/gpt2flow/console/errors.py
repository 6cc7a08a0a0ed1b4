"""Errors at the start, and refusals that a page shows."""

from gpt2flow.agent.errors import InputError


class ConsoleConfigError(InputError):
    """Setting that is invalid; the message names it."""


class RefusedRequest(Exception):  # noqa: N818 - an answer to a request, and no failure
    """Request that is refused with a page.

    Args:
        status: HTTP status.
        reason: Key of the reason among the words of the console.
        detail: What was wrong, in the terms of the agent; empty if the reason says all.
    """

    def __init__(self, status: int, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} {detail}".strip())
        self.status = status
        self.reason = reason
        self.detail = detail


class SignInRequired(RefusedRequest):
    """Page that only people who are signed in may see."""

    def __init__(self) -> None:
        super().__init__(401, "sign_in_first")


class PageNotFound(RefusedRequest):
    """Page that does not exist."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(404, "not_found", detail)
