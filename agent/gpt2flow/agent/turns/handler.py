"""What one message of a customer sets off: a turn, then the events that it raised."""

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from gpt2flow.agent.errors import ModelError, UnanswerableError
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import Choice, Situation
from gpt2flow.agent.report import CallReport, EventReport, Step, Timer, TurnReport
from gpt2flow.agent.turns.execution import Event, Executor, Task
from gpt2flow.agent.turns.model import ModelOnRecord, parse_choice
from gpt2flow.agent.turns.turn import run_turn

# How a message gets to a person that the model cannot deal with to its end.
_ESCALATE = "escalate"

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


class Durability(Protocol):
    """What makes handling survive a crash."""

    def step(
        self, function: Callable[_Params, _Result], *args: _Params.args, **kwargs: _Params.kwargs
    ) -> _Result:
        """Call a function once; after a crash, returns what it returned before."""

    def set_timer(self, timer: Timer) -> None:
        """Has a case taken up when it is due."""

    def try_again(self, session: str, event: Event, attempt: int) -> None:
        """Has an event handled again, later."""


class Handling:
    """Handles messages and events, step by step.

    All that is not deterministic happens inside steps.
    """

    def __init__(self, book: FlowBook, model: ModelOnRecord, executor: Executor) -> None:
        self._book = book
        self._model = model
        self._executor = executor

    def message(
        self, durably: Durability, key: str, session: str, message_id: str, text: str
    ) -> TurnReport:
        """Handle a normalised message.

        Where the model cannot go on with a message that it has begun to deal
        with, a person takes over.

        Raises:
            ModelError: the model failed; the text says what was done before.
            InputError: the server has no such model, or cannot read the message.
            DatabaseError: the database failed.
        """
        opening = durably.step(self._executor.opening, session, text)
        calls, done = list[CallReport](), list[Step]()

        def execute(position: int | str, choice: Choice) -> Step:
            task = Task(
                key=f"{key}/{position}",
                session=session,
                message=text,
                choice=choice,
                language=opening.language,
                kept=opening.kept_for(choice.action),
                opens=position == 0,
            )
            done.append(self._execute(durably, task))
            return done[-1]

        choose = self._chooser(durably, key, calls)
        try:
            run_turn(self._book, opening.situation, text, choose, execute)
        except UnanswerableError:
            if not done or _ESCALATE not in self._book.actions:
                raise
            execute(_ESCALATE, Choice(_ESCALATE))
        except ModelError as error:
            # What was begun must be finished, whatever becomes of the message.
            for event in _raised(done):
                durably.try_again(session, event, 0)
            raise _after(error, done) from error
        return TurnReport(
            session=session,
            message_id=message_id,
            message=text,
            language=opening.language,
            actions=[step.report for step in done],
            events=[self.event(durably, session, event, 1, calls) for event in _raised(done)],
            calls=calls,
        )

    def event(
        self,
        durably: Durability,
        session: str,
        event: Event,
        attempt: int,
        calls: list[CallReport],
    ) -> EventReport:
        """Handle an event; one that cannot be dealt with is undone.

        If the model fails, the event is tried again later: the order that it
        is about must not be forgotten.
        """
        name, key = event.name, f"{event.name}/{event.subject}"
        facts = durably.step(self._executor.event_facts, event)
        done: list[Step] = []

        def execute(position: int, choice: Choice) -> Step:
            del position
            # By name: a second attempt begins where the first one ended.
            task = Task(f"{key}/{choice.action}", session, event.subject, choice, event=event)
            done.append(self._execute(durably, task))
            return done[-1]

        choose = self._chooser(durably, f"{key}/{attempt}", calls)
        failure = None
        try:
            run_turn(self._book, Situation(facts), event.subject, choose, execute, event=name)
        except (ModelError, UnanswerableError) as error:
            failure = str(error)
        if done and done[-1].result == "refused":
            done += self._undo(durably, session, event, f"{key}/undo")
            failure = None
        elif failure is not None:
            durably.try_again(session, event, attempt)
        actions = [step.report for step in done]
        return EventReport(event=name, subject=event.subject, actions=actions, postponed=failure)

    def _undo(self, durably: Durability, session: str, event: Event, key: str) -> list[Step]:
        """Undoe the action that raised an event, if its flow says how."""
        for action in self._book.actions.values():
            if action.raises == event.name and action.compensation:
                undo = Choice(action.compensation)
                task = Task(key, session, event.subject, undo, event=event, undoes=True)
                return [self._execute(durably, task)]
        return []

    def _execute(self, durably: Durability, task: Task) -> Step:
        step = durably.step(self._executor.execute, task)
        for timer in step.timers:
            durably.set_timer(timer)
        return step

    def _chooser(
        self, durably: Durability, key: str, calls: list[CallReport]
    ) -> Callable[[int, str, str], Choice]:
        def choose(position: int, prompt: str, grammar: str) -> Choice:
            answer = durably.step(self._model.choose, f"{key}/{position}", prompt, grammar)
            calls.append(
                CallReport(
                    milliseconds=answer.milliseconds,
                    prompt_tokens=answer.prompt_tokens,
                    completion_tokens=answer.completion_tokens,
                )
            )
            return parse_choice(answer.text)

        return choose


def _raised(done: list[Step]) -> list[Event]:
    return [Event(*step.raised) for step in done if step.raised]


def _after(error: ModelError, done: list[Step]) -> ModelError:
    """The same error, saying what had been carried out before it."""
    if not done:
        return error
    names = ", ".join(step.report.action for step in done)
    return type(error)(f"{error} (carried out before: {names})")
