"""A loaded bundle, ready to serve."""

from collections.abc import Callable
from dataclasses import dataclass

from gpt2flow.server.bundle.manifest import MODEL_NAME, TOKENIZER_NAME, WEIGHTS_NAME, Bundle
from gpt2flow.server.bundle.model_runner import ModelRunner, RunnerError
from gpt2flow.server.config.settings import EngineConfig
from gpt2flow.server.engine.async_engine import AsyncEngine
from gpt2flow.server.engine.engine import Engine
from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.scheduler import Scheduler
from gpt2flow.server.errors import BundleError
from gpt2flow.server.generation.factory import TaskFactory
from gpt2flow.server.grammar.compilation import SandboxedCompiler
from gpt2flow.server.grammar.constraint import GrammarCompiler
from gpt2flow.server.limits import Limits
from gpt2flow.server.models.memory import release
from gpt2flow.server.params import ConstraintKind, ConstraintParams
from gpt2flow.server.tokenizer import Tokenizer

_ROWS_OF_ONE_KIND = 5


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the server.

    Attributes:
        name: What requests call it.
        bundle: Where it came from.
        limits: What requests may ask for.
        tokenizer: Its tokens.
        tasks: Makes tasks for the engine.
        grammars: Tries and compiles constraints.
        engine: Runs them.
        kv_cache_bytes: What its KV cache takes.
    """

    name: str
    bundle: Bundle
    limits: Limits
    tokenizer: Tokenizer
    tasks: TaskFactory
    grammars: SandboxedCompiler
    engine: AsyncEngine
    kv_cache_bytes: int

    def start(self, on_broken: Callable[[], None] = lambda: None) -> None:
        """Start what runs requests; for the event loop's thread.

        Args:
            on_broken: Called on that thread if the engine fails for good.
        """
        self.engine.start(on_broken)
        self.grammars.start()

    async def stop(self, why: str) -> None:
        """End what it runs; requests end with `DrainingError` and this reason."""
        await self.engine.stop(why)
        self.grammars.close()


def load_model(name: str, bundle: Bundle, config: EngineConfig) -> Model:
    """Load a verified bundle, and runs it once so that the first request is not slower.

    Raises:
        BundleError: It is not one that this server can run.
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
        )
    except (ValueError, RunnerError) as error:
        raise BundleError(f"{directory}: {error}") from error
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
        draft_tokens=_draft_tokens(bundle) if config.speculation else 0,
    )
    release(directory / WEIGHTS_NAME)
    kv_cache_bytes = runner.slots * runner.slot_bytes
    return Model(name, bundle, limits, tokenizer, tasks, grammars, engine, kv_cache_bytes)


def _warm_up(runner: ModelRunner, compiler: GrammarCompiler, chunk: int) -> None:
    """Do once what requests do, so that the first of them finds everything in its place."""
    # A chunk of the usual size, then the operators for few tokens: of one slot, and of all.
    runner.run_chunk(0, [0] * chunk, past=0, rows=[chunk - 1])
    runner.run_chunk(0, [0], past=0, rows=[0])
    for slots in (1, runner.slots):
        runner.decode([0] * slots, [0] * slots)
    ids = compiler.compile(ConstraintParams(ConstraintKind.CHOICES, ("a", "b"))).allowed()
    if len(ids) <= runner.max_logit_ids:
        runner.decode([0], [0], ids)


def _draft_tokens(bundle: Bundle) -> int:
    """Return how many tokens are checked together with one at little more than its cost."""
    # Beyond so many rows, a quantized graph takes operators that pay for many rows only.
    return (bundle.manifest.recipe.narrow_rows or _ROWS_OF_ONE_KIND) - 1
