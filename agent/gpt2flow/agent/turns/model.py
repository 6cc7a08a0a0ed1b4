"""Model interface of the agent: one grammar-constrained answer per call."""

import json
import math
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from gpt2flow.agent.config import Clock
from gpt2flow.agent.errors import (
    InputError,
    ModelError,
    ModelUnavailableError,
    UnanswerableError,
    UnknownModelError,
)
from gpt2flow.agent.flows.prompt import SPECIAL_TOKENS, Choice
from gpt2flow.agent.shop import Database, ModelCall
from gpt2flow.agent.telemetry.spans import Attributes, Span, Tracer
from gpt2flow.client import (
    BeamSearch,
    Client,
    ClientError,
    DeadlineExceededError,
    InvalidRequestError,
    Lark,
    NotFoundError,
    Options,
    OverloadedError,
    Sampling,
    Security,
    ServerError,
    SettingsError,
    UnavailableError,
)

# Tokens of the prompt's format, which no message can spell.
_CONTROL = re.compile(f"({'|'.join(map(re.escape, SPECIAL_TOKENS))})")
# Characters that special tokens of other vocabularies start with, such as `</s>` and `[SEP]`.
_BRACKET = re.compile(r"[<\[]")
# Beams of a second look at a message.
_READINGS = 5
_TRANSIENT = (UnavailableError, DeadlineExceededError, OverloadedError, ServerError)


@dataclass(frozen=True)
class ModelAnswer:
    """Answer of a model.

    Attributes:
        text: Generated text.
        milliseconds: Latency of the call.
        prompt_tokens: Number of tokens in the prompt.
        completion_tokens: Number of generated tokens.
        fingerprint: Fingerprint of the model that answered.
        confidence: Probability that the model gave the text, from 0 to 1.
    """

    text: str
    milliseconds: float
    prompt_tokens: int
    completion_tokens: int
    fingerprint: str
    confidence: float = 1.0


class ChoiceModel(Protocol):
    """Model that continues a prompt greedily under a grammar."""

    def choose(self, prompt: str, grammar: str, session: str = "") -> ModelAnswer:
        """Return the greedy completion that the grammar allows.

        Args:
            prompt: Prompt to continue.
            grammar: Lark grammar of the answer.
            session: Session whose calls go to the same of several servers; empty is none.

        Raises:
            ModelError: The call failed; `ModelUnavailableError` if a later one may succeed.
            UnknownModelError: The server has no such model.
            UnanswerableError: The prompt is too long for the model.
        """

    def readings(self, prompt: str, grammar: str, session: str = "") -> list[ModelAnswer]:
        """Return the likeliest completions that the grammar allows, best first.

        Arguments and errors are those of `choose`.
        """


class ServedModel:
    """Model behind a gpt2flow server.

    Args:
        address: Address of the server, as `host:port` or `unix:PATH`, or several with commas.
        name: Name of the model; empty selects the server's first.
        timeout: Deadline of one call, in seconds.
        security: TLS and token of the connection.
        tracer: Source of spans, whose context each call carries.

    Raises:
        InputError: A setting of the connection is invalid.
    """

    def __init__(
        self,
        address: str,
        name: str,
        timeout: float,
        security: Security = Security(),
        *,
        tracer: Tracer | None = None,
    ) -> None:
        try:
            self._client = Client(
                address,
                timeout=timeout,
                security=security,
                metadata=None if tracer is None else tracer.metadata,
            )
        except SettingsError as error:
            raise InputError(str(error)) from error
        self._name = name

    def choose(self, prompt: str, grammar: str, session: str = "") -> ModelAnswer:
        """Call the server; see `ChoiceModel.choose`."""
        return self._generate(prompt, grammar, session, Sampling(temperature=0.0))[0]

    def readings(self, prompt: str, grammar: str, session: str = "") -> list[ModelAnswer]:
        """Call the server; see `ChoiceModel.readings`."""
        # Without a length penalty, hypotheses rank by their probability.
        beams = BeamSearch(_READINGS, length_penalty=0.0, num_return_sequences=_READINGS)
        return self._generate(prompt, grammar, session, beams)

    def _generate(
        self, prompt: str, grammar: str, session: str, decoding: Sampling | BeamSearch
    ) -> list[ModelAnswer]:
        start = perf_counter()
        try:
            options = Options(decoding=decoding, constraint=Lark(grammar), logprobs=True)
            given = self._literal(prompt)
            answer = self._client.generate(
                given, options, model=self._name, session=session or None
            )
        except NotFoundError as error:
            raise UnknownModelError(str(error)) from error
        except InvalidRequestError as error:
            raise UnanswerableError(f"the server rejected the prompt: {error}") from error
        except SettingsError as error:
            raise UnanswerableError(f"the prompt cannot be sent: {error}") from error
        except _TRANSIENT as error:
            raise ModelUnavailableError(str(error)) from error
        except ClientError as error:
            raise ModelError(str(error)) from error
        elapsed = (perf_counter() - start) * 1000
        return [
            ModelAnswer(
                text=candidate.text,
                milliseconds=elapsed,
                prompt_tokens=answer.usage.prompt_tokens,
                completion_tokens=answer.usage.completion_tokens,
                fingerprint=answer.fingerprint,
                confidence=math.exp(candidate.cumulative_logprob or 0.0),
            )
            for candidate in answer.candidates
        ]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _literal(self, prompt: str) -> str | list[int]:
        """Return a prompt of which the control tokens alone are special tokens.

        A model may have further ones, which a message could spell. Only a prompt with brackets is
        tokenized part by part: other prompts cost no further calls.
        """
        parts = _CONTROL.split(prompt)
        if not any(map(_BRACKET.search, parts[::2])):
            return prompt
        return [
            token.id
            for i, part in enumerate(parts)
            for token in self._client.tokenize(
                part, literal=i % 2 == 0, add_special_tokens=False, model=self._name
            )
        ]


