"""Reference model: the checkpoint in fp32 PyTorch, the oracle of all checks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.checkpoint.checkpoint import Checkpoint
from gpt2flow.export.errors import ExportError, first_line


class ReferenceModel:
    """transformers' model of a checkpoint, run on whole windows without a past."""

    def __init__(self, source: Checkpoint) -> None:
        """Load the model.

        Raises:
            ExportError: transformers cannot load the checkpoint.
        """
        # Imports torch and transformers, which takes seconds.
        from gpt2flow.export.checkpoint.torch_model import (  # noqa: PLC0415
            load_torch_model,
            quiet_libraries,
        )

        self._heads = source.architecture.heads
        try:
            with quiet_libraries():
                model = load_torch_model(source)
        except ExportError:
            raise
        except Exception as error:  # It raises errors of any kind.
            raise ExportError(
                f"transformers cannot load {source.directory}: {first_line(error)}"
            ) from error
        self._model = model.requires_grad_(requires_grad=False)

    def logits(self, tokens: TokenArray) -> FloatArray:
        """Return the logits after each token, float32 [tokens, vocabulary]."""
        logits: FloatArray = self._model.lm_head(self._hidden(tokens))[0].numpy()
        return logits

    def keys_and_values(self, tokens: TokenArray) -> list[tuple[FloatArray, FloatArray]]:
        """Return keys and values per layer, float32 [heads, tokens, head_size] each."""
        with self._recorded_projections() as projections:
            self._hidden(tokens)
        return [self._split(projected) for projected in projections]

    def _hidden(self, tokens: TokenArray) -> Any:
        """Return the output of the last norm, float32 [1, tokens, channels]."""
        import torch  # noqa: PLC0415 - as above

        row = torch.from_numpy(tokens)[None]
        return self._model.transformer(row, use_cache=False).last_hidden_state

    @contextmanager
    def _recorded_projections(self) -> Iterator[list[Any]]:
        """Record each layer's queries, keys and values within a `with` block.

        Yields:
            Their tensors, float32 [1, tokens, 3 * channels], in the order of the layers.
        """
        recorded: list[Any] = []
        hooks = [
            layer.attn.c_attn.register_forward_hook(
                lambda _module, _inputs, projected: recorded.append(projected)
            )
            for layer in self._model.transformer.h
        ]
        try:
            yield recorded
        finally:
            for hook in hooks:
                hook.remove()

    def _split(self, projected: Any) -> tuple[FloatArray, FloatArray]:
        """Return the keys and values of a projection, by head."""
        _, tokens, channels = projected.shape
        parts = projected.view(tokens, 3, self._heads, channels // 3 // self._heads)
        _, key, value = parts.permute(1, 2, 0, 3).numpy()
        return key, value
