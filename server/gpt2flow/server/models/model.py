"""Model: a loaded bundle, and the requests to it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, TypeVar

from gpt2flow.server.bundle.manifest import MODEL_NAME, TOKENIZER_NAME, WEIGHTS_NAME, Bundle
from gpt2flow.server.bundle.model_runner import ModelRunner, RunnerError
from gpt2flow.server.config.settings import EngineConfig
from gpt2flow.server.engine.async_engine import AsyncEngine
from gpt2flow.server.engine.engine import Engine
from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.results import Event, GenerationResult, ScoreResult
from gpt2flow.server.engine.scheduler import Scheduler
from gpt2flow.server.engine.task import Task
from gpt2flow.server.errors import (
    MAX_VIOLATIONS,
    BundleError,
    FieldViolation,
    InvalidRequestError,
    ServerError,
    TimeLimitError,
)
from gpt2flow.server.generation.factory import Arrival, Prompt, TaskFactory
from gpt2flow.server.grammar.compilation import SandboxedCompiler
from gpt2flow.server.grammar.constraint import GrammarCompiler
from gpt2flow.server.limits import Limits
from gpt2flow.server.models.memory import release, trim
from gpt2flow.server.params import ConstraintKind, ConstraintParams, GenerationParams
from gpt2flow.server.tokenizer import Token, Tokenizer

# Usual number of tokens of a draft, before its acceptance makes it longer or shorter.
_DRAFT_TOKENS: Final = 4
# Longer texts are processed in another thread, so that the event loop stays live: a microsecond
# a character, up to 1 ms.
_LONG: Final = 1024

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
    """

    name: str
    bundle: Bundle
    limits: Limits
    tokenizer: Tokenizer
    tasks: TaskFactory
    grammars: SandboxedCompiler
    engine: AsyncEngine
    kv_cache_bytes: int
    kernels: str

    def start(self, on_broken: Callable[[], None] = lambda: None) -> None:
        """Start the threads that run requests.

        Args:
            on_broken: Called if the engine fails for good.
        """
        self.engine.start(on_broken)
        self.grammars.start()

    async def stop(self, why: str) -> None:
        """End the threads; requests end with `DrainingError` and this reason."""
        await self.engine.stop(why)
        self.grammars.close()

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
        task = await _offload(
            lambda: self.tasks.score(prompt, continuations, arrival, priority=priority),
            heavy=_size([prompt, *continuations]) > _LONG,
        )
        with self.engine.submit([task]) as [events]:
            return await _result(events, ScoreResult, on_result)

    async def tokenize(self, text: str) -> list[Token]:
        """Return the tokens of a text."""
        return await _offload(lambda: self.tokenizer.tokenize(text), heavy=len(text) > _LONG)

    async def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of token ids.

        Raises:
            InvalidRequestError: Names the ids that exceed the vocabulary.
        """
        return await _offload(lambda: self._detokenize(ids), heavy=len(ids) > _LONG)

    def _detokenize(self, ids: Sequence[int]) -> str:
        rule = self.limits.token_id_rule
        bad = (i for i, token_id in enumerate(ids) if token_id >= self.limits.vocabulary_size)
        violations = [FieldViolation(f"tokens.ids[{i}]", rule) for i in islice(bad, MAX_VIOLATIONS)]
        if violations:
            raise InvalidRequestError(violations)
        return self.tokenizer.decode(ids)

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
        heavy = _size(prompts, params) > _LONG
        resolved = await _offload(lambda: self.tasks.resolve(prompts, params), heavy=heavy)
        if params.constraint is not None and not await self._precompile(params, arrival):
            params = replace(params, constraint=None)  # Time is up: nothing will be generated.
        return await _offload(
            lambda: self.tasks.generations(resolved, params, arrival, stream=stream),
            heavy=heavy or params.constraint is not None,
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


async def _offload(function: Callable[[], _T], *, heavy: bool) -> _T:
    """Call a function, in another thread if it may take long."""
    return await asyncio.to_thread(function) if heavy else function()


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


def load_model(name: str, bundle: Bundle, config: EngineConfig) -> Model:
    """Load a verified bundle, and warm it up.

    Raises:
        BundleError: This server cannot run it.
        ConfigError: The memory for the KV cache does not hold one sequence.
    """
    directory = bundle.directory
    shape = bundle.manifest.shape
    capacity = shape.context_length
    try:
        tokenizer = Tokenizer.from_file(directory / TOKENIZER_NAME)
        compiler = GrammarCompiler(tokenizer, shape.vocabulary_size, shape.eos_token_id)
        runner = ModelRunner(
            directory / MODEL_NAME,
            slots=config.max_sequences,
            capacity=capacity,
            threads=config.threads,
            memory=config.kv_cache_memory,
            kernels=config.kernels,
        )
    except (ValueError, RunnerError) as error:
        raise BundleError(f"{directory}: {error}") from error
    release(directory / WEIGHTS_NAME)
    _warm_up(runner, compiler, min(config.prefill_chunk, capacity))
    cache = SlotCache(runner.slots, capacity)
    engine = AsyncEngine(
        name,
        Engine(runner, cache, Scheduler(cache, config.prefill_chunk)),
        slots=runner.slots,
        max_queued=config.max_queued,
    )
    grammars = SandboxedCompiler(compiler, config.requests.grammar_seconds)
    limits = Limits(
        context_length=capacity,
        vocabulary_size=shape.vocabulary_size,
        max_sequences=runner.slots,
        max_queued=config.max_queued,
        max_top_logprobs=min(config.max_top_logprobs, shape.vocabulary_size),
        default_max_new_tokens=config.default_max_new_tokens,
        requests=config.requests,
    )
    tasks = TaskFactory(
        limits=limits,
        eos_token_id=shape.eos_token_id,
        tokenizer=tokenizer,
        grammars=grammars,
        next_id=engine.next_id,
        draft_tokens=_DRAFT_TOKENS if config.speculation else 0,
    )
    trim()
    return Model(
        name,
        bundle,
        limits,
        tokenizer,
        tasks,
        grammars,
        engine,
        kv_cache_bytes=runner.slots * runner.slot_bytes,
        kernels=str(runner.operators),
    )


def _warm_up(runner: ModelRunner, compiler: GrammarCompiler, chunk: int) -> None:
    """Run everything once, so that the first request is not slower."""
    runner.run([0] * chunk, [0] * chunk, range(chunk), [chunk - 1])
    for slots in (1, runner.slots):
        runner.run([0] * slots, range(slots), [0] * slots, range(slots))
    ids = compiler.compile(ConstraintParams(ConstraintKind.CHOICES, ("a", "b"))).allowed()
    if len(ids) <= runner.max_logit_ids:
        runner.run([0], [0], [0], [0], ids)
