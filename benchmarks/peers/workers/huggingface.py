"""transformers' `generate`, in fp32 and on Optimum's dynamic int8 model."""

import json
import time
from importlib.metadata import version
from typing import Any

import torch
from peers.workers.loop import Arrivals, Setup, Worker, run_worker
from transformers import AutoModelForCausalLM, LogitsProcessor, LogitsProcessorList


class Clock(LogitsProcessor):  # type: ignore[misc]  # mypy does not follow transformers
    """Logits processor that records the time of each step.

    The argmax that follows is cheap.
    """

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, _ids: Any, scores: Any) -> Any:
        """Record the time, and return the scores unchanged."""
        self.times.append(time.perf_counter())
        return scores


class HuggingFace(Worker):
    """Model of transformers (fp32) or Optimum (int8), depending on the variant."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._model: Any = None

    def prepare(self) -> None:
        """Export and quantize the checkpoint for ONNX Runtime."""
        target = self.setup.folder / "int8"
        if self.setup.variant == "fp32" or target.exists():
            return
        from optimum.onnxruntime import (  # noqa: PLC0415 - absent from transformers' environment
            ORTModelForCausalLM,
            ORTQuantizer,
        )
        from optimum.onnxruntime.configuration import AutoQuantizationConfig  # noqa: PLC0415

        full, draft = self.setup.folder / "fp32", target.with_suffix(".draft")
        exported = ORTModelForCausalLM.from_pretrained(
            self.setup.checkpoint, export=True, use_cache=True
        )
        exported.save_pretrained(full)
        quantizer = ORTQuantizer.from_pretrained(full, file_name="model.onnx")
        config = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=False)
        quantizer.quantize(save_dir=draft, quantization_config=config)
        draft.rename(target)

    def load(self) -> dict[str, Any]:
        """Load the model."""
        self.unload()
        torch.set_num_threads(self.setup.threads)
        if self.setup.variant == "fp32":
            self._model = AutoModelForCausalLM.from_pretrained(
                self.setup.checkpoint, dtype=torch.float32
            ).eval()
            return {"version": f"transformers {version('transformers')}"}
        import onnxruntime  # noqa: PLC0415 - as above
        from optimum.onnxruntime import ORTModelForCausalLM  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.setup.threads
        file = self.setup.folder / "int8" / "model_quantized.onnx"
        self._model = ORTModelForCausalLM.from_pretrained(
            file.parent, file_name=file.name, session_options=options
        )
        package = f"optimum-onnx {version('optimum-onnx')}"
        return {"version": f"{package} on onnxruntime {onnxruntime.__version__}"}

    def unload(self) -> None:
        """Free the model."""
        self._model = None

    def step_bytes(self) -> int:
        """Return the bytes of all weights but tables of embeddings.

        In fp32 the table of the tokens counts, as it is the head; in int8 the head is stored apart.
        """
        if self.setup.variant == "fp32":
            size = sum(int(weights.nbytes) for weights in self._model.parameters())
            return size - self.setup.position_bytes
        config = json.loads((self.setup.checkpoint / "config.json").read_text(encoding="utf-8"))
        rows = int(config["n_positions"]) + int(config["vocab_size"])
        width = int(config["n_embd"])
        file = self.setup.folder / "int8" / "model_quantized.onnx"
        return file.stat().st_size - rows * width

    def stream(self, prompts: list[list[int]], new_tokens: int) -> list[Arrivals]:
        """Continue the prompts as one batch."""
        clock = Clock()
        started = time.perf_counter()
        self._generate(prompts, new_tokens, logits_processor=LogitsProcessorList([clock]))
        return [[arrival - started for arrival in clock.times] for _ in prompts]

    def beams(self, prompt: list[int], beams: int, new_tokens: int) -> float:
        """Run a beam search, and return its seconds."""
        started = time.perf_counter()
        self._generate([prompt], new_tokens, num_beams=beams)
        return time.perf_counter() - started

    def _generate(self, prompts: list[list[int]], new_tokens: int, **options: Any) -> None:
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                do_sample=False,
                pad_token_id=0,
                **options,
            )


if __name__ == "__main__":
    run_worker(HuggingFace)
