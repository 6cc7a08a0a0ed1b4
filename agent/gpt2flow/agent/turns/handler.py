"""Handling of a customer message and the events that it raises."""

from collections.abc import Callable
from dataclasses import replace
from typing import ParamSpec, Protocol, TypeVar

from gpt2flow.agent.errors import ModelError, UnanswerableError
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import Choice, PromptState
from gpt2flow.agent.report import CallReport, EventReport, Step, Timer, TurnReport
from gpt2flow.agent.turns.execution import ESCALATE, SMALL_TALK, Event, Executor, Task
from gpt2flow.agent.turns.model import RecordingModel, parse_choice
from gpt2flow.agent.turns.turn import MAX_ACTIONS, run_turn

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


class WorkflowContext(Protocol):
    """Durable execution of steps, timers and retries."""

    def run_step(
        self, function: Callable[_Params, _Result], *args: _Params.args, **kwargs: _Params.kwargs
    ) -> _Result:
        """Run a function as a step; a replay returns its recorded result."""

    def set_timer(self, timer: Timer) -> None:
        """Schedule a case to be marked as due."""

    def retry_event(self, session: str, event: Event, attempt: int) -> None:
        """Schedule the next attempt at an event, after `attempt` of them."""


class TurnHandler:
    """Handler of customer messages and events.

    Everything that is not deterministic runs inside a step of the workflow.
    """

    def __init__(self, book: FlowBook, model: RecordingModel, executor: Executor) -> None:
        self._book = book
        self._model = model
        self._executor = executor

    def handle_message(
        self, workflow: WorkflowContext, key: str, session: str, message_id: str, text: str
    ) -> TurnReport:
        """Handle a normalized message and the events that it raises.

        If the model cannot finish a turn after its first action, a person takes over. While a
        person attends the session, the agent does nothing.

        Args:
            workflow: Workflow that the steps belong to.
            key: Prefix of the idempotency keys of the turn.
            session: Id of the conversation.
            message_id: Id of the message within the session.
            text: Normalized message.

        Raises:
            ModelError: The model failed; the message lists the actions carried out before.
            InputError: The server has no such model, or the model cannot read the message.
            DatabaseError: The database failed.
        """
        state = workflow.run_step(self._executor.begin_turn, key, session, text)
        if state.attended_by is not None:
            return TurnReport(
                session=session,
                message_id=message_id,
                message=text,
                language=state.language,
                attended_by=state.attended_by,
            )
        calls, done = list[CallReport](), list[Step]()

        def execute(position: int | str, choice: Choice) -> Step:
            if (earlier := _find_repeated(done, choice)) is not None:
                return earlier
            task = Task(
                key=f"{key}/{position}",
                session=session,
                message=text,
                choice=choice,
                language=state.language,
                pending_arguments=state.pending_for(choice.action),
                is_first=all(step.report.action in SMALL_TALK for step in done),
                answers=state.answered_slot(choice.action),
                taken=frozenset(step.report.action for step in done),
            )
            step = self._execute(workflow, task)
            done.append(step)
            # Each may change what is legal next, and a question makes the others wait.
            for number in range(MAX_ACTIONS):
                if not done[-1].resumable:
                    break
                wanted = done[-1].resumable[0]
                resumed = replace(
                    task,
                    key=f"{task.key}/{number}",
                    message=wanted.message,
                    choice=Choice(wanted.action, wanted.arguments, wanted.confidence),
                    pending_arguments={},
                    is_first=False,
                    answers=None,
                    resumed=wanted,
                )
                done.append(self._execute(workflow, resumed))
            # The model goes on from its own choice, in the state that all of them left.
            return step.model_copy(update={"facts": done[-1].facts})

        choose = self._chooser(workflow, key, calls)
        try:
            run_turn(self._book, state.prompt_state, text, choose, execute)
        except UnanswerableError:
            if not done or ESCALATE not in self._book.actions:
                raise
            execute(ESCALATE, Choice(ESCALATE))
        except ModelError as error:
            # Events of completed actions are handled even if the message fails.
            for event in _raised_events(done):
                workflow.retry_event(session, event, 0)
            raise _with_completed(error, done) from error
        return TurnReport(
            session=session,
            message_id=message_id,
            message=text,
            language=state.language,
            actions=[step.report for step in done],
            events=[
                self.handle_event(workflow, session, event, 1, calls)
                for event in _raised_events(done)
            ],
            calls=calls,
        )

    def handle_event(
        self,
        workflow: WorkflowContext,
        session: str,
        event: Event,
        attempt: int,
        calls: list[CallReport],
    ) -> EventReport:
        """Handle an event, or compensate the action that raised it.

        A refused action triggers the compensation. A model failure schedules a
        retry, so that no submitted order is left unhandled.

        Args:
            workflow: Workflow that the steps belong to.
            session: Id of the conversation in which the event was raised.
            event: Event to handle.
            attempt: Number of this attempt, from 1.
            calls: List to which the model calls are appended.
        """
        name, key = event.name, f"{event.name}/{event.subject}"
        facts = workflow.run_step(self._executor.event_facts, event)
        done: list[Step] = []

        def execute(position: int, choice: Choice) -> Step:
            del position
            # Keyed by action, not position: a retry starts after the completed actions.
            task = Task(f"{key}/{choice.action}", session, event.subject, choice, event=event)
            done.append(self._execute(workflow, task))
            return done[-1]

        choose = self._chooser(workflow, f"{key}/{attempt}", calls)
        failure = None
        try:
            run_turn(self._book, PromptState(facts), event.subject, choose, execute, event=name)
        except (ModelError, UnanswerableError) as error:
            failure = str(error)
        if done and done[-1].result == "refused":
            done += self._compensate(workflow, session, event, f"{key}/undo")
            failure = None
        elif failure is not None:
            workflow.retry_event(session, event, attempt)
        actions = [step.report for step in done]
        return EventReport(event=name, subject=event.subject, actions=actions, postponed=failure)

    def _compensate(
        self, workflow: WorkflowContext, session: str, event: Event, key: str
    ) -> list[Step]:
        """Undo the action that raised an event, if it has a compensation."""
        for action in self._book.actions.values():
            if action.raises == event.name and action.compensation:
                choice = Choice(action.compensation)
                task = Task(key, session, event.subject, choice, event=event, is_compensation=True)
                return [self._execute(workflow, task)]
        return []

    def _execute(self, workflow: WorkflowContext, task: Task) -> Step:
        step = workflow.run_step(self._executor.execute, task)
        for timer in step.timers:
            workflow.set_timer(timer)
        return step

    def _chooser(
        self, workflow: WorkflowContext, key: str, calls: list[CallReport]
    ) -> Callable[[int, str, str], Choice]:
        """Return a `choose` function that calls the model in a step."""

        def choose(position: int, prompt: str, grammar: str) -> Choice:
            answer = workflow.run_step(self._model.choose, f"{key}/{position}", prompt, grammar)
            calls.append(
                CallReport(
                    milliseconds=answer.milliseconds,
                    prompt_tokens=answer.prompt_tokens,
                    completion_tokens=answer.completion_tokens,
                )
            )
            return parse_choice(answer)

        return choose


def _find_repeated(done: list[Step], choice: Choice) -> Step | None:
    """Return the resumed wish or fallback that a choice repeats."""
    for step in done:
        report = step.report
        repeats = choice.action == report.action and choice.arguments.items() <= report.used.items()
        if repeats and (report.resumed or report.wish is not None):
            return step
    return None


def _raised_events(done: list[Step]) -> list[Event]:
    return [Event(*step.raised) for step in done if step.raised]


def _with_completed(error: ModelError, done: list[Step]) -> ModelError:
    """Return the error with the completed actions in its message."""
    if not done:
        return error
    names = ", ".join(step.report.action for step in done)
    return type(error)(f"{error} (carried out before: {names})")
