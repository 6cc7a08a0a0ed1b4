"""Runner of a serving graph on slots of a KV cache.

No other module of the server imports onnxruntime.
"""

import math
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from gpt2flow.native.library import Operators, load_operators
from gpt2flow.server.errors import ConfigError

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.intp]

_ERRORS_ONLY: Final = 3
_PAST: Final = "past_key_values."
_PRESENT: Final = "present."
# Metadata of every serving graph.
_VOCABULARY_SIZE: Final = "vocabulary_size"
# Positions whose keys lie side by side.
_BLOCK: Final = 16
# One token's logit costs this many times as much alone as within the whole head.
_RESTRICTED_COST: Final = 32
_ALL_IDS: Final = np.empty(0, np.int64)
# The choice of operators is the process's, and a session takes it when it opens.
_LOADING: Final = threading.Lock()


class RunnerError(Exception):
    """The graph cannot be loaded, or is not a serving graph."""


class ModelRunner:
    """One model and its KV cache.

    The cache has an array of keys and one of values per layer, in the layout of
    `native/src/attention.h`. The graph updates it in place: past and present
    are bound to the same memory. Not thread-safe: one thread runs it.

    Attributes:
        slots: Number of slots of the cache.
        slot_bytes: Memory of a slot.
        vocabulary_size: Number of logits per row.
        max_logit_ids: Most token ids for which restricted logits are cheaper.
        operators: Operators that the graph runs on.
    """

    def __init__(
        self,
        model: Path,
        *,
        slots: int,
        capacity: int,
        threads: int,
        memory: int | None = None,
        kernels: str | None = None,
    ) -> None:
        """Load the graph and reserve the cache.

        Pages of the cache are committed when they are written.

        Args:
            model: Path of the graph.
            slots: Most slots of the cache.
            capacity: Positions per slot.
            threads: Threads per run.
            memory: Most bytes of the cache, to which slots are reduced; None is no limit.
            kernels: Name of the operators' kernels; see `load_operators`.

        Raises:
            RunnerError: onnxruntime cannot load it.
            ConfigError: The memory does not hold one slot, or the processor cannot run the kernels.
        """
        with _LOADING:
            try:
                self.operators = load_operators(kernels)
            except ValueError as error:
                raise ConfigError(str(error)) from error
            try:
                self._session = _open(model, threads, self.operators)
            except Exception as error:  # onnxruntime raises many kinds, without a common base.
                raise RunnerError(f"{model} cannot be loaded: {error}") from error
        facts: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        if _VOCABULARY_SIZE not in facts:
            raise RunnerError(f"{model} is not a serving graph; gpt2flow export writes one")
        self._capacity = capacity
        parts = {
            node.name.removeprefix(_PAST): (_slot_shape(node, capacity), _numpy_type(node.type))
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
        self._cache = {
            name: np.zeros((self.slots, *shape), kind) for name, (shape, kind) in parts.items()
        }
        self.vocabulary_size = int(facts[_VOCABULARY_SIZE])
        self.max_logit_ids = self.vocabulary_size // _RESTRICTED_COST
        self._binding = self._bind_cache()

    def run(
        self,
        tokens: Sequence[int],
        slots: Sequence[int],
        positions: Sequence[int],
        rows: Sequence[int],
        ids: Ids | None = None,
    ) -> Floats:
        """Run new tokens of any sequences.

        The keys and values of all tokens are written before any token attends to its slot's
        positions up to its own. A position must have been filled by this run or an earlier one.

        Args:
            tokens: Token ids, at least one.
            slots: Slot of each token's sequence.
            positions: Position of each token in its sequence.
            rows: Indices of the tokens whose logits are returned.
            ids: Token ids to restrict the logits to, one to `max_logit_ids`; None is all.

        Returns:
            Logits, [rows, ids or vocabulary].

        Raises:
            ValueError: A slot has no room for a token.
        """
        if max(positions) >= self._capacity:
            raise ValueError(
                f"position {max(positions)} exceeds the slot's capacity {self._capacity}"
            )
        inputs = {
            "input_ids": np.array(tokens, np.int64),
            "slots": np.array(slots, np.int64),
            "positions": np.array(positions, np.int64),
            "logits_rows": np.array(rows, np.int64),
            "logit_ids": _ALL_IDS if ids is None else np.asarray(ids, np.int64),
        }
        for name, array in inputs.items():
            self._binding.bind_cpu_input(name, array)
        columns = self.vocabulary_size if ids is None else len(ids)
        logits = np.empty((len(rows), columns), np.float32)
        self._binding.bind_ortvalue_output("logits", ort.OrtValue.ortvalue_from_numpy(logits))
        self._session.run_with_iobinding(self._binding)
        return logits

    def copy(self, copies: Iterable[tuple[int, int, int, int]]) -> None:
        """Copy positions of slots, each given as (source, target, start, stop).

        The positions before `start` must be equal in both slots: keys are copied in whole blocks.
        """
        for source, target, start, stop in copies:
            for array in self._cache.values():
                is_keys = array.ndim == 6
                span = slice(start // _BLOCK, -(-stop // _BLOCK)) if is_keys else slice(start, stop)
                array[target, :, span] = array[source, :, span]

    def _bind_cache(self) -> ort.IOBinding:
        """Return a binding whose past and present are the cache."""
        binding = self._session.io_binding()
        for name, array in self._cache.items():
            value = ort.OrtValue.ortvalue_from_numpy(array)
            binding.bind_ortvalue_input(_PAST + name, value)
            binding.bind_ortvalue_output(_PRESENT + name, value)
        return binding


def _open(model: Path, threads: int, operators: Operators) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # Threads spin while a run lasts, for speed, and sleep between runs: idle is idle.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if operators.library:
        options.register_custom_ops_library(str(operators.library))
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _slot_shape(node: ort.NodeArg, capacity: int) -> tuple[int, ...]:
    """Return the shape of a slot's keys or values."""
    heads, *inner = node.shape[1:]
    blocks = -(-capacity // _BLOCK)
    if len(node.shape) == 4:  # values
        return heads, blocks * _BLOCK, inner[1]
    return heads, blocks, *inner[1:]


def _numpy_type(onnx_type: str) -> np.dtype[np.generic]:
    """Return the type of a cache array."""
    return np.dtype({"tensor(float)": "float32", "tensor(int8)": "int8"}[onnx_type])
