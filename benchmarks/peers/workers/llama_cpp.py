"""llama.cpp through llama-cpp-python: streams are rows of one batch."""

import os
import time
from typing import Any

import numpy as np
from peers.workers import llama_build
from peers.workers.loop import Arrivals, Setup, Worker, run_worker

# Tokens per call; longer prompts take several calls.
_BATCH = 2048


class LlamaCpp(Worker):
    """Model of one quantization, and a context with a cache per stream."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._model: Any = None
        self._context: Any = None

    def prepare(self) -> None:
        """Build the library and convert the checkpoint."""
        llama_build.build()
        llama_build.convert(self.setup.checkpoint, self.setup.folder, self.setup.variant)

    def load(self) -> dict[str, Any]:
        """Load the model."""
        os.environ["LLAMA_CPP_LIB_PATH"] = str(llama_build.library_folder())
        import llama_cpp  # noqa: PLC0415 - needs LLAMA_CPP_LIB_PATH

        self._api: Any = llama_cpp
        self.unload()
        llama_cpp.llama_backend_init()
        path = llama_build.convert(self.setup.checkpoint, self.setup.folder, self.setup.variant)
        self._model = llama_cpp.llama_model_load_from_file(
            str(path).encode(), llama_cpp.llama_model_default_params()
        )
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = self.setup.streams * self.setup.capacity
        parameters.n_seq_max = self.setup.streams
        parameters.n_batch = _BATCH
        parameters.n_threads = parameters.n_threads_batch = self.setup.threads
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise RuntimeError("llama_init_from_model returned no context")
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._size = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self._batch = llama_cpp.llama_batch_init(_BATCH, 0, 1)
        system = llama_cpp.llama_print_system_info().decode()
        self._bytes = llama_cpp.llama_model_size(self._model)
        return {"version": f"llama-cpp-python {llama_cpp.__version__}", "system": system}

    def unload(self) -> None:
        """Free the context and the model."""
        if self._context:
            self._api.llama_batch_free(self._batch)
            self._api.llama_free(self._context)
            self._api.llama_model_free(self._model)
            self._context = None

    def step_bytes(self) -> int:
        """Return the bytes of all weights but the position embeddings."""
        return int(self._bytes) - self.setup.position_bytes

    def stream(self, prompts: list[list[int]], new_tokens: int) -> list[Arrivals]:
        """Prefill the prompts in batches, then decode all together."""
        api = self._api
        api.llama_memory_clear(api.llama_get_memory(self._context), False)
        arrivals: list[Arrivals] = [[] for _ in prompts]
        started = time.perf_counter()
        last = []
        for group in _group(prompts):
            last += self._run([(row, 0, prompts[row]) for row in group])
            for row in group:
                arrivals[row].append(time.perf_counter() - started)
        for step in range(1, new_tokens):
            last = self._run(
                [(row, len(prompt) + step - 1, [last[row]]) for row, prompt in enumerate(prompts)]
            )
            now = time.perf_counter() - started
            for times in arrivals:
                times.append(now)
        return arrivals

    def _run(self, parts: list[tuple[int, int, list[int]]]) -> list[int]:
        """Run tokens of several sequences.

        Args:
            parts: Sequence, position of the first token, and tokens of each part.

        Returns:
            Most likely next token of each part.
        """
        batch, last_rows, filled = self._batch, [], 0
        for sequence, start, tokens in parts:
            for offset, token in enumerate(tokens):
                batch.token[filled] = token
                batch.pos[filled] = start + offset
                batch.n_seq_id[filled] = 1
                batch.seq_id[filled][0] = sequence
                batch.logits[filled] = offset == len(tokens) - 1
                filled += 1
            last_rows.append(filled - 1)
        batch.n_tokens = filled
        if code := self._api.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode failed with {code}")
        rows = (self._api.llama_get_logits_ith(self._context, index) for index in last_rows)
        return [int(np.ctypeslib.as_array(row, (self._size,)).argmax()) for row in rows]


def _group(prompts: list[list[int]]) -> list[list[int]]:
    """Return the prompts' indices, in groups that fit into one call."""
    groups: list[list[int]] = [[]]
    for index, prompt in enumerate(prompts):
        if sum(len(prompts[other]) for other in groups[-1]) + len(prompt) > _BATCH:
            groups.append([])
        groups[-1].append(index)
    return groups


if __name__ == "__main__":
    run_worker(LlamaCpp)
