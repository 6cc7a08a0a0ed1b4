"""gpt2flow's graph in a bare loop with an argmax.

The server's row adds the cost of everything else.
"""

import time
from importlib.metadata import version
from typing import Any

from peers.workers.bundle import find_bundle, prepare_bundle, step_bytes
from peers.workers.loop import Arrivals, Setup, Worker, run_worker

from gpt2flow.server.bundle.model_runner import ModelRunner


class Gpt2FlowGraph(Worker):
    """The server's `ModelRunner`, without server, sampler or scheduler."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._runner: ModelRunner | None = None

    def prepare(self) -> None:
        """Export the checkpoint."""
        prepare_bundle(self.setup)

    def load(self) -> dict[str, Any]:
        """Load the graph."""
        setup, bundle = self.setup, find_bundle(self.setup)
        self._runner = ModelRunner(
            bundle / "model.onnx",
            slots=setup.streams,
            capacity=setup.capacity,
            threads=setup.threads,
        )
        return {"version": f"onnxruntime {version('onnxruntime')}"}

    def step_bytes(self) -> int:
        """Return the bytes of the layers and the head."""
        return step_bytes(find_bundle(self.setup))

    def stream(self, prompts: list[list[int]], new_tokens: int) -> list[Arrivals]:
        """Prefill the prompts one by one, then decode all together."""
        if self._runner is None:
            raise RuntimeError("model not loaded; call load first")
        arrivals: list[Arrivals] = [[] for _ in prompts]
        started = time.perf_counter()
        last = []
        for slot, prompt in enumerate(prompts):
            count = len(prompt)
            logits = self._runner.run(prompt, [slot] * count, range(count), [count - 1])
            last.append(int(logits[0].argmax()))
            arrivals[slot].append(time.perf_counter() - started)
        for step in range(1, new_tokens):
            positions = [len(prompt) + step - 1 for prompt in prompts]
            slots = range(len(prompts))
            logits = self._runner.run(last, slots, positions, slots)
            last = logits.argmax(-1).tolist()
            now = time.perf_counter() - started
            for times in arrivals:
                times.append(now)
        return arrivals


if __name__ == "__main__":
    run_worker(Gpt2FlowGraph)
