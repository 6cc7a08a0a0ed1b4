"""Model: a loaded bundle, and the requests to it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar

from gpt2flow.server.bundle.manifest import Bundle
from gpt2flow.server.engine.async_engine import AsyncEngine
from gpt2flow.server.engine.results import Event, GenerationResult, ScoreResult
from gpt2flow.server.engine.task import Task
from gpt2flow.server.errors import (
    MAX_VIOLATIONS,
    FieldViolation,
    InvalidRequestError,
    ServerError,
    TimeLimitError,
)
from gpt2flow.server.generation.factory import Arrival, TaskFactory
from gpt2flow.server.generation.prompts import Prompt
from gpt2flow.server.grammar.compilation import RefusingCompiler, SandboxedCompiler
from gpt2flow.server.grammar.trie import TokenTrie
from gpt2flow.server.limits import Limits
from gpt2flow.server.models.long_texts import LONG, LongTexts, Progress
from gpt2flow.server.params import GenerationParams, at_most
from gpt2flow.server.tokenizer.tokenizer import Token, Tokenizer

_T = TypeVar("_T")
_Result = TypeVar("_Result", GenerationResult, ScoreResult)


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the server, used from the event loop's thread.

    Attributes:
        name: Name in requests.
        bundle: Its bundle.
        limits: Limits of its requests.
        tokenizer: Its tokenizer.
        tasks: Makes tasks of requests.
        grammars: Compiles constraints.
        engine: Runs tasks.
        kv_cache_bytes: Memory of its KV cache.
        kernels: Kernels of the operators that it runs on.
        choices: Stored lists of choices, by name.
        texts: Runs the work on long texts.
    """

    name: str
    bundle: Bundle
    limits: Limits
    tokenizer: Tokenizer
    tasks: TaskFactory
    grammars: SandboxedCompiler | RefusingCompiler
    engine: AsyncEngine
    kv_cache_bytes: int
    kernels: str
    choices: Mapping[str, TokenTrie] = field(default_factory=dict)
    texts: LongTexts = field(default_factory=LongTexts)

    def start(self, on_health: Callable[[], None] = lambda: None) -> None:
        """Start the threads that run requests.

        Args:
            on_health: Called when the engine begins to fail, and when it recovers.
        """
        self.engine.start(on_health)
        self.grammars.start()

    async def stop(self, why: str) -> None:
        """End the threads; requests end with `DrainingError` and this reason."""
        await self.engine.stop(why)
        self.grammars.close()
        self.texts.close()

    async def generate(
        self,
        prompts: Sequence[Prompt],
        params: GenerationParams,
        arrival: Arrival,
        on_result: Callable[[GenerationResult], None] = lambda _: None,
    ) -> list[GenerationResult]:
        """Generate from each prompt, and return when all have ended.

        Args:
            prompts: At least one.
            params: Options of all of them.
            arrival: Time, caller and deadline.
            on_result: Called as each prompt ends.

        Raises:
            ServerError: A field is bad, or one prompt failed; the others are dropped.
        """
        tasks = await self._generation_tasks(prompts, params, arrival)
        with self.engine.submit(tasks) as streams:
            return await _gather([_result(each, GenerationResult, on_result) for each in streams])

    @asynccontextmanager
    async def stream(
        self, prompt: Prompt, params: GenerationParams, arrival: Arrival
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Generate from a prompt, in a context with its events.

        Leaving the context drops the request.

        Raises:
            ServerError: A field is bad, or there is no room.
        """
        tasks = await self._generation_tasks([prompt], params, arrival, stream=True)
        with self.engine.submit(tasks) as [events]:
            yield events

    async def score(
        self,
        prompt: Prompt,
        continuations: Sequence[Prompt],
        arrival: Arrival,
        *,
        priority: int = 0,
        on_result: Callable[[ScoreResult], None] = lambda _: None,
    ) -> ScoreResult:
        """Return the log-likelihoods of continuations of a prompt.

        Raises:
            ServerError: A field is bad, or the request failed.
        """
        task = await self.texts.run(
            lambda progress: self.tasks.score(
                prompt, continuations, arrival, priority=priority, check=progress.check
            ),
            _size([prompt, *continuations]),
            arrival.caller,
            arrival.deadline,
        )
        with self.engine.submit([task]) as [events]:
            return await _result(events, ScoreResult, on_result)

    async def tokenize(
        self,
        text: str,
        arrival: Arrival,
        write: Callable[[Iterable[Token]], _T],
        *,
        literal: bool = False,
        add_special_tokens: bool = True,
    ) -> _T:
        """Return the tokens of a text, as a function writes them.

        Args:
            text: The text.
            arrival: Time, caller and deadline.
            write: Function that writes the tokens, in the thread that tokenizes.
            literal: As in `Tokenizer.encode`.
            add_special_tokens: As in `Tokenizer.encode`.

        Raises:
            ServerError: The text is too long, or there is no room or time for it.
        """
        self._check_size("text", len(text.encode()), "bytes")

        def work(progress: Progress) -> _T:
            tokens = self.tokenizer.iter_tokens(
                text, literal=literal, add_special_tokens=add_special_tokens
            )
            return write(progress.through(tokens))

        return await self.texts.run(work, len(text), arrival.caller, arrival.deadline)

    async def detokenize(
        self, ids: Sequence[int], arrival: Arrival, *, skip_special_tokens: bool = False
    ) -> str:
        """Return the text of token ids.

        Args:
            ids: The token ids.
            arrival: Time, caller and deadline.
            skip_special_tokens: Whether special tokens write nothing.

        Raises:
            ServerError: There are too many ids, ids without a token, or there is no room or time.
        """
        self._check_size("tokens.ids", len(ids), "entries")

        def work(progress: Progress) -> str:
            self._check_ids(progress.through(ids))
            return self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

        return await self.texts.run(work, len(ids), arrival.caller, arrival.deadline)

    def _check_size(self, field: str, size: int, unit: str) -> None:
        most = self.limits.requests.tokenize_bytes
        if violations := list(at_most(field, size, most, unit)):
            raise InvalidRequestError(violations)

    def _check_ids(self, ids: Iterable[int]) -> None:
        rule = self.limits.token_id_rule
        bad = (i for i, token_id in enumerate(ids) if not self.limits.has_token(token_id))
        violations = [FieldViolation(f"tokens.ids[{i}]", rule) for i in islice(bad, MAX_VIOLATIONS)]
        if violations:
            raise InvalidRequestError(violations)

    async def _generation_tasks(
        self,
        prompts: Sequence[Prompt],
        params: GenerationParams,
        arrival: Arrival,
        *,
        stream: bool = False,
    ) -> list[Task]:
        """Return a task per prompt.

        A new constraint is compiled once all else is valid.
        """
        partial = params.stopping.return_partial_on_time_limit
        deadline = None if partial else arrival.until(params.stopping)
        size = _size((), params)
        resolved = await self.texts.run(
            lambda progress: self.tasks.resolve(prompts, params, check=progress.check),
            _size(prompts) + size,
            arrival.caller,
            deadline,
        )
        compiled = params.constraint is not None and params.constraint.is_compiled
        if compiled and not await self._precompile(params, arrival):
            # Time is up: nothing will be generated.
            params, compiled = replace(params, constraint=None), False
        return await self.texts.run(
            lambda _: self.tasks.generations(resolved, params, arrival, stream=stream),
            # A short constraint may take long to compile.
            max(size, LONG + 1) if compiled else size,
            arrival.caller,
            deadline,
        )

    async def _precompile(self, params: GenerationParams, arrival: Arrival) -> bool:
        """Compile a new constraint; return False if its deadline passed.

        Errors of the constraint itself are raised when its task is made.
        """
        assert params.constraint is not None
        partial = params.stopping.return_partial_on_time_limit
        deadline = arrival.until(params.stopping)
        try:
            await self.grammars.precompile(
                params.constraint, arrival.caller, deadline, allow_partial=partial
            )
        except TimeLimitError:
            if not partial:
                raise
            return False
        return True


async def _result(
    events: AsyncIterator[Event], kind: type[_Result], on_result: Callable[[_Result], None]
) -> _Result:
    """Return the result of a request, once it has ended."""
    content = [event async for event in events][-1].content
    if isinstance(content, ServerError):
        raise content
    assert isinstance(content, kind)
    on_result(content)
    return content


async def _gather(results: Sequence[Coroutine[None, None, _T]]) -> list[_T]:
    """Return all results in order; the first failure cancels the others."""
    if len(results) == 1:
        return [await results[0]]
    tasks = [asyncio.ensure_future(each) for each in results]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _size(prompts: Sequence[Prompt], params: GenerationParams | None = None) -> int:
    """Return the number of characters and token ids to process."""
    size = sum(len(prompt.input or ()) for prompt in prompts)
    if params is not None:
        size += sum(map(len, getattr(params.decoding, "bad_words", ())))
        size += sum(map(len, params.constraint.source)) if params.constraint else 0
    return size
