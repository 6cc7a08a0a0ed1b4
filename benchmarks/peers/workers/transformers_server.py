"""`transformers serve` with continuous batching, through its API of text completions.

The API takes and returns text. The served copy of the checkpoint therefore has a tokenizer whose
words are the decimal token ids. A prompt is exactly the ids that all engines get, and each new
token is one word, in an event of its own.
"""

import json
import math
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peers.workers.http_worker import HttpWorker
from peers.workers.loop import run_worker
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

# Positions of a cache block, and the share of the blocks that admitted prompts may fill: the
# scheduler holds prompts back while less than 15 % are free.
_BLOCK, _FILLED = 256, 0.8
# Tokens of a step. Its attention covers all prompts at once, whose pairs are then masked, so that
# the default of 8192 takes longer and 1 GB more.
_BATCH = 2048
# -1 is no token's id, so that no answer ends early.
_GENERATION = {"eos_token_id": -1, "pad_token_id": 0, "do_sample": False}


class TransformersServer(HttpWorker):
    """Server of the checkpoint in fp32, with paged attention of PyTorch's sdpa."""

    def prepare(self) -> None:
        """Copy the checkpoint, with a tokenizer of decimal token ids."""
        self._model.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "model.safetensors"):
            link = self._model / name
            if not link.exists():
                link.symlink_to((self.setup.checkpoint / name).resolve())
        words = {str(token): token for token in range(int(self._config["vocab_size"]))}
        tokenizer = Tokenizer(WordLevel(words))
        tokenizer.pre_tokenizer = WhitespaceSplit()
        tokenizer.save(str(self._model / "tokenizer.json"))
        self._write("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
        self._write("generation_config.json", _GENERATION)

    def step_bytes(self) -> int:
        """Return the bytes of all weights but the position embeddings."""
        size = (self.setup.checkpoint / "model.safetensors").stat().st_size
        return size - self.setup.position_bytes

    @property
    def _model(self) -> Path:
        return self.setup.folder / "words"

    @property
    def _config(self) -> dict[str, Any]:
        text = (self.setup.checkpoint / "config.json").read_text(encoding="utf-8")
        config: dict[str, Any] = json.loads(text)
        return config

    def _write(self, name: str, content: dict[str, Any]) -> None:
        (self._model / name).write_text(json.dumps(content), encoding="utf-8")

    def _command(self, host: str, port: int) -> list[str]:
        setup = self.setup
        # PyTorch's threads have no option of their own; the copy needs nothing from the Hub.
        variables = [f"OMP_NUM_THREADS={setup.threads}", "HF_HUB_OFFLINE=1"]
        program = str(Path(sys.executable).with_name("transformers"))
        blocks = math.ceil(setup.streams * math.ceil(setup.capacity / _BLOCK) / _FILLED)
        options = ["--continuous-batching", "--cb-num-blocks", str(blocks)]
        options += ["--cb-max-batch-tokens", str(_BATCH)]
        options += ["--device", "cpu", "--dtype", "float32", "--host", host, "--port", str(port)]
        return ["env", *variables, program, "serve", str(self._model), *options]

    def _describe(self) -> dict[str, Any]:
        return {"version": f"transformers {version('transformers')}"}

    def _tokens(self, prompt: list[int], new_tokens: int) -> Iterator[int]:
        """Yield 1 for each event with a word."""
        words = " ".join(map(str, prompt))
        body = {"prompt": words, "max_tokens": new_tokens, "stream": True}
        for line in self._post_lines("/v1/completions", body):
            if not line.startswith(b"data: "):
                continue
            event = json.loads(line[len(b"data: ") :])
            if "error" in event:
                raise RuntimeError(event["error"])
            if event["choices"][0]["text"]:
                yield 1


if __name__ == "__main__":
    run_worker(TransformersServer)
