"""The model as the agent needs it: one answer under one grammar."""

import json
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from gpt2flow.agent.config import Clock
from gpt2flow.agent.errors import InputError, ModelError, UnanswerableError, UnknownModelError
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.shop import Database, ModelCall
from gpt2flow.client import (
    Client,
    ClientError,
    InvalidRequestError,
    Lark,
    NotFoundError,
    Options,
    Sampling,
    Security,
    SettingsError,
)


@dataclass(frozen=True)
class ModelAnswer:
    """What a model wrote, and what that took."""

    text: str
    milliseconds: float
    prompt_tokens: int
    completion_tokens: int
    fingerprint: str


class Model(Protocol):
    """Continues a prompt greedily with text of a grammar."""

    def choose(self, prompt: str, grammar: str) -> ModelAnswer:
        """Return the most likely text that the grammar allows.

        Raises:
            ModelError: the model cannot be asked.
            UnknownModelError: there is no such model.
            UnanswerableError: the prompt is too long for it.
        """


class ServedModel:
    """A model behind a gpt2flow server.

    Args:
        address: the server's `host:port`.
        name: of the model; empty is the server's first.
        timeout: seconds that one answer may take.
        security: TLS and token of the connection.

    Raises:
        InputError: a setting of the connection is not usable.
    """

    def __init__(
        self, address: str, name: str, timeout: float, security: Security = Security()
    ) -> None:
        try:
            self._client = Client(address, timeout=timeout, security=security)
        except SettingsError as error:
            raise InputError(str(error)) from error
        self._name = name

    def choose(self, prompt: str, grammar: str) -> ModelAnswer:
        """Ask the server."""
        options = Options(decoding=Sampling(temperature=0.0), constraint=Lark(grammar))
        start = perf_counter()
        try:
            answer = self._client.generate(prompt, options, model=self._name)
        except NotFoundError as error:
            raise UnknownModelError(str(error)) from error
        except InvalidRequestError as error:
            raise UnanswerableError(f"the model cannot read this: {error}") from error
        except ClientError as error:
            raise ModelError(str(error)) from error
        return ModelAnswer(
            text=answer.text,
            milliseconds=(perf_counter() - start) * 1000,
            prompt_tokens=answer.usage.prompt_tokens,
            completion_tokens=answer.usage.completion_tokens,
            fingerprint=answer.fingerprint,
        )

    def close(self) -> None:
        """End the connection."""
        self._client.close()


def parse_choice(text: str) -> Choice:
    """Read an action.

    Raises:
        UnanswerableError: it is none; an answer may have been cut off.
    """
    try:
        return Choice.parse(text)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UnanswerableError(f"the model's answer is no action: {text!r}") from error


class ModelOnRecord:
    """Asks a model, and writes every question and answer down."""

    def __init__(self, model: Model, database: Database, clock: Clock) -> None:
        self._model = model
        self._database = database
        self._clock = clock

    def choose(self, key: str, prompt: str, grammar: str) -> ModelAnswer:
        """Ask the model; asked again under the same key, the last answer counts."""
        answer = self._model.choose(prompt, grammar)
        with self._database.guarded(), self._database.transaction() as db:
            db.merge(
                ModelCall(
                    key=key,
                    prompt=prompt,
                    constraint=grammar,
                    output=answer.text,
                    milliseconds=answer.milliseconds,
                    prompt_tokens=answer.prompt_tokens,
                    completion_tokens=answer.completion_tokens,
                    fingerprint=answer.fingerprint,
                    created_at=self._clock(),
                )
            )
        return answer
