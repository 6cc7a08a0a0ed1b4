"""gpt2flow's bare engine loop on a bundle.

The server's row adds the cost of gRPC, the event loop and a second process.
"""

import time
from importlib.metadata import version
from itertools import count
from typing import Any

from peers.workers.bundle import find_bundle, prepare_bundle, step_bytes
from peers.workers.loop import Arrivals, Setup, Worker, run_worker

from gpt2flow.server.bundle.manifest import MODEL_NAME, TOKENIZER_NAME, load_bundle
from gpt2flow.server.bundle.model_runner import ModelRunner
from gpt2flow.server.config.settings import EngineConfig
from gpt2flow.server.engine.engine import Engine
from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.results import Delta
from gpt2flow.server.engine.scheduler import Scheduler
from gpt2flow.server.generation.factory import Arrival, TaskFactory
from gpt2flow.server.generation.prompts import Prompt
from gpt2flow.server.grammar.constraint import GrammarCompiler
from gpt2flow.server.limits import Limits
from gpt2flow.server.params import GenerationParams, OutputParams, SamplingParams, StoppingParams
from gpt2flow.server.tokenizer.tokenizer import Tokenizer


class Gpt2FlowEngine(Worker):
    """Engine of the server with its scheduler, cache and sampler."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._engine: Engine | None = None
        self._tasks: TaskFactory | None = None

    def prepare(self) -> None:
        """Export the checkpoint."""
        prepare_bundle(self.setup)

    def load(self) -> dict[str, Any]:
        """Assemble the engine as `load_model` does, without speculative decoding.

        The server's rows of the same weights run without it, too.
        """
        config = EngineConfig(threads=self.setup.threads, max_sequences=self.setup.streams)
        bundle = load_bundle(find_bundle(self.setup))
        shape, folder = bundle.manifest.shape, bundle.directory
        runner = ModelRunner(
            folder / MODEL_NAME,
            slots=config.max_sequences,
            capacity=shape.context_length,
            threads=config.threads,
        )
        cache = SlotCache(runner.slots, shape.context_length)
        self._engine = Engine(runner, cache, Scheduler(cache, config.prefill_chunk))
        tokenizer = Tokenizer.from_file(folder / TOKENIZER_NAME)
        self._tasks = TaskFactory(
            limits=Limits(
                context_length=shape.context_length,
                vocabulary_size=shape.vocabulary_size,
                max_sequences=config.max_sequences,
                max_queued=config.max_queued,
                max_top_logprobs=config.max_top_logprobs,
                default_max_new_tokens=config.default_max_new_tokens,
            ),
            eos_token_ids=shape.eos_token_ids,
            tokenizer=tokenizer,
            grammars=GrammarCompiler(tokenizer, shape.eos_token_ids),
            next_id=count().__next__,
        )
        return {"version": f"onnxruntime {version('onnxruntime')}"}

    def step_bytes(self) -> int:
        """Return the bytes of the layers and the head."""
        return step_bytes(find_bundle(self.setup))

    def stream(self, prompts: list[list[int]], new_tokens: int) -> list[Arrivals]:
        """Add all requests, then step until they have ended."""
        if self._engine is None or self._tasks is None:
            raise RuntimeError("model not loaded; call load first")
        params = GenerationParams(
            decoding=SamplingParams(temperature=0.0),
            stopping=StoppingParams(max_new_tokens=new_tokens, ignore_eos=True),
            output=OutputParams(token_ids=True),
        )
        started = time.perf_counter()
        inputs = [Prompt(f"prompts[{i}]", tuple(prompt)) for i, prompt in enumerate(prompts)]
        resolved = self._tasks.resolve(inputs, params)
        arrival = Arrival(time.monotonic())
        tasks = self._tasks.generations(resolved, params, arrival, stream=True)
        arrivals: dict[int, Arrivals] = {task.request.id: [] for task in tasks}
        for task in tasks:
            self._engine.add(task)
        while self._engine.busy:
            for event in self._engine.step():
                if isinstance(event.content, Delta):
                    now = time.perf_counter() - started
                    arrivals[event.request_id] += [now] * len(event.content.token_ids)
        return list(arrivals.values())


if __name__ == "__main__":
    run_worker(Gpt2FlowEngine)
