"""Runner of a serving graph on slots of a KV cache.

No other module of the server imports onnxruntime.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from gpt2flow.server.errors import ConfigError

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.intp]

_ERRORS_ONLY: Final = 3
_PAST: Final = "past_key_values."
_PRESENT: Final = "present."
# One token's logit costs this many times as much alone as within the whole head.
_RESTRICTED_COST: Final = 32
_ALL_IDS: Final = np.empty(0, np.int64)


class RunnerError(Exception):
    """The graph cannot be loaded, or is not a serving graph."""


class ModelRunner:
    """One model, its KV cache, and the bindings between them.

    The cache has an array [slots, heads, capacity, head_size] per layer for keys, and one for
    values. The graph updates it in place: past and present are bound to the same memory. Not
    thread-safe: one thread runs it.

    Attributes:
        slots: Number of slots of the cache.
        slot_bytes: Memory of a slot.
        vocabulary_size: Number of logits per row.
        max_logit_ids: Most token ids for which restricted logits are cheaper; 0 where the graph
            has none.
    """

    def __init__(
        self, model: Path, *, slots: int, capacity: int, threads: int, memory: int | None = None
    ) -> None:
        """Load the graph and reserve the cache.

        Pages of the cache are committed when they are written.

        Args:
            model: Path of the graph.
            slots: Most slots of the cache.
            capacity: Positions per slot.
            threads: Threads per run.
            memory: Most bytes of the cache, to which slots are reduced; None is no limit.

        Raises:
            RunnerError: onnxruntime cannot load it.
            ConfigError: The memory does not hold one slot.
        """
        try:
            self._session = _open(model, threads)
        except Exception as error:  # onnxruntime raises many kinds, all without a common base.
            raise RunnerError(f"{model} cannot be loaded: {error}") from error
        parts = {
            node.name.removeprefix(_PAST): (
                (node.shape[1], capacity, node.shape[3]),
                _numpy_type(node.type),
            )
            for node in self._session.get_inputs()
            if node.name.startswith(_PAST)
        }
        self.slot_bytes = sum(math.prod(shape) * kind.itemsize for shape, kind in parts.values())
        self.slots = slots if memory is None else min(slots, memory // self.slot_bytes)
        if self.slots == 0:
            raise ConfigError(
                f"kv_cache_memory is {memory} bytes, must be at least {self.slot_bytes}: "
                f"the size of one sequence of {capacity} positions in {model}"
            )
        self._capacity = capacity
        self._cache = {
            name: np.zeros((self.slots, *shape), kind) for name, (shape, kind) in parts.items()
        }
        self.vocabulary_size = _vocabulary_size(self._session)
        self._restricts = any(node.name == "logits_ids" for node in self._session.get_inputs())
        self._has_logsumexp = any(node.name == "logsumexp" for node in self._session.get_outputs())
        self.max_logit_ids = self.vocabulary_size // _RESTRICTED_COST if self._restricts else 0
        self._logits = np.zeros((self.slots, self.vocabulary_size), np.float32)
        self._slot_bindings: dict[int, ort.IOBinding] = {}
        self._steps: dict[int, _DecodeStep] = {}

    def run_chunk(
        self,
        slot: int,
        tokens: Sequence[int],
        past: int,
        rows: Sequence[int],
        ids: Ids | None = None,
    ) -> tuple[Floats, Floats | None]:
        """Run several tokens of one sequence.

        Args:
            slot: Slot of its keys and values, to which the new ones are appended.
            tokens: Token ids after the first `past` ones.
            past: Number of filled positions of the slot.
            rows: Indices into `tokens`: positions whose logits are returned.
            ids: Token ids to restrict the logits to, one to `max_logit_ids`; None is all.

        Returns:
            Logits [rows, ids or vocabulary], and the log-sum-exp [rows] of each row's logits.
            The latter is None if the logits are restricted or the graph has no such output.

        Raises:
            ValueError: The slot has no room for the tokens.
        """
        count = len(tokens)
        self._check_room(past + count)
        if slot not in self._slot_bindings:
            self._slot_bindings[slot] = self._bind_cache(slot, slot + 1)
        binding = self._slot_bindings[slot]
        binding.bind_cpu_input("input_ids", np.array([tokens], np.int64))
        binding.bind_cpu_input("position_ids", np.arange(past, past + count)[np.newaxis])
        binding.bind_cpu_input("seqlens_k", np.array([past + count - 1], np.int32))
        binding.bind_cpu_input("total_sequence_length", np.array(past + count, np.int32))
        binding.bind_cpu_input("logits_rows", np.array(rows, np.int64))
        self._bind_ids(binding, ids)
        columns = self.vocabulary_size if ids is None else len(ids)
        logits = np.empty((len(rows), columns), np.float32)
        return logits, self._run(binding, logits, np.empty(len(rows), np.float32), ids)

    def decode(
        self, tokens: Sequence[int], lengths: Sequence[int], ids: Ids | None = None
    ) -> tuple[Floats, Floats | None]:
        """Run one token of each of the first slots.

        Slots in between that are idle take part: their token is written to the position after
        the last, which is overwritten later.

        Args:
            tokens: Next token of each slot, from slot 0 on.
            lengths: Number of filled positions of each slot.
            ids: As in `run_chunk`.

        Returns:
            As `run_chunk`, with a row for each slot; valid until the next call.

        Raises:
            ValueError: A slot has no room for a token.
        """
        count = len(tokens)
        if count not in self._steps:
            self._steps[count] = _DecodeStep(self._bind_cache(0, count), count)
        step = self._steps[count]
        step.tokens[:, 0] = tokens
        step.positions[:, 0] = lengths
        step.seqlens[:] = lengths
        total = max(lengths) + 1
        self._check_room(total)
        step.total[...] = total
        self._bind_ids(step.binding, ids)
        logits = self._logits[:count] if ids is None else np.empty((count, len(ids)), np.float32)
        return logits, self._run(step.binding, logits, step.logsumexp, ids)

    def copy(self, copies: Iterable[tuple[int, int, int, int]]) -> None:
        """Copy positions of slots, each given as (source, target, start, stop)."""
        for source, target, start, stop in copies:
            span = slice(start, stop)
            for array in self._cache.values():
                array[target, :, span] = array[source, :, span]

    def _run(
        self, binding: ort.IOBinding, logits: Floats, logsumexp: Floats, ids: Ids | None
    ) -> Floats | None:
        """Run the graph with these arrays as its outputs; return the log-sum-exp."""
        binding.bind_ortvalue_output("logits", ort.OrtValue.ortvalue_from_numpy(logits))
        if self._has_logsumexp:
            binding.bind_ortvalue_output("logsumexp", ort.OrtValue.ortvalue_from_numpy(logsumexp))
        self._session.run_with_iobinding(binding)
        return logsumexp if self._has_logsumexp and ids is None else None

    def _check_room(self, positions: int) -> None:
        # The graph would return a larger buffer, and leave the cache as it was.
        if positions > self._capacity:
            raise ValueError(f"{positions} positions exceed the slot's capacity {self._capacity}")

    def _bind_ids(self, binding: ort.IOBinding, ids: Ids | None) -> None:
        if self._restricts:
            binding.bind_cpu_input("logits_ids", _ALL_IDS if ids is None else ids)

    def _bind_cache(self, start: int, stop: int) -> ort.IOBinding:
        """Return a binding whose past and present are the slots [start, stop)."""
        binding = self._session.io_binding()
        for name, array in self._cache.items():
            value = ort.OrtValue.ortvalue_from_numpy(array[start:stop])
            binding.bind_ortvalue_input(_PAST + name, value)
            binding.bind_ortvalue_output(_PRESENT + name, value)
        return binding


class _DecodeStep:
    """Binding of a decode step over `rows` slots, with its arrays."""

    def __init__(self, binding: ort.IOBinding, rows: int) -> None:
        self.binding = binding
        self.tokens = np.zeros((rows, 1), np.int64)
        self.positions = np.zeros((rows, 1), np.int64)
        self.seqlens = np.zeros(rows, np.int32)
        self.total = np.zeros((), np.int32)
        self.logsumexp = np.zeros(rows, np.float32)
        inputs = {
            "input_ids": self.tokens,
            "position_ids": self.positions,
            "seqlens_k": self.seqlens,
            "total_sequence_length": self.total,
            "logits_rows": np.arange(rows),
        }
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))


def _open(model: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # Threads spin while a run lasts, for speed, and sleep between runs: idle is idle.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _vocabulary_size(session: ort.InferenceSession) -> int:
    """Return the number of logits per row.

    Older graphs have it in the shape of their output.
    """
    facts: dict[str, str] = session.get_modelmeta().custom_metadata_map
    return int(facts.get("vocabulary_size", session.get_outputs()[0].shape[1]))


def _numpy_type(onnx_type: str) -> np.dtype[np.generic]:
    """Return the type of a cache array."""
    return np.dtype({"tensor(float)": "float32", "tensor(int8)": "int8"}[onnx_type])
