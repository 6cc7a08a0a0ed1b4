"""Errors of work on screens."""

from gpt2flow.agent.errors import AgentError


class ScreenStopped(AgentError):  # noqa: N818 - a stop before harm, which a person looks at
    """Action that stopped because a screen is not as expected.

    Args:
        reason: What was expected and what was found, on one line.
        picture: PNG of the screen, with secrets covered; None if there is none.
    """

    result = "screen_stopped"

    def __init__(self, reason: str, picture: bytes | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.picture = picture


class RecorderError(AgentError):
    """Recording that cannot be made; the message names the element and why."""

    result = "invalid"


class UnexpectedPageError(Exception):
    """Page that is not as the recording says."""


class SlowPageError(Exception):
    """Page that does not come in time."""


class SignedOutError(Exception):
    """Page that is not one of the conversation, or wants a sign-in."""


class OvertakenError(Exception):
    """Press that another process was quicker to prepare."""
