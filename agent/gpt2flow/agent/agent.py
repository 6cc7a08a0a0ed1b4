"""The agent as other programs use it."""

import uuid
from collections.abc import Callable
from contextlib import ExitStack
from threading import Lock
from time import perf_counter
from types import TracebackType
from typing import Self

from gpt2flow.agent.config import AgentConfig, Clock, utc_now
from gpt2flow.agent.errors import InputError, MessageIdError
from gpt2flow.agent.flows import load_flows
from gpt2flow.agent.flows.text import normalise
from gpt2flow.agent.operations import new_code
from gpt2flow.agent.report import TurnReport
from gpt2flow.agent.shop import Database, database_url
from gpt2flow.agent.turns.durable import Workflows
from gpt2flow.agent.turns.execution import Executor
from gpt2flow.agent.turns.handler import Handling
from gpt2flow.agent.turns.model import Model, ModelOnRecord, ServedModel

MAX_CHARACTERS = 1000
_MAX_ID_CHARACTERS = 200
# Sessions share locks, so that their number stays bounded.
_LOCKS = 64


class Agent:
    """Handles customers' messages until it is closed; a process has one at a time.

    Opening finishes what an earlier process left undone. Threads may share it.

    Args:
        config: the settings.
        model: answers instead of the configured server.
        clock: tells the time, aware of its zone.
        codes: makes verification codes.

    Raises:
        InputError: a setting or a flow is not valid.
        DatabaseError: the database cannot be opened or written.
    """

    def __init__(
        self,
        config: AgentConfig,
        *,
        model: Model | None = None,
        clock: Clock = utc_now,
        codes: Callable[[], str] = new_code,
    ) -> None:
        book = load_flows(config.flows)
        url = database_url(config.database)
        # Of one session, one message at a time: the next may depend on this one.
        self._locks = [Lock() for _ in range(_LOCKS)]
        with ExitStack() as opened:
            self._database = Database.open(url)
            opened.callback(self._database.close)
            if model is None:
                model = served = ServedModel(
                    config.address, config.model, config.timeout, config.security
                )
                opened.callback(served.close)
            executor = Executor(book, self._database, clock, codes)
            on_record = ModelOnRecord(model, self._database, clock)
            handling = Handling(book, on_record, executor)
            with self._database.guarded():
                self._workflows = Workflows(handling, executor, clock, url)
                opened.callback(self._workflows.close)
                self._workflows.launch()
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        """Return the agent itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the agent."""
        self.close()

    def close(self) -> None:
        """Stop work and closes connections; what is unfinished is taken up at the next start."""
        self._opened.close()

    def handle(self, session: str, text: str, message_id: str | None = None) -> TurnReport:
        """Handle one message of a customer.

        Args:
            session: names the conversation.
            text: the message as it was typed, at most 1,000 characters.
            message_id: names the message within the session. A message sent
                again under its id is not handled again: its report is returned,
                and if it had failed, it goes on where it failed. None is a new one.

        Raises:
            InputError: the message or an id is not usable; nothing was changed.
            ModelError: the model failed.
            DatabaseError: the database failed.
        """
        message = _checked(session, text)
        if message_id is None:
            message_id = uuid.uuid4().hex
        _check_id("message", message_id)
        start = perf_counter()
        with self._locks[hash(session) % _LOCKS], self._database.guarded():
            report = self._workflows.turn(session, message_id, message)
        if report.message != message:
            raise MessageIdError(f"message id {message_id!r} was used for another message")
        elapsed = (perf_counter() - start) * 1000
        return report.model_copy(update={"milliseconds": elapsed})


def _checked(session: str, text: str) -> str:
    """The message in the form that the model reads."""
    _check_id("session", session)
    message = normalise(text) if len(text) <= MAX_CHARACTERS else text
    if not message:
        raise InputError("the message is empty")
    if len(message) > MAX_CHARACTERS:
        raise InputError(
            f"the message has {len(message):,} characters, more than {MAX_CHARACTERS:,}"
        )
    return message


def _check_id(what: str, name: str) -> None:
    if not name.strip() or len(name) > _MAX_ID_CHARACTERS or not name.isprintable():
        raise InputError(
            f"the {what}'s id must be printable, with 1 to {_MAX_ID_CHARACTERS} characters"
        )
