"""Points at which the endpoint and people's commands are killed."""

from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.orm import Session
from starlette.types import Message as AsgiMessage
from starlette.types import Receive, Scope, Send
from tests.chaos.processes.kill_points import KillPoints, install_in_agent, message_kind

from gpt2flow.agent.cases.decisions import Desk
from gpt2flow.agent.http import routes
from gpt2flow.agent.http.handling import ObservedTurns
from gpt2flow.agent.http.requests import Message
from gpt2flow.agent.http.turn_queue import Answered
from gpt2flow.agent.report import TurnReport
from gpt2flow.cli.commands.agent import cases

_BEFORE, _AFTER = "before the turn", "after the turn"
_ANSWER, _WITHIN, _ANSWERED = "before the answer", "within the answer", "after the answer"
ENDPOINT_PLACES: Final = (_BEFORE, _AFTER, _ANSWER, _WITHIN, _ANSWERED)
"""Places of the points of each message at an endpoint."""


def endpoint_point(kind: str, place: str) -> str:
    """Return the name of a point of an endpoint.

    Args:
        kind: Kind of the message.
        place: One of `ENDPOINT_PLACES`.
    """
    return f"endpoint:{kind}:{place}"


def install_in_endpoint(points: KillPoints) -> None:
    """Put points into the endpoint of this process, and into its agent.

    Those of the endpoint are at both ends of a turn, before the answer to its caller, between the
    headers and the body of the answer, and after it.
    """
    install_in_agent(points)
    _wrap_turns(points)
    _wrap_answers(points)


def _wrap_turns(points: KillPoints) -> None:
    handle = ObservedTurns.handle

    def handling(self: ObservedTurns, message: Message) -> Answered:
        kind = message_kind(message.id)
        points.pass_point(endpoint_point(kind, _BEFORE), message.session)
        answer = handle(self, message)
        points.pass_point(endpoint_point(kind, _AFTER), message.session)
        return answer

    ObservedTurns.handle = handling  # type: ignore[method-assign]


def _wrap_answers(points: KillPoints) -> None:
    """Put points around answers, after the headers of an event stream."""
    respond, write_event = routes._response, routes._event

    def pass_point(answer: Answered, place: str) -> None:
        if isinstance(answer, TurnReport):
            point = endpoint_point(message_kind(answer.message_id), place)
            points.pass_point(point, answer.session)

    def responding(answer: Answered) -> Any:
        response = respond(answer)

        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            async def sending(message: AsgiMessage) -> None:
                await send(message)
                if message["type"] == "http.response.start":
                    pass_point(answer, _WITHIN)

            pass_point(answer, _ANSWER)
            await response(scope, receive, sending)
            pass_point(answer, _ANSWERED)

        return run

    def writing_event(answer: Answered) -> str:
        pass_point(answer, _ANSWER)
        return write_event(answer)

    routes._response = responding
    routes._event = writing_event


def install_in_desk(points: KillPoints, act: str, session: str) -> None:
    """Put points around the decision of a command.

    They are before the decision, at both ends of its commit, and before the end of the process.

    Args:
        points: Points of this process.
        act: What the person does.
        session: Conversation of the case.
    """
    method, report = getattr(Desk, _METHODS.get(act, act)), cases._report
    deciding = False

    def pass_point(place: str) -> None:
        points.pass_point(f"desk:{act}:{place}", session)

    def decide(*arguments: Any, **named: Any) -> Any:
        nonlocal deciding
        pass_point("before the decision")
        deciding = True
        try:
            return method(*arguments, **named)
        finally:
            deciding = False

    def at_commit(place: str) -> None:
        # The case is also read, before the decision and after it.
        if deciding:
            pass_point(place)

    def reporting(*arguments: Any, **named: Any) -> None:
        report(*arguments, **named)
        pass_point("after the report")

    setattr(Desk, _METHODS.get(act, act), decide)
    event.listen(Session, "before_commit", lambda _: at_commit("before the commit"))
    event.listen(Session, "after_commit", lambda _: at_commit("after the commit"))
    cases._report = reporting


# Acts whose command has another name.
_METHODS = {"take": "assign", "return": "assign"}
