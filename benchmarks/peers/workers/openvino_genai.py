"""OpenVINO GenAI's continuous batching, stepped by hand to time each token."""

import itertools
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers.workers.compact import compact_regex
from peers.workers.loop import Arrivals, Setup, Worker, run_worker

_FORMATS = {
    "int8": ["--weight-format", "int8"],
    "int4": ["--weight-format", "int4", "--sym", "--group-size", "128", "--ratio", "1.0"],
}
_CACHE_GB = 2


class OpenVino(Worker):
    """Pipeline whose cache has room for all streams."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._pipeline: Any = None
        self._request_ids = itertools.count()

    def prepare(self) -> None:
        """Convert the checkpoint with optimum-intel."""
        target = self._model
        if target.exists():
            return
        draft = target.with_suffix(".draft")
        command = [str(Path(sys.executable).with_name("optimum-cli")), "export", "openvino"]
        command += ["--model", str(self.setup.checkpoint), "--task", "text-generation-with-past"]
        command += [*_FORMATS[self.setup.variant], str(draft)]
        completed = subprocess.run(command, stdout=sys.stderr, check=False)
        if completed.returncode:
            raise RuntimeError(f"optimum-cli failed with {completed.returncode}, see the log")
        draft.rename(target)

    def load(self) -> dict[str, Any]:
        """Load the model."""
        import openvino_genai  # noqa: PLC0415 - the conversion does not need it

        self._api: Any = openvino_genai
        self._pipeline = None
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_seqs = self.setup.streams
        scheduler.max_num_batched_tokens = self.setup.streams * self.setup.capacity
        scheduler.cache_size = _CACHE_GB
        scheduler.enable_prefix_caching = True
        scheduler.dynamic_split_fuse = False
        properties = {"INFERENCE_NUM_THREADS": self.setup.threads, "PERFORMANCE_HINT": "LATENCY"}
        properties |= self.setup.options.get("openvino", {})
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            str(self._model), scheduler, "CPU", properties
        )
        return {
            "version": f"openvino-genai {openvino_genai.__version__}",
            "weight_bytes": (self._model / "openvino_model.bin").stat().st_size,
        }

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

    @property
    def _model(self) -> Path:
        return self.setup.folder / f"openvino-{self.setup.variant}"

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
