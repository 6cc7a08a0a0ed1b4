"""CTranslate2: batches of equally long prompts, with every step timed."""

import json
import time
from typing import Any

from peers.workers.loop import Arrivals, Setup, Worker, run_worker


class CTranslate(Worker):
    """Generator with one replica."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._generator: Any = None
        self._words: list[str] = []

    def prepare(self) -> None:
        """Convert the checkpoint."""
        target = self.setup.folder / f"ctranslate2-{self.setup.variant}"
        if target.exists():
            return
        from ctranslate2.converters import TransformersConverter  # noqa: PLC0415 - imports torch

        draft = target.with_suffix(".draft")
        converter = TransformersConverter(str(self.setup.checkpoint))
        converter.convert(str(draft), quantization=self.setup.variant, force=True)
        draft.rename(target)

    def load(self) -> dict[str, Any]:
        """Load the model."""
        import ctranslate2  # noqa: PLC0415 - its converter's modules are not needed

        self.unload()
        model = self.setup.folder / f"ctranslate2-{self.setup.variant}"
        # Between the 8-bit products, float32 was the fastest compute type.
        compute = self.setup.options.get("compute_type", f"{self.setup.variant}_float32")
        self._generator = ctranslate2.Generator(
            str(model), compute_type=compute, inter_threads=1, intra_threads=self.setup.threads
        )
        words = (model / "vocabulary.json").read_text(encoding="utf-8")
        self._words = json.loads(words)
        return {"version": f"ctranslate2 {ctranslate2.__version__}"}

    def unload(self) -> None:
        """Free the model."""
        self._generator = None

    def step_bytes(self) -> int:
        """Return the bytes of all weights but the position embeddings, in fp32."""
        file = self.setup.folder / f"ctranslate2-{self.setup.variant}" / "model.bin"
        return file.stat().st_size - self.setup.position_bytes

    def stream(self, prompts: list[list[int]], new_tokens: int) -> list[Arrivals]:
        """Continue the prompts as one batch."""
        arrivals: list[Arrivals] = [[] for _ in prompts]
        started = time.perf_counter()

        def record(step: Any) -> bool:
            arrivals[step.batch_id].append(time.perf_counter() - started)
            return False

        self._generate(prompts, new_tokens, callback=record)
        return arrivals

    def beams(self, prompt: list[int], beams: int, new_tokens: int) -> float:
        """Run a beam search, and return its seconds."""
        started = time.perf_counter()
        self._generate([prompt], new_tokens, beam_size=beams)
        return time.perf_counter() - started

    def _generate(self, prompts: list[list[int]], new_tokens: int, **options: Any) -> None:
        self._generator.generate_batch(
            [[self._words[token] for token in prompt] for prompt in prompts],
            max_length=new_tokens,
            min_length=new_tokens,
            include_prompt_in_result=False,
            **options,
        )


if __name__ == "__main__":
    run_worker(CTranslate)
