"""Public entry point of the agent."""

import uuid
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from threading import Lock
from time import perf_counter
from types import TracebackType
from typing import Self

from gpt2flow.agent.config import AgentConfig, Clock, utc_now
from gpt2flow.agent.errors import InputError, MessageIdError
from gpt2flow.agent.flows import FlowBook, load_flows
from gpt2flow.agent.flows.prompt import normalize
from gpt2flow.agent.hands.port import Hands
from gpt2flow.agent.operations import new_code
from gpt2flow.agent.payments.payer import Payer
from gpt2flow.agent.payments.port import open_payments
from gpt2flow.agent.payments.sweep import PaymentSweep
from gpt2flow.agent.report import TurnReport
from gpt2flow.agent.shop import Database, database_url
from gpt2flow.agent.shop.catalogue import load_catalogue
from gpt2flow.agent.shop.locks import open_session_locks
from gpt2flow.agent.telemetry.spans import open_tracer
from gpt2flow.agent.turns.choices.readings import Readings
from gpt2flow.agent.turns.durable import Workflows
from gpt2flow.agent.turns.execution import Executor
from gpt2flow.agent.turns.handler import TurnHandler
from gpt2flow.agent.turns.model import ChoiceModel, RecordingModel, ServedModel

MAX_CHARACTERS = 1000
_MAX_ID_CHARACTERS = 200
# Sessions share a fixed number of locks, so that memory stays bounded.
_LOCK_COUNT = 64


class Agent:
    """Agent that handles customer messages until it is closed.

    Construction first finishes turns that an earlier process left incomplete.
    Threads may share an agent. A process can have one open agent at a time, and so can an SQLite
    file; on PostgreSQL, several processes share the work.

    Args:
        config: Settings of the agent.
        model: Model to call instead of the configured server.
        clock: Source of the current time; it returns time-zone-aware datetimes.
        codes: Generator of verification codes.

    Raises:
        InputError: A setting or a flow is invalid.
        DatabaseError: The database cannot be opened or written.
    """

    def __init__(
        self,
        config: AgentConfig,
        *,
        model: ChoiceModel | None = None,
        clock: Clock = utc_now,
        codes: Callable[[], str] = new_code,
    ) -> None:
        book = load_flows(config.flows)
        url = database_url(config.database)
        catalogue = load_catalogue(config.catalogue) if config.catalogue else None
        # Messages of a session are serialized: each may depend on the one before.
        self._locks = [Lock() for _ in range(_LOCK_COUNT)]
        with ExitStack() as resources:
            self._tracer = tracer = open_tracer(
                config.otlp_endpoint, "gpt2flow-agent", has_texts=config.trace_messages
            )
            resources.callback(tracer.close)
            self._database = Database.open(url, catalogue)
            resources.callback(self._database.close)
            with self._database.translate_errors():
                locks = open_session_locks(url)
            resources.callback(locks.close)
            if model is None:
                model = served = ServedModel(
                    config.address, config.model, config.timeout, config.security, tracer=tracer
                )
                resources.callback(served.close)
            port = open_payments(config.payments, config.payments_token_file)
            resources.callback(port.close)
            payer = Payer(port, self._database, book.cases, clock, tracer=tracer)
            hands = _open_hands(config, book, self._database, clock)
            if hands is not None:
                resources.callback(hands.close)
            executor = Executor(
                *(book, self._database, clock, codes, config.confirm_below),
                hands=hands,
                tracer=tracer,
            )
            handler = TurnHandler(
                book,
                RecordingModel(model, self._database, clock, tracer=tracer),
                Readings(book, self._database, clock),
                executor,
                payer,
                patience=config.patience,
                tracer=tracer,
            )
            with self._database.translate_errors():
                self._workflows = Workflows(
                    handler, executor, clock, self._database, locks, tracer=tracer
                )
                resources.callback(self._workflows.close)
                self._workflows.launch()
            sweep = PaymentSweep(payer, self._workflows.set_timer, executor.cases.due_timers)
            resources.callback(sweep.stop)
            sweep.start()
            self._resources = resources.pop_all()

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
        """Stop work and close connections; the next start resumes incomplete turns."""
        self._resources.close()

    def handle(
        self, session: str, text: str, message_id: str | None = None, *, trace: str = ""
    ) -> TurnReport:
        """Handle one customer message.

        Args:
            session: Id of the conversation.
            text: Message as typed, at most 1,000 characters.
            message_id: Idempotency key of the message within its session. A
                repeated id returns the report of the first call. If that call
                failed, it resumes at the failed step. None marks a new message.
            trace: W3C `traceparent` of the caller's span, whose child the turn is. One of
                another form is ignored, and empty is the current span of this thread.

        Raises:
            InputError: The message or an id is invalid; nothing was changed.
            ModelError: The model call failed.
            DatabaseError: The database failed.
        """
        message = validate_message(session, text)
        if message_id is None:
            message_id = uuid.uuid4().hex
        _validate_id("message", message_id)
        start = perf_counter()
        caller = self._tracer.resumed(trace) if trace else nullcontext()
        lock = self._locks[hash(session) % _LOCK_COUNT]
        with caller, lock, self._database.translate_errors():
            report = self._workflows.handle_message(session, message_id, message)
        if report.message != message:
            raise MessageIdError(
                f"message id {message_id!r} was already used for another message; use a new id"
            )
        elapsed = (perf_counter() - start) * 1000
        return report.model_copy(update={"milliseconds": elapsed})


def _open_hands(
    config: AgentConfig, book: FlowBook, database: Database, clock: Clock
) -> Hands | None:
    """Return the hands of the settings; None works in the database.

    Raises:
        InputError: A setting or a recording is invalid.
    """
    if config.browser is None:
        return None
    from gpt2flow.agent.hands.browser import BrowserHands  # noqa: PLC0415 - needs playwright

    return BrowserHands(config.browser, book, config.flows, database=database, clock=clock)


def validate_message(session: str, text: str) -> str:
    """Return the message in the normal form that the model reads."""
    _validate_id("session", session)
    # An oversized text is refused without the cost of normalizing it.
    message = normalize(text) if len(text) <= MAX_CHARACTERS else text
    if not message:
        raise InputError("the message is empty")
    if len(message) > MAX_CHARACTERS:
        raise InputError(f"message too long: {len(message):,} characters, limit {MAX_CHARACTERS:,}")
    return message


def _validate_id(kind: str, value: str) -> None:
    if not value.strip() or len(value) > _MAX_ID_CHARACTERS or not value.isprintable():
        raise InputError(f"the {kind} id must be 1 to {_MAX_ID_CHARACTERS} printable characters")
