"""Oracles of the engine, without cache, batches and scheduling."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tests.support.engine_bench import EOS, EngineBench
from tests.support.served_graph import by_position

from gpt2flow.server.bundle.model_runner import ModelRunner
from gpt2flow.server.engine.kv_cache import CacheCopy
from gpt2flow.server.grammar.constraint import Constraint
from gpt2flow.server.params import GenerationParams, SamplingParams
from gpt2flow.server.sampling.filters import Floats, Ids
from gpt2flow.server.sampling.sampler import Sampler, make_rng


@dataclass
class NaiveDecoder:
    """Decoder that runs the whole sequence again for every token."""

    bench: EngineBench
    runner: ModelRunner

    def logits(self, tokens: Sequence[int]) -> Floats:
        """Return the logits [vocabulary] after the last token."""
        count = len(tokens)
        logits = self.runner.run(tokens, [0] * count, range(count), [count - 1])
        values: Floats = logits[0]
        return values

    def decode(self, prompt: Sequence[int], params: GenerationParams, index: int = 0) -> list[int]:
        """Return the token ids of candidate `index`."""
        task = self.bench.task(prompt, params)
        generation = task._generation  # type: ignore[attr-defined]
        assert isinstance(params.decoding, SamplingParams)
        sampler = Sampler(params.decoding, generation.processors)
        rng, constraint = make_rng(generation.seed, index), generation.constraint
        tokens = list(prompt)
        while True:
            forced = constraint.forced() if constraint else []
            for token in forced:
                tokens.append(token)
                if self.ends(tokens[len(prompt) :], generation, constraint):
                    return tokens[len(prompt) :]
            allowed = constraint.allowed() if constraint else None
            token = sampler.choose(self.logits(tokens), tokens, len(prompt), rng, allowed)
            if token is None:
                return tokens[len(prompt) :]
            tokens.append(token)
            if self.ends(tokens[len(prompt) :], generation, constraint):
                return tokens[len(prompt) :]

    def ends(self, produced: list[int], generation: Any, constraint: Constraint | None) -> bool:
        """Advance the constraint and return whether the last token ends the candidate."""
        stopping, token = generation.params.stopping, produced[-1]
        if token in stopping.stop_token_ids:
            return True
        if token == EOS and (constraint is not None or not stopping.ignore_eos):
            return True
        if len(produced) >= stopping.min_new_tokens:
            text = self.bench.tokenizer.decode(produced)
            if any(stop in text for stop in stopping.stop_strings):
                return True
        if constraint is not None:
            constraint.advance(token)
            if constraint.complete:
                return True
        return len(produced) >= int(generation.max_new_tokens)


class UncachedRunner:
    """Runner without a cache, which reruns whole sequences one by one."""

    def __init__(self, runner: ModelRunner) -> None:
        self.vocabulary_size = runner.vocabulary_size
        self.max_logit_ids = 0
        self._runner = runner
        self._tokens: defaultdict[int, list[int]] = defaultdict(list)

    def run(
        self,
        tokens: Sequence[int],
        slots: Sequence[int],
        positions: Sequence[int],
        rows: Sequence[int],
        ids: Ids | None = None,
    ) -> Floats:
        assert ids is None
        logits = []
        for token, slot, position in zip(tokens, slots, positions, strict=True):
            self._tokens[slot][position:] = [token]
            held = self._tokens[slot]
            count = len(held)
            row = self._runner.run(held, [0] * count, range(count), [count - 1])
            logits.append(row[0])
        stacked: Floats = np.stack(logits)[list(rows)]
        return stacked

    def copy(self, copies: Iterable[CacheCopy]) -> None:
        for copy in copies:
            self._tokens[copy.target][copy.start :] = self._tokens[copy.source][
                copy.start : copy.stop
            ]


def assert_cache_matches_model(bench: EngineBench, fresh_runner: ModelRunner) -> None:
    """Check that cached positions equal those of an uncached run."""
    bench.runner.copy(bench.cache.take_copies())
    for slot, tokens in enumerate(bench.cache._tokens):
        if not tokens:
            continue
        count = len(tokens)
        fresh_runner.run(tokens, [0] * count, range(count), [0])
        for name, array in bench.runner._cache.items():
            expected = by_position(fresh_runner._cache[name])[0, :, :count]
            actual = by_position(array)[slot, :, :count]
            np.testing.assert_allclose(actual, expected, atol=1e-3)
