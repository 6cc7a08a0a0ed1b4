"""Loading of a model from its bundle."""

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import structlog

from gpt2flow.server.bundle.manifest import (
    MODEL_NAME,
    REFERENCE_PROFILE,
    TOKENIZER_NAME,
    WEIGHTS_NAME,
    Bundle,
)
from gpt2flow.server.bundle.model_runner import ModelRunner, RunnerError
from gpt2flow.server.config.settings import EngineConfig
from gpt2flow.server.engine.async_engine import AsyncEngine
from gpt2flow.server.engine.engine import Engine
from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.scheduler import Scheduler
from gpt2flow.server.errors import BundleError, ConfigError, GrammarError
from gpt2flow.server.generation.factory import TaskFactory
from gpt2flow.server.grammar.compilation import RefusingCompiler, SandboxedCompiler
from gpt2flow.server.grammar.constraint import GrammarCompiler
from gpt2flow.server.grammar.stored_choices import build_trie
from gpt2flow.server.grammar.trie import TokenTrie
from gpt2flow.server.grammar.vocabulary import GrammarVocabulary
from gpt2flow.server.limits import Limits
from gpt2flow.server.models.memory import release, trim
from gpt2flow.server.models.model import Model
from gpt2flow.server.params import ConstraintKind, ConstraintParams
from gpt2flow.server.tokenizer.tokenizer import Tokenizer

# Usual number of tokens of a draft, before its acceptance makes it longer or shorter.
_DRAFT_TOKENS: Final = 4
# Tokens of the first run, which read all weights once; a longer chunk is no slower after it.
_WARM_UP_TOKENS: Final = 64


def load_model(name: str, bundle: Bundle, config: EngineConfig) -> Model:
    """Load a verified bundle, and warm it up.

    Raises:
        BundleError: This server cannot run it.
        ConfigError: The memory for the KV cache does not hold one sequence, or a list of choices
            is unusable.
    """
    directory = bundle.directory
    shape = bundle.manifest.shape
    capacity = min(shape.context_length, config.context_length or shape.context_length)
    if bundle.manifest.recipe.profile == REFERENCE_PROFILE:
        raise BundleError(
            f"{directory} has the profile {REFERENCE_PROFILE}, which cannot be served; export the "
            "checkpoint with --profile fp32, int8 or int4"
        )
    try:
        # Runs of the model leave Python free to read the tokenizer.
        with ThreadPoolExecutor(1) as beside:
            reading = beside.submit(_read_tokenizer, bundle)
            runner = ModelRunner(
                directory / MODEL_NAME,
                slots=config.max_sequences,
                capacity=capacity,
                threads=config.threads,
                memory=config.kv_cache_memory,
                kernels=config.kernels,
            )
            release(directory / WEIGHTS_NAME)
            _warm_up(runner, min(_WARM_UP_TOKENS, config.prefill_chunk, capacity))
            tokenizer, compiler = reading.result()
        choices = _read_choices(name, config, tokenizer, shape.eos_token_ids, capacity)
    except (ValueError, RunnerError) as error:
        raise BundleError(f"{directory}: {error}") from error
    _warm_up_choice(runner, compiler)
    cache, unused = SlotCache(runner.slots, capacity), tokenizer.unused_ids
    engine = AsyncEngine(
        name,
        Engine(
            runner,
            cache,
            Scheduler(cache, config.prefill_chunk),
            vocabulary_size=tokenizer.vocabulary_size,
            missing_ids=np.array(sorted(unused), np.intp) if unused else None,
        ),
        slots=runner.slots,
        max_queued=config.max_queued,
    )
    grammars = (
        RefusingCompiler(tokenizer.constraint_error)
        if compiler is None
        else SandboxedCompiler(compiler, config.requests.grammar_seconds)
    )
    limits = Limits(
        context_length=capacity,
        vocabulary_size=tokenizer.vocabulary_size,
        missing_ids=unused,
        max_sequences=runner.slots,
        max_queued=config.max_queued,
        max_top_logprobs=min(config.max_top_logprobs, tokenizer.vocabulary_size),
        default_max_new_tokens=config.default_max_new_tokens,
        requests=config.requests,
    )
    tasks = TaskFactory(
        limits=limits,
        eos_token_ids=shape.eos_token_ids,
        tokenizer=tokenizer,
        grammars=grammars,
        next_id=engine.next_id,
        choices=choices,
        bos_token_id=shape.bos_token_id,
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
        choices=choices,
    )


def _read_tokenizer(bundle: Bundle) -> tuple[Tokenizer, GrammarCompiler | None]:
    """Return the tokenizer of a bundle, and the compiler of its grammars.

    There is no compiler if the tokenizer supports no constraints.

    Raises:
        ValueError: It is unsupported, or has tokens that the model lacks.
    """
    shape = bundle.manifest.shape
    # The tokenizer may lack some of the model's tokens.
    size = shape.vocabulary_size
    tokenizer = Tokenizer.from_file(bundle.directory / TOKENIZER_NAME)
    if tokenizer.vocabulary_size > size:
        raise ValueError(
            f"{TOKENIZER_NAME} has ids up to {tokenizer.vocabulary_size - 1}, and the model {size} "
            "entries; write the bundle anew"
        )
    if tokenizer.constraint_error:
        return tokenizer, None
    return tokenizer, GrammarCompiler(tokenizer, shape.eos_token_ids)


def _read_choices(
    model: str,
    config: EngineConfig,
    tokenizer: Tokenizer,
    eos_token_ids: Sequence[int],
    context_length: int,
) -> dict[str, TokenTrie]:
    """Return the stored lists of choices, by name.

    Raises:
        ConfigError: The model takes no constraints, or a list is unusable.
    """
    if config.choices and tokenizer.constraint_error:
        raise ConfigError(
            f"choices are given, and model {model!r} takes no constraints: "
            f"{tokenizer.constraint_error}"
        )
    vocabulary = GrammarVocabulary(tokenizer, eos_token_ids)
    choices, log = {}, structlog.get_logger()
    for name, path in config.choices.items():
        started = time.perf_counter()
        choices[name] = trie = build_trie(
            name,
            path,
            vocabulary,
            has_end=bool(eos_token_ids),
            most_tokens=context_length - 1,
        )
        log.info(
            "choices_loaded",
            model=model,
            choices=name,
            entries=trie.entries,
            nodes=trie.nodes,
            longest=trie.longest,
            bytes=trie.memory,
            seconds=round(time.perf_counter() - started, 3),
        )
    return choices


def _warm_up(runner: ModelRunner, chunk: int) -> None:
    """Run a chunk and steps once, ahead of the first request."""
    runner.run([0] * chunk, [0] * chunk, range(chunk), [chunk - 1])
    for slots in (1, runner.slots):
        runner.run([0] * slots, range(slots), [0] * slots, range(slots))


def _warm_up_choice(runner: ModelRunner, compiler: GrammarCompiler | None) -> None:
    """Run a choice among few tokens once."""
    ids = np.arange(2)
    # Not every vocabulary has these letters.
    with contextlib.suppress(GrammarError):
        if compiler is not None:
            ids = compiler.compile(ConstraintParams(ConstraintKind.CHOICES, ("a", "b"))).allowed()
    if len(ids) <= runner.max_logit_ids:
        runner.run([0], [0], [0], [0], ids)
