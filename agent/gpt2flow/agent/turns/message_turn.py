"""Actions of one message: the choices, and what follows from them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from gpt2flow.agent.cases.failures import SCREEN_STOPPED
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.naming import says_no
from gpt2flow.agent.flows.prompt import CONFIRMATION, Arguments, Choice, calm
from gpt2flow.agent.flows.slots import SlotKind
from gpt2flow.agent.report import Step
from gpt2flow.agent.turns.execution import ADD_TO_CART, AFFIRM, DENY, SMALL_TALK, Task
from gpt2flow.agent.turns.mentions import left_out_products, looked_up_products, repeated_step
from gpt2flow.agent.turns.state import TurnState
from gpt2flow.agent.turns.turn import MAX_ACTIONS

# Answers to "did you mean …?" and small talk, which leave it to the model what they mean.
_ANSWERS = (AFFIRM, DENY, *SMALL_TALK)


class AttendedError(Exception):
    """End of a turn whose conversation a person has taken meanwhile.

    Args:
        person: Name of the person, who has got the message.
    """

    def __init__(self, person: str) -> None:
        super().__init__(person)
        self.person = person


class StoppedError(Exception):
    """End of a turn at a screen that is not as expected."""


class MessageTurn:
    """Execution of the choices for one message.

    Args:
        book: Loaded flows.
        run: Function that executes a task.
        state: State at the start of the turn.
        key: Prefix of the idempotency keys.
        session: Id of the conversation.
        message: Normalized message.

    Attributes:
        state: As above.
        key: As above.
        session: As above.
        message: As above.
        done: Steps so far.
        denied: Choice that the agent asked about and the message denies; None without one.
    """

    def __init__(
        self,
        book: FlowBook,
        run: Callable[[Task], Step],
        state: TurnState,
        key: str,
        *,
        session: str,
        message: str,
    ) -> None:
        self.done: list[Step] = []
        self.denied = _denied_choice(state, message)
        self._denied_at: int | str | None = None
        self._book = book
        self._run = run
        self.state = state
        self.key = key
        self.session = session
        self.message = message

    def execute(self, position: int | str, choice: Choice) -> Step:
        """Execute a choice of the model, unless it repeats one.

        What a shopping list has besides comes before anything else, such as the checkout.

        Raises:
            StoppedError: The action stopped at a screen.
        """
        choice = self._as_written(choice)
        if choice.action == AFFIRM:
            self.denied = None  # "No problem, yes" denies nothing.
        if self.denied is not None and choice.action not in _ANSWERS:
            denial = self._deny(position)
            if choice.is_part_of(self.denied):
                self._denied_at = position if self._denied_at is None else self._denied_at
                return denial
        earlier = repeated_step(self._book, self.done, choice, self.message)
        if earlier is not None:
            return earlier
        if choice.action != ADD_TO_CART:
            self.add_left_out()
        return self._carry_out(position, choice)

    def _deny(self, position: int | str) -> Step:
        """Take the no to what the agent asked about."""
        said = [step for step in self.done if step.report.action == DENY]
        step = said[0] if said else self._carry_out(f"{position}/{DENY}", Choice(DENY))
        return step.model_copy(update={"result": "blocked"})

    def _as_written(self, choice: Choice) -> Choice:
        """Return a choice whose texts are written as in the message."""
        read = calm(self.message)
        if read == self.message:
            return choice
        written: Arguments = {
            slot: self.message[at : at + len(str(value))]
            for slot, value in choice.arguments.items()
            if self._book.slots[slot].kind is SlotKind.SPAN and (at := read.find(str(value))) >= 0
        }
        return replace(choice, arguments=choice.arguments | written)

    def follow_denial(self, another: Callable[[], Choice | None]) -> None:
        """Go on with another reading, if only the first was denied.

        Without another reading, a person takes over.

        Args:
            another: Function that returns another reading of the message.

        Raises:
            StoppedError: The action stopped at a screen.
        """
        is_answered = any(step.report.action != DENY for step in self.done)
        if self.denied is None or self._denied_at is None or is_answered:
            return
        choice = another()
        # The key is that of the model's call, by which people find it.
        self._carry_out(
            self._denied_at,
            self.denied if choice is None else self._as_written(choice),
            is_another=choice is not None,
        )

    def add_left_out(self) -> None:
        """Add the products that the message counts and the model left out."""
        self._add(left_out_products(self.done))

    def add_looked_up(self) -> None:
        """Add what the message orders and the model only looked up."""
        self._add(looked_up_products(self.done))

    def _add(self, choices: Sequence[Choice]) -> None:
        for choice in choices:
            self._carry_out(f"rest/{len(self.done)}", choice, is_rest=True)

    def _carry_out(
        self,
        position: int | str,
        choice: Choice,
        *,
        is_rest: bool = False,
        is_another: bool = False,
    ) -> Step:
        task = Task(
            key=f"{self.key}/{position}",
            session=self.session,
            message=self.message,
            choice=choice,
            language=self.state.language,
            # What was denied is no value of another reading.
            pending_arguments={} if is_another else self.state.pending_for(choice.action),
            is_first=all(step.report.action in (DENY, *SMALL_TALK) for step in self.done),
            answers=None if is_another else self.state.answered_slot(choice.action),
            taken=frozenset(step.report.action for step in self.done),
            is_rest=is_rest,
            denied=self.denied,
            turn=self.key,
        )
        step = self._run(task)
        self.done.append(step)
        self._check_stopped()
        self._resume_wishes(task)
        # The model goes on from its own choice, in the state that all of them left.
        return step.model_copy(update={"facts": self.done[-1].facts})

    def _resume_wishes(self, task: Task) -> None:
        """Carry out earlier wishes that have become legal.

        Each may change what is legal next, and a question makes the others wait.
        """
        for number in range(MAX_ACTIONS):
            if not self.done[-1].resumable:
                return
            wanted = self.done[-1].resumable[0]
            resumed = replace(
                task,
                key=f"{task.key}/{number}",
                message=wanted.message,
                choice=Choice(wanted.action, wanted.arguments, wanted.confidence),
                pending_arguments={},
                is_first=False,
                answers=None,
                denied=None,
                resumed=wanted,
            )
            self.done.append(self._run(resumed))
            self._check_stopped()

    def _check_stopped(self) -> None:
        """End the turn after a stop; later actions may rely on it.

        Raises:
            StoppedError: The last step stopped.
        """
        if self.done[-1].report.outcome == SCREEN_STOPPED:
            raise StoppedError


def _denied_choice(state: TurnState, message: str) -> Choice | None:
    awaiting = state.prompt_state.awaiting
    if awaiting is None or awaiting[1] != CONFIRMATION or not says_no(message):
        return None
    return Choice(awaiting[0], state.pending_arguments)
