"""Actions of one message: the choices, and what follows from them."""

from collections.abc import Callable
from dataclasses import replace

from gpt2flow.agent.cases.failures import SCREEN_STOPPED
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.report import Step
from gpt2flow.agent.turns.execution import ADD_TO_CART, SMALL_TALK, Task
from gpt2flow.agent.turns.mentions import left_out_products, repeated_step
from gpt2flow.agent.turns.state import TurnState
from gpt2flow.agent.turns.turn import MAX_ACTIONS


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
        earlier = repeated_step(self._book, self.done, choice, self.message)
        if earlier is not None:
            return earlier
        if choice.action != ADD_TO_CART:
            self.add_left_out()
        return self._carry_out(position, choice)

    def add_left_out(self) -> None:
        """Add the products that the message counts and the model left out."""
        for choice in left_out_products(self.done):
            self._carry_out(f"rest/{len(self.done)}", choice, is_rest=True)

    def _carry_out(self, position: int | str, choice: Choice, *, is_rest: bool = False) -> Step:
        task = Task(
            key=f"{self.key}/{position}",
            session=self.session,
            message=self.message,
            choice=choice,
            language=self.state.language,
            pending_arguments=self.state.pending_for(choice.action),
            is_first=all(step.report.action in SMALL_TALK for step in self.done),
            answers=self.state.answered_slot(choice.action),
            taken=frozenset(step.report.action for step in self.done),
            is_rest=is_rest,
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
