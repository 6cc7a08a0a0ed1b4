"""Models of the agent that answer from a script, or fail."""

import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from gpt2flow.agent.errors import AgentError, ModelError
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.turns.model import ModelAnswer

Script = dict[str, Sequence[Choice | str]]
_POLL_SECONDS = 0.02


class OneReading:
    """Model whose answer is its only reading of a message."""

    @abstractmethod
    def choose(self, prompt: str, grammar: str, session: str = "") -> ModelAnswer:
        """Return the answer."""

    def readings(self, prompt: str, grammar: str, session: str = "") -> list[ModelAnswer]:
        """Return the answer alone."""
        return [self.choose(prompt, grammar, session)]


class ScriptedModel(OneReading):
    """Model that answers messages and events from a script.

    Args:
        script: Actions of each message, and of each event.
        seconds: Latency of one answer.
        hold: File that stops a turn after its first action for as long as it exists.
        others: Readings of a message besides the answer, whose confidences are probabilities.
    """

    def __init__(
        self,
        script: Script,
        seconds: float = 0.0,
        hold: Path | None = None,
        others: Sequence[Choice] = (),
    ) -> None:
        self.script = script
        self._others = others
        self.seconds = seconds
        self._hold = hold
        self.prompts: list[str] = []
        self.sessions: list[str] = []

    def choose(self, prompt: str, grammar: str, session: str = "") -> ModelAnswer:
        self.prompts.append(prompt)
        self.sessions.append(session)
        time.sleep(self.seconds)
        kind, _, rest = prompt.partition("<|user|>" if "<|user|>" in prompt else "<|event|>")
        message, _, done = rest.partition("<|act|>")
        if "<|event|>" in prompt:
            message = message.split()[0]
        position = done.count("<|result|>")
        while position and self._hold and self._hold.exists():
            time.sleep(_POLL_SECONDS)
        actions = self.script[message]
        choice = actions[position] if position < len(actions) else "done"
        choice = Choice(choice) if isinstance(choice, str) else choice
        del kind, grammar
        return _answer(choice)

    def readings(self, prompt: str, grammar: str, session: str = "") -> list[ModelAnswer]:
        return [self.choose(prompt, grammar, session), *map(_answer, self._others)]


def _answer(choice: Choice) -> ModelAnswer:
    return ModelAnswer(choice.text, 1.0, 20, 8, "scripted", choice.confidence)


class FailingModel(OneReading):
    """Model that fails after a number of answers.

    Args:
        model: Model that gives the answers.
        answers: Number of answers before it fails.
        error: Error of each later call.

    Attributes:
        model: As above.
        answers: Number of answers left.
    """

    def __init__(self, model: ScriptedModel, answers: int, error: AgentError | None = None) -> None:
        self.model = model
        self.answers = answers
        self._error = error or ModelError("no server answers at nowhere:1")

    def choose(self, prompt: str, grammar: str, session: str = "") -> ModelAnswer:
        del session
        if not self.answers:
            raise self._error
        self.answers -= 1
        return self.model.choose(prompt, grammar)