def parse_choice(answer: ModelAnswer) -> Choice:
    """Parse an action that a model generated.

    Raises:
        UnanswerableError: The text is not an action; the answer may be truncated.
    """
    try:
        return Choice.parse(answer.text, answer.confidence)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UnanswerableError(f"the model's answer is not an action: {answer.text!r}") from error


class RecordingModel:
    """Model wrapper that records every prompt and answer in the database.

    Args:
        model: Model to call.
        database: Shop database.
        clock: Source of the current time.
        tracer: Source of spans, one a call.
    """

    def __init__(
        self,
        model: ChoiceModel,
        database: Database,
        clock: Clock,
        *,
        tracer: Tracer | None = None,
    ) -> None:
        self._model = model
        self._database = database
        self._clock = clock
        self._tracer = tracer or Tracer()

    def choose(
        self, key: str, prompt: str, grammar: str, session: str = "", attempt: int = 1
    ) -> ModelAnswer:
        """Call the model and record the call.

        Args:
            key: Key of the record; a repeated key overwrites it.
            prompt: Prompt to continue.
            grammar: Lark grammar of the answer.
            session: Session that the call belongs to; empty is none.
            attempt: Number of this attempt, from 1.

        Raises:
            ModelError: The call failed.
            UnknownModelError: The server has no such model.
            UnanswerableError: The prompt is too long for the model.
            DatabaseError: The database failed.
        """
        with self._span(key, attempt) as span:
            answer = self._model.choose(prompt, grammar, session)
            _describe(span, answer)
        self._record(key, prompt, grammar, [answer])
        return answer

    def readings(self, key: str, prompt: str, grammar: str, session: str = "") -> list[ModelAnswer]:
        """Ask the model for further readings, and record the call.

        Arguments and errors are those of `choose`. The record has a reading a line.
        """
        with self._span(key, 1) as span:
            answers = self._model.readings(prompt, grammar, session)
            for answer in answers[:1]:
                _describe(span, answer)
        if answers:
            self._record(key, prompt, grammar, answers)
        return answers

    def _span(self, key: str, attempt: int) -> AbstractContextManager[Span]:
        attributes: Attributes = {
            "gpt2flow.key": key,
            "gpt2flow.attempt": attempt,
            "gen_ai.operation.name": "text_completion",
            "gen_ai.provider.name": "gpt2flow",
        }
        return self._tracer.span("model_call", attributes, is_call=True)

    def _record(self, key: str, prompt: str, grammar: str, answers: list[ModelAnswer]) -> None:
        best = answers[0]
        with self._database.translate_errors(), self._database.transaction() as db:
            db.merge(
                ModelCall(
                    key=key,
                    prompt=prompt,
                    constraint=grammar,
                    output="\n".join(answer.text for answer in answers),
                    milliseconds=best.milliseconds,
                    prompt_tokens=best.prompt_tokens,
                    completion_tokens=best.completion_tokens,
                    fingerprint=best.fingerprint,
                    confidence=best.confidence,
                    created_at=self._clock(),
                )
            )


def _describe(span: Span, answer: ModelAnswer) -> None:
    span.set(
        {
            "gen_ai.usage.input_tokens": answer.prompt_tokens,
            "gen_ai.usage.output_tokens": answer.completion_tokens,
            "gpt2flow.confidence": answer.confidence,
        }
    )
