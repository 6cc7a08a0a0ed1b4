"""OpenVINO GenAI's continuous batching, stepped by hand to time each token."""

import itertools
import time
from typing import Any

import numpy as np
from peers.workers import openvino_model
from peers.workers.compact import compact_regex
from peers.workers.loop import Arrivals, Setup, Worker, run_worker


class OpenVino(Worker):
    """Pipeline whose cache has room for all streams."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._pipeline: Any = None
        self._request_ids = itertools.count()

    def prepare(self) -> None:
        """Convert the checkpoint."""
        openvino_model.convert(self.setup.checkpoint, self.setup.folder, self.setup.variant)

    def load(self) -> dict[str, Any]:
        """Load the model."""
        import openvino_genai  # noqa: PLC0415 - the conversion does not need it

        self._api: Any = openvino_genai
        self.unload()
        model = openvino_model.convert(self.setup.checkpoint, self.setup.folder, self.setup.variant)
        properties = self.setup.options.get("openvino", {})
        self._pipeline = openvino_model.open_pipeline(
            model,
            threads=self.setup.threads,
            streams=self.setup.streams,
            capacity=self.setup.capacity,
            properties=properties,
        )
        return {"version": f"openvino-genai {openvino_genai.__version__}"}

    def unload(self) -> None:
        """Free the pipeline."""
        self._pipeline = None

    def step_bytes(self) -> int:
        """Return the bytes of all weights but the position embeddings."""
        return openvino_model.step_bytes(
            openvino_model.convert(self.setup.checkpoint, self.setup.folder, self.setup.variant)
        )

    def stream(self, prompts: list[list[int]], new_tokens: int) -> list[Arrivals]:
        """Add all requests, then step until they have ended."""
        arrivals: list[Arrivals] = [[] for _ in prompts]
        config = self._config(new_tokens)
        started = time.perf_counter()
        handles = [self._add(prompt, config) for prompt in prompts]
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            now = time.perf_counter() - started
            for handle, row in zip(handles, arrivals, strict=True):
                while handle.can_read():
                    outputs = handle.read().values()
                    row.extend([now] * sum(len(output.generated_ids) for output in outputs))
        return arrivals

    def beside(self, prompts: list[list[int]], prompt: list[int], new_tokens: int) -> float:
        """Add a request once all streams have begun."""
        config = self._config(new_tokens)
        running = self._api.GenerationStatus.RUNNING
        handles = [self._add(each, config) for each in prompts]
        while not all(handle.can_read() for handle in handles):
            self._pipeline.step()
        started = time.perf_counter()
        arrived = self._add(prompt, self._config(2))
        while not arrived.can_read():
            self._pipeline.step()
        first = time.perf_counter() - started
        ended = any(handle.get_status() != running for handle in handles)
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        if ended:
            raise RuntimeError("a stream ended before the prompt's tokens arrived")
        return first

    def beams(self, prompt: list[int], beams: int, new_tokens: int) -> float:
        """Run a beam search, and return its seconds."""
        config = self._config(new_tokens)
        config.num_beams = beams
        started = time.perf_counter()
        self._drain(prompt, config)
        return time.perf_counter() - started

    def turn(
        self, prompt: list[int], schema: dict[str, Any], max_new_tokens: int
    ) -> dict[str, Any]:
        """Request JSON as a regular expression, with prefix caching."""
        config = self._config(max_new_tokens)
        config.ignore_eos = False
        config.min_new_tokens = 0
        structured = self._api.StructuredOutputConfig(regex=compact_regex(schema))
        config.structured_output_config = structured
        started = time.perf_counter()
        ids = self._drain(prompt, config)
        seconds = time.perf_counter() - started
        text = self._pipeline.get_tokenizer().decode(ids)
        return {"seconds": seconds, "tokens": len(ids), "cached": None, "text": text}

    def _config(self, new_tokens: int) -> Any:
        config = self._api.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = new_tokens
        config.ignore_eos = True
        config.do_sample = False
        return config

    def _add(self, prompt: list[int], config: Any) -> Any:
        import openvino  # noqa: PLC0415 - as above

        ids = openvino.Tensor(np.array([prompt], np.int64))
        return self._pipeline.add_request(next(self._request_ids), ids, config)

    def _drain(self, prompt: list[int], config: Any) -> list[int]:
        """Run one request to its end, and return its best sequence's tokens."""
        handle = self._add(prompt, config)
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        return list(max(handle.read_all(), key=lambda output: output.score).generated_ids)


if __name__ == "__main__":
    run_worker(OpenVino)
