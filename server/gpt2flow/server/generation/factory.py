"""From what a client asks to tasks that the engine can run, or to every reason why not."""

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from gpt2flow.server.engine.sequence import FinishReason, Request
from gpt2flow.server.engine.task import Task
from gpt2flow.server.errors import FieldViolation, GrammarError, InvalidRequestError, Violations
from gpt2flow.server.generation.beam_task import BeamTask
from gpt2flow.server.generation.sampling_task import SamplingTask
from gpt2flow.server.generation.score_task import ScoreTask
from gpt2flow.server.generation.spec import Generation
from gpt2flow.server.grammar.constraint import Constraint
from gpt2flow.server.limits import Limits
from gpt2flow.server.params import (
    BeamSearchParams,
    ConstraintParams,
    GenerationParams,
    StoppingParams,
    at_most,
    check_constraint,
    resolve_max_new_tokens,
    validate,
)
from gpt2flow.server.sampling.processors import Processor, make_processors
from gpt2flow.server.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model continues.

    Attributes:
        field: The prompt's path in the request.
        input: Text, token ids, or None when the request has neither.
    """

    field: str
    input: str | Sequence[int] | None


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a request came and from whom, and by when it must be answered.

    Times are of the engine's clock.
    """

    time: float
    deadline: float | None = None
    caller: str = ""

    def until(self, stopping: StoppingParams) -> float | None:
        """Return when the request must have ended: the earlier of its deadline and its limit."""
        if stopping.time_limit_seconds is None:
            return self.deadline
        end = self.time + stopping.time_limit_seconds
        return end if self.deadline is None else min(end, self.deadline)


@dataclass(frozen=True, slots=True)
class ResolvedPrompt:
    """A prompt that can be continued.

    Attributes:
        prompt: As it was given.
        ids: Its tokens.
        max_new_tokens: How many may follow.
    """

    prompt: Prompt
    ids: list[int]
    max_new_tokens: int


class Grammars(Protocol):
    """What compiles constraints."""

    def check(self, params: ConstraintParams) -> None:
        """Raise GrammarError for what is wrong at first sight."""

    def compile(self, params: ConstraintParams) -> Constraint:
        """Return a constraint at its start, or raises GrammarError."""


