"""Chooser: the choices of one message or event, from the model's answers."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import ParamSpec, Protocol, TypeVar

from gpt2flow.agent.errors import ModelError, ModelUnavailableError, UnanswerableError
from gpt2flow.agent.flows.prompt import DONE, Choice
from gpt2flow.agent.flows.slots import LAST_ORDER
from gpt2flow.agent.report import CallReport
from gpt2flow.agent.turns.choices.readings import Readings
from gpt2flow.agent.turns.execution import AFFIRM, DENY, SMALL_TALK
from gpt2flow.agent.turns.model import ModelAnswer, RecordingModel, parse_choice

# Pauses between calls to a model that does not answer.
_FIRST_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 8.0
_MAX_DOUBLINGS = 10
# Confidence below which the model is asked for further readings.
_REREAD_BELOW = 0.9
# Choices that say nothing of what is wished.
_NO_WISHES = (DONE, AFFIRM, DENY, *SMALL_TALK)
# Confidence that another reading needs after the customer has denied the first one.
_ANOTHER_FROM = 0.15

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


class Steps(Protocol):
    """Durable execution of steps and pauses."""

    def run_step(
        self, function: Callable[_Params, _Result], *args: _Params.args, **kwargs: _Params.kwargs
    ) -> _Result:
        """Run a function as a step; a replay returns its recorded result."""

    def sleep(self, seconds: float) -> None:
        """Pause; a replay does not pause again."""


class Chooser:
    """Source of the choices for one message or event.

    Args:
        workflow: Workflow that the steps belong to.
        model: Model that chooses the actions.
        now: Source of the current time.
        key: Prefix of the idempotency keys of the calls.
        session: Id of the conversation.
        patience: Seconds for which a model that does not answer is called again.

    Attributes:
        calls: Model calls so far.
    """

    def __init__(
        self,
        workflow: Steps,
        model: RecordingModel,
        now: Callable[[], datetime],
        key: str,
        session: str,
        *,
        patience: float = 0.0,
    ) -> None:
        self.calls: list[CallReport] = []
        self._workflow = workflow
        self._model = model
        self._now = now
        self._key = key
        self._session = session
        self._patience = patience
        self._deadline: datetime | None = None

    def choose(self, position: int, prompt: str, grammar: str) -> Choice:
        """Return the model's choice.

        Args:
            position: Position of the action in the turn, from 0.
            prompt: Prompt to continue.
            grammar: Lark grammar of the answer.

        Raises:
            ModelError: The model failed, for longer than the patience.
            UnanswerableError: The model cannot read the prompt.
        """
        answer = self._ask(f"{self._key}/{position}", prompt, grammar)
        self._note(answer)
        return parse_choice(answer)

    def readings(self, position: int, prompt: str, grammar: str) -> list[Choice]:
        """Return further readings of the message with their probabilities, best first.

        There are none if the model fails: the first reading is enough to go on with.
        """
        key = f"{self._key}/{position}/readings"
        try:
            answers = self._workflow.run_step(
                self._model.readings, key, prompt, grammar, self._session
            )
        except (ModelError, UnanswerableError):
            return []
        choices = list[Choice]()
        for answer in answers:
            with suppress(UnanswerableError):  # A reading may be cut short.
                choices.append(parse_choice(answer))
        if answers:
            self._note(answers[0])
        return choices

    def _note(self, answer: ModelAnswer) -> None:
        self.calls.append(
            CallReport(
                milliseconds=answer.milliseconds,
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=answer.completion_tokens,
            )
        )

    def _ask(self, key: str, prompt: str, grammar: str) -> ModelAnswer:
        """Call the model, again for as long as the patience."""
        for attempt in count():
            try:
                return self._workflow.run_step(
                    self._model.choose, key, prompt, grammar, self._session, attempt + 1
                )
            except ModelUnavailableError:
                if not self._patience:
                    raise
                # In a step, so that a replay decides alike.
                now = self._workflow.run_step(self._now)
                self._deadline = self._deadline or now + timedelta(seconds=self._patience)
                # A long patience has more attempts than a float has powers of 2.
                doubled = 2.0 ** min(attempt, _MAX_DOUBLINGS)
                pause = min(_FIRST_PAUSE_SECONDS * doubled, _MAX_PAUSE_SECONDS)
                if now + timedelta(seconds=pause) > self._deadline:
                    raise
                self._workflow.sleep(pause)
        raise AssertionError  # The loop ends with an answer or an error.


class MessageReader:
    """Source of the choices for a message, read again in doubt.

    Args:
        chooser: Source of the model's choices.
        readings: Judge of the readings.
        workflow: Workflow that the steps belong to.
        session: Id of the conversation.
        message: Normalized message.
        denied: Choice that the message denies; None if it denies nothing.
    """

    def __init__(
        self,
        chooser: Chooser,
        readings: Readings,
        workflow: Steps,
        *,
        session: str,
        message: str,
        denied: Choice | None,
    ) -> None:
        self._chooser = chooser
        self._readings = readings
        self._workflow = workflow
        self._session = session
        self._message = message
        self._denied = denied
        self._place: tuple[int, str, str] | None = None

    def choose(self, position: int, prompt: str, grammar: str) -> Choice:
        """Return the likeliest choice; see `Chooser.choose`."""
        choice = self._chooser.choose(position, prompt, grammar)
        if self._denied is not None and choice.is_part_of(self._denied):
            self._place = self._place or (position, prompt, grammar)
            return choice
        is_negated = self._readings.is_negated(choice, self._message)
        if is_negated or choice.confidence < _REREAD_BELOW:
            readings = self._chooser.readings(position, prompt, grammar)
            choice = self._likeliest(position, readings) or choice
        may_follow = not position or self._readings.may_follow(choice, self._message)
        return choice if may_follow else Choice(DONE)

    def another(self) -> Choice | None:
        """Return the likeliest reading that was not denied, if any.

        Its confidence is what the model gave it beside the denied one, so that it is asked about.
        """
        if self._place is None or self._denied is None:
            return None
        denied, choices = self._denied, self._chooser.readings(*self._place)
        corrected = self._workflow.run_step(
            self._readings.corrected, self._session, self._message, denied
        )
        if corrected is not None:
            # What the model reads of that order is likelier than what code puts together.
            about = [each for each in choices if _is_about(each, corrected, denied)]
            choice = self._likeliest(self._place[0], about)
            return replace(choice or corrected, confidence=0.0)
        left = 1.0 - sum(each.confidence for each in choices if each.is_part_of(denied))
        others = [
            replace(each, confidence=each.confidence / left)
            for each in choices
            if left > 0 and each.action not in _NO_WISHES and not _repeats(each, denied)
        ]
        choice = self._likeliest(self._place[0], others)
        if choice is None or choice.confidence < _ANOTHER_FROM:
            return None
        return replace(choice, confidence=choice.confidence * left)

    def _likeliest(self, position: int, choices: Sequence[Choice]) -> Choice | None:
        if not choices:
            return None
        return self._workflow.run_step(
            self._readings.likeliest,
            self._session,
            self._message,
            choices,
            is_first=position == 0,
        )


def _is_about(choice: Choice, corrected: Choice, denied: Choice) -> bool:
    """Return whether a reading is about the corrected order."""
    orders = set(corrected.arguments.values()) - set(denied.arguments.values())
    return bool(orders & set(choice.arguments.values()))


def _repeats(choice: Choice, denied: Choice) -> bool:
    """Return whether a reading has the values that were denied.

    A value that it leaves out may be another one, and the latest order the same one.
    """
    is_same = choice.is_part_of(denied) and denied.is_part_of(choice)
    is_latest = choice.action == denied.action and LAST_ORDER in choice.arguments.values()
    return is_same or is_latest
