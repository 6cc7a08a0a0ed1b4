"""Factory that validates requests and makes tasks of them."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from gpt2flow.server.engine.sequence import FinishReason, Request
from gpt2flow.server.engine.task import Task
from gpt2flow.server.errors import FieldViolation, GrammarError, InvalidRequestError, Violations
from gpt2flow.server.generation.beam_task import BeamTask
from gpt2flow.server.generation.prompts import Prompt, PromptEncoder
from gpt2flow.server.generation.sampling_task import SamplingTask
from gpt2flow.server.generation.score_task import PromptTask, ScoreTask
from gpt2flow.server.generation.spec import Generation
from gpt2flow.server.grammar.constraint import Constraint
from gpt2flow.server.grammar.trie import TokenTrie, TrieConstraint
from gpt2flow.server.limits import Limits
from gpt2flow.server.params import (
    BeamSearchParams,
    ConstraintParams,
    GenerationParams,
    StoppingParams,
    at_most,
    check_constraint,
    prompt_room,
    resolve_max_new_tokens,
    validate,
)
from gpt2flow.server.sampling.processors import Processor, make_processors
from gpt2flow.server.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Arrival:
    """Arrival of a request; times are in seconds of the engine's clock.

    Attributes:
        time: Time of arrival.
        deadline: Deadline of the RPC; None is no limit.
        caller: Name of the caller.
    """

    time: float
    deadline: float | None = None
    caller: str = ""

    def until(self, stopping: StoppingParams) -> float | None:
        """Return the earlier of the deadline and the time limit; None without."""
        if stopping.time_limit_seconds is None:
            return self.deadline
        end = self.time + stopping.time_limit_seconds
        return end if self.deadline is None else min(end, self.deadline)


@dataclass(frozen=True, slots=True)
class ResolvedPrompt:
    """Prompt as tokens that fit the context.

    Attributes:
        prompt: Prompt as requested.
        ids: Token ids.
        max_new_tokens: Most tokens that may follow.
        truncated_tokens: Number of tokens that were left out.
    """

    prompt: Prompt
    ids: list[int]
    max_new_tokens: int
    truncated_tokens: int = 0


class ConstraintCompiler(Protocol):
    """Compiler of constraints."""

    def check(self, params: ConstraintParams) -> None:
        """Check a constraint as far as that takes no compilation.

        Raises:
            GrammarError: The source is invalid.
        """

    def compile(self, params: ConstraintParams) -> Constraint:
        """Return a constraint at its start.

        Raises:
            GrammarError: The source is invalid.
        """


class TaskFactory:
    """Factory of tasks for one model; its methods are for any thread."""

    def __init__(
        self,
        *,
        limits: Limits,
        eos_token_ids: Sequence[int],
        tokenizer: Tokenizer,
        grammars: ConstraintCompiler,
        next_id: Callable[[], int],
        choices: Mapping[str, TokenTrie] | None = None,
        bos_token_id: int | None = None,
        draft_tokens: int = 0,
    ) -> None:
        """Take the parts of the model.

        Args:
            limits: Limits of its requests.
            eos_token_ids: Ids of the end-of-text tokens; may be none.
            tokenizer: Tokenizer of the model.
            grammars: Compiler of its constraints.
            next_id: Source of request ids.
            choices: Stored lists of choices, by name.
            bos_token_id: Token that an empty prompt becomes; None refuses it.
            draft_tokens: Usual number of tokens of a draft; 0 disables speculative decoding.
        """
        self._limits = limits
        self._eos_token_ids = eos_token_ids
        self._tokenizer = tokenizer
        self._prompts = PromptEncoder(tokenizer, limits, bos_token_id)
        self._grammars = grammars
        self._next_id = next_id
        self._choices = choices or {}
        self._draft_tokens = draft_tokens

    def resolve(
        self,
        prompts: Sequence[Prompt],
        params: GenerationParams,
        check: Callable[[], None] = lambda: None,
    ) -> list[ResolvedPrompt]:
        """Validate a request without compiling its constraint; tokenize its prompts.

        Args:
            prompts: At least one.
            params: Options of all of them.
            check: Called between prompts; it raises if no one waits for the result.

        Raises:
            InvalidRequestError: Fields are bad; it names all of them.
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
            check()
            with violations:
                resolved.append(self._resolve(prompt, params))
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
        """Return a task for each prompt, resolved with the same options.

        Raises:
            InvalidRequestError: The constraint does not compile.
        """
        constraint = self._compile(params)
        endings = self._endings(params)
        processors = self._processors(params, endings)
        seed = getattr(params.decoding, "seed", None)
        return [
            self._generation_task(
                Generation(
                    params=params,
                    prompt=each.ids,
                    echo=self._echo(each, params) if params.output.echo else "",
                    max_new_tokens=each.max_new_tokens,
                    seed=secrets.randbits(63) if seed is None else seed,
                    endings=endings,
                    processors=processors,
                    constraint=constraint and constraint.fork(),
                    tokenizer=self._tokenizer,
                    stream=stream,
                    draft_tokens=self._draft_tokens,
                    truncated_tokens=each.truncated_tokens,
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
        check: Callable[[], None] = lambda: None,
    ) -> Task:
        """Return a task that scores continuations of a prompt.

        Args:
            prompt: The prompt.
            continuations: At least one.
            arrival: Time, caller and deadline.
            priority: Priority of the request.
            check: Called between texts; it raises if no one waits for the result.

        Raises:
            InvalidRequestError: Fields are bad; it names all of them.
        """
        violations = Violations()
        most = self._limits.requests.continuations
        violations.extend(at_most("continuations", len(continuations), most))
        violations.raise_if_any()
        if not continuations:
            violations.add("continuations", "must have at least one entry")
        least = [
            self._prompts.least_tokens(each, continuing=each is not prompt)
            for each in (prompt, *continuations)
        ]
        if max(least) > self._limits.context_length:
            violations.extend(self._too_long(continuations, least, "at least "))
            violations.raise_if_any()
        encoded = []
        for each in (prompt, *continuations):
            check()
            with violations:
                encoded.append(self._prompts.encode(each, continuing=each is not prompt))
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
        if params.scores_prompt_only:
            return PromptTask(request, generation)
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
        """Yield violations of continuations that exceed the context with the prompt.

        Args:
            continuations: The continuations.
            lengths: Tokens of the prompt, then of each continuation.
            about: Text before each length, for lower bounds.
        """
        size, *sizes = lengths
        for continuation, own in zip(continuations, sizes, strict=True):
            if size + own > self._limits.context_length:
                yield FieldViolation(
                    continuation.field,
                    f"prompt ({about}{size} tokens) and continuation ({about}{own}) together "
                    f"exceed the model's context of {self._limits.context_length} tokens",
                )

    def _resolve(self, prompt: Prompt, params: GenerationParams) -> ResolvedPrompt:
        """Return a prompt as tokens, truncated if requested and needed.

        Raises:
            InvalidRequestError: It is empty or too long, or one of its fields is bad.
        """
        stopping, limits = params.stopping, self._limits
        if params.truncate_prompt:
            self._prompts.check_size(prompt)
        else:
            # A text may have megabytes: its length alone rules out most that are too long.
            least = self._prompts.least_tokens(prompt)
            resolve_max_new_tokens(least, stopping, limits, at_least=True)
        ids, room = self._prompts.encode(prompt), prompt_room(stopping, limits)
        truncated = max(len(ids) - room, 0) if params.truncate_prompt else 0
        if truncated:
            ids = self._prompts.truncate(prompt, ids, room)
        limit = resolve_max_new_tokens(len(ids), stopping, limits)
        if violations := list(self._fits(params, limit)):
            raise InvalidRequestError(violations)
        return ResolvedPrompt(prompt, ids, limit, truncated)

    def _echo(self, resolved: ResolvedPrompt, params: GenerationParams) -> str:
        prompt, skip = resolved.prompt, not params.output.include_special_tokens
        if resolved.truncated_tokens:
            ids = resolved.ids
            return self._prompts.truncated_text(prompt, ids, skip_special_tokens=skip)
        return self._prompts.text(prompt, skip_special_tokens=skip)

    def _check_constraint(self, params: ConstraintParams | None) -> None:
        # `validate` reports violations of the size limits.
        if params is not None and not any(check_constraint(params, self._limits.requests)):
            with _field_errors(params):
                if params.is_compiled:
                    self._grammars.check(params)
                else:
                    self._stored(params)

    def _compile(self, params: GenerationParams) -> Constraint | None:
        constraint = params.constraint
        if constraint is None:
            return None
        with _field_errors(constraint):
            if constraint.is_compiled:
                return self._grammars.compile(constraint)
            ignored = self._eos_token_ids[:1] if params.stopping.ignore_eos else ()
            return TrieConstraint(self._stored(constraint), end=next(iter(ignored), None))

    def _stored(self, params: ConstraintParams) -> TokenTrie:
        """Return the stored list that a constraint names.

        Raises:
            GrammarError: There is none of this name.
        """
        [name] = params.source
        if name not in self._choices:
            known = ", ".join(self._choices) or "none"
            raise GrammarError(f"is {name!r}, must be one of the stored lists: {known}")
        return self._choices[name]

    def _fits(self, params: GenerationParams, max_new_tokens: int) -> Iterator[FieldViolation]:
        """Yield a violation if an output may be cut within an entry."""
        constraint = params.constraint
        if constraint is None or constraint.is_compiled or params.scores_prompt_only:
            return
        trie = self._choices.get(constraint.source[0])
        if trie is not None and trie.longest > max_new_tokens:
            yield FieldViolation(
                "options.stopping.max_new_tokens",
                f"allows {max_new_tokens} new tokens, must allow {trie.longest}: the longest entry "
                f"of {constraint.source[0]!r} with its end",
            )

    def _endings(self, params: GenerationParams) -> dict[int, FinishReason]:
        endings = dict.fromkeys(params.stopping.stop_token_ids, FinishReason.STOP)
        # A constraint admits end-of-text tokens where the output may end.
        if params.constraint is not None or not params.stopping.ignore_eos:
            endings |= dict.fromkeys(self._eos_token_ids, FinishReason.EOS)
        return endings

    def _processors(
        self, params: GenerationParams, endings: Mapping[int, FinishReason]
    ) -> list[Processor]:
        # Within a text, a word starts with a space, which makes it another token.
        bad_words = [
            self._tokenizer.encode(text, continuing=True)
            for word in params.decoding.bad_words
            for text in (word, f" {word}")
        ]
        # As in transformers, an end-of-text token is no bad word.
        allowed = [[token_id] for token_id, reason in endings.items() if reason is FinishReason.EOS]
        return make_processors(
            params.decoding,
            bad_words=[word for word in bad_words if word and word not in allowed],
            ending_ids=list(endings),
            min_new_tokens=params.stopping.min_new_tokens,
        )


@contextmanager
def _field_errors(params: ConstraintParams) -> Iterator[None]:
    """Turn errors of the grammar into violations of its field."""
    try:
        yield
    except GrammarError as error:
        field = f"options.constraint.{params.kind.value}"
        raise InvalidRequestError.of(field, str(error)) from error