class TaskFactory:
    """Makes tasks for one model. Its methods may take long, and may run in any thread."""

    def __init__(
        self,
        *,
        limits: Limits,
        eos_token_id: int,
        tokenizer: Tokenizer,
        grammars: Grammars,
        next_id: Callable[[], int],
        draft_tokens: int = 0,
    ) -> None:
        """Take what is known of the model, and how many tokens are guessed ahead as a rule."""
        self._limits = limits
        self._eos_token_id = eos_token_id
        self._tokenizer = tokenizer
        self._grammars = grammars
        self._next_id = next_id
        self._draft_tokens = draft_tokens

    def resolve(self, prompts: Sequence[Prompt], params: GenerationParams) -> list[ResolvedPrompt]:
        """Return the prompts as tokens, once all is checked that needs no trial of a constraint.

        Raises:
            InvalidRequestError: Names every bad field.
        """
        violations = Violations()
        violations.extend(at_most("prompts", len(prompts), self._limits.requests.prompts))
        violations.raise_if_any()
        if not prompts:
            violations.add("prompts", "must have at least one entry")
        with violations:
            validate(params, self._limits)
        with violations:
            self._check_constraint(params.constraint)
        resolved = []
        for prompt in prompts:
            with violations:
                # A text may have megabytes: most of what is too long shows without its tokens.
                least = self._least_tokens(prompt)
                resolve_max_new_tokens(least, params.stopping, self._limits, at_least=True)
                ids = self._encode(prompt)
                limit = resolve_max_new_tokens(len(ids), params.stopping, self._limits)
                resolved.append(ResolvedPrompt(prompt, ids, limit))
        violations.raise_if_any()
        return resolved

    def generations(
        self,
        prompts: Sequence[ResolvedPrompt],
        params: GenerationParams,
        arrival: Arrival,
        *,
        stream: bool = False,
    ) -> list[Task]:
        """Return a task for each prompt, all with the options that they were resolved with.

        Raises:
            InvalidRequestError: The constraint does not compile.
        """
        constraint = self._compile(params.constraint)
        endings = self._endings(params)
        processors = self._processors(params, endings)
        seed = getattr(params.decoding, "seed", None)
        return [
            self._generation_task(
                Generation(
                    params=params,
                    prompt=each.ids,
                    echo=self._text(each.prompt) if params.output.echo else "",
                    max_new_tokens=each.max_new_tokens,
                    seed=secrets.randbits(63) if seed is None else seed,
                    endings=endings,
                    processors=processors,
                    constraint=constraint and constraint.fork(),
                    tokenizer=self._tokenizer,
                    stream=stream,
                    draft_tokens=self._draft_tokens,
                ),
                arrival,
            )
            for each in prompts
        ]

    def score(
        self,
        prompt: Prompt,
        continuations: Sequence[Prompt],
        arrival: Arrival,
        *,
        priority: int = 0,
    ) -> Task:
        """Return the task that scores continuations of a prompt.

        Raises:
            InvalidRequestError: Names every bad field.
        """
        violations = Violations()
        most = self._limits.requests.continuations
        violations.extend(at_most("continuations", len(continuations), most))
        violations.raise_if_any()
        if not continuations:
            violations.add("continuations", "must have at least one entry")
        least = [self._least_tokens(each) for each in (prompt, *continuations)]
        if max(least) > self._limits.context_length:
            violations.extend(self._too_long(continuations, least, "at least "))
            violations.raise_if_any()
        encoded = []
        for each in (prompt, *continuations):
            with violations:
                encoded.append(self._encode(each))
        violations.raise_if_any()
        violations.extend(self._too_long(continuations, [len(ids) for ids in encoded]))
        violations.raise_if_any()
        ids, *endings = encoded
        return ScoreTask(self._request(ids, 1, priority, arrival), endings)

    def _generation_task(self, generation: Generation, arrival: Arrival) -> Task:
        params = generation.params
        request = self._request(generation.prompt, params.slots_needed, params.priority, arrival)
        request.all_logits = params.output.prompt_logprobs
        request.allow_partial = params.stopping.return_partial_on_time_limit
        request.deadline = arrival.until(params.stopping)
        if isinstance(params.decoding, BeamSearchParams):
            request.lockstep = True
            return BeamTask(request, generation, params.decoding)
        return SamplingTask(request, generation, params.decoding)

    def _request(
        self, prompt: list[int], slots_needed: int, priority: int, arrival: Arrival
    ) -> Request:
        return Request(
            self._next_id(),
            prompt,
            slots_needed,
            arrival=arrival.time,
            caller=arrival.caller,
            priority=priority,
            deadline=arrival.deadline,
        )

    def _too_long(
        self, continuations: Sequence[Prompt], lengths: Sequence[int], about: str = ""
    ) -> Iterator[FieldViolation]:
        """Yield the continuations that the context cannot hold with the prompt, the first."""
        size, *sizes = lengths
        for continuation, own in zip(continuations, sizes, strict=True):
            if size + own > self._limits.context_length:
                yield FieldViolation(
                    continuation.field,
                    f"prompt ({about}{size} tokens) and continuation ({about}{own}) together "
                    f"exceed the model's context of {self._limits.context_length} tokens",
                )

    def _least_tokens(self, prompt: Prompt) -> int:
        given = prompt.input or ()
        return self._tokenizer.least_tokens(given) if isinstance(given, str) else len(given)

    def _encode(self, prompt: Prompt) -> list[int]:
        given = prompt.input or ()
        ids = self._tokenizer.encode(given) if isinstance(given, str) else list(given)
        if not ids:
            raise InvalidRequestError.of(prompt.field, "must have text or token ids, not none")
        if max(ids) >= self._limits.vocabulary_size:
            raise InvalidRequestError.of(
                f"{prompt.field}.tokens.ids",
                f"must be below the vocabulary size of {self._limits.vocabulary_size}",
            )
        return ids

    def _text(self, prompt: Prompt) -> str:
        if isinstance(prompt.input, str):
            return prompt.input
        return self._tokenizer.decode(prompt.input or ())

    def _check_constraint(self, params: ConstraintParams | None) -> None:
        # What is wrong with its size is named by `validate`.
        if params is not None and not any(check_constraint(params, self._limits.requests)):
            with _naming(params):
                self._grammars.check(params)

    def _compile(self, params: ConstraintParams | None) -> Constraint | None:
        if params is None:
            return None
        with _naming(params):
            return self._grammars.compile(params)

    def _endings(self, params: GenerationParams) -> dict[int, FinishReason]:
        endings = dict.fromkeys(params.stopping.stop_token_ids, FinishReason.STOP)
        # The end-of-text token is how a constraint says that the output may end.
        if params.constraint is not None or not params.stopping.ignore_eos:
            endings[self._eos_token_id] = FinishReason.EOS
        return endings

    def _processors(self, params: GenerationParams, endings: Iterable[int]) -> list[Processor]:
        words = getattr(params.decoding, "bad_words", ())
        # A word within a text starts with a space, and is another token then.
        bad_words = [self._tokenizer.encode(text) for word in words for text in (word, f" {word}")]
        return make_processors(
            params.decoding,
            bad_words=bad_words,
            ending_ids=list(endings),
            min_new_tokens=params.stopping.min_new_tokens,
        )


@contextmanager
def _naming(params: ConstraintParams) -> Iterator[None]:
    """Make what is wrong with a grammar what is wrong with a field of the request."""
    try:
        yield
    except GrammarError as error:
        field = f"options.constraint.{params.kind.value}"
        raise InvalidRequestError.of(field, str(error)) from error
