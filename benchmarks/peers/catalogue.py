"""Compared engines, with the measurements that each supports."""

from dataclasses import dataclass

STREAMS = frozenset({"x1", "x4", "x8", "x16", "long16"})
STARTUP = frozenset({"startup"})
BESIDE = frozenset({"beside8"})
BEAMS = frozenset({"beam4"})
TURN = frozenset({"turn"})
MEMORY = frozenset({"memory"})


@dataclass(frozen=True)
class Engine:
    """One row of the table.

    Attributes:
        key: Name for `--only` and in the JSON report.
        title: Name in the table and the plot.
        kind: How it is reached: through a server, as a library, or a part of gpt2flow.
        environment: Name of its requirements file and virtual environment; None for gpt2flow.
        worker: Module in `peers.workers` that runs it.
        variant: Weights and mode to run, in the worker's notation.
        supported: Keys of the measurements that it supports.
    """

    key: str
    title: str
    kind: str
    environment: str | None
    worker: str
    variant: str
    supported: frozenset[str]

    @property
    def is_peer(self) -> bool:
        """True for an engine of another project."""
        return self.environment is not None

    @property
    def name(self) -> str:
        """Title and kind, which no two engines share."""
        return f"{self.title}, {self.kind}"


_GRPC, _HTTP, _LIBRARY, _PART = "server, gRPC", "server, HTTP", "library", "part of gpt2flow"
_SERVED = STREAMS | BESIDE | MEMORY | STARTUP
_LOADED = STREAMS | STARTUP
_LLAMA, _LLAMA_SERVER, _OPENVINO = "llama-cpp", "llama_server", "openvino"
_OWN = _SERVED | BEAMS | TURN


def _own(key: str, title: str, worker: str, variant: str, supported: frozenset[str]) -> Engine:
    kind = _GRPC if worker == "gpt2flow_server" else _PART
    return Engine(key, title, kind, None, worker, variant, supported)


# vLLM has no row: on PyPI it is built for CUDA only.
ENGINES = [
    _own("gpt2flow-int8", "gpt2flow int8", "gpt2flow_server", "int8", _OWN),
    _own("gpt2flow-int4", "gpt2flow int4", "gpt2flow_server", "int4", _OWN),
    _own(
        "gpt2flow-int4-speculative",
        "gpt2flow int4, speculative",
        "gpt2flow_server",
        "int4 speculative",
        frozenset({"x1"}),
    ),
    _own("engine-int8", "its int8 engine", "gpt2flow_engine", "int8", STREAMS),
    _own("engine-int4", "its int4 engine", "gpt2flow_engine", "int4", STREAMS),
    _own("graph-int8", "its int8 graph", "gpt2flow_graph", "int8", STREAMS),
    _own("graph-int4", "its int4 graph", "gpt2flow_graph", "int4", STREAMS),
    Engine(
        "transformers",
        "transformers fp32",
        _LIBRARY,
        "transformers",
        "huggingface",
        "fp32",
        _LOADED | BEAMS,
    ),
    Engine(
        "transformers-serve",
        "transformers serve fp32",
        _HTTP,
        "transformers-serve",
        "transformers_server",
        "fp32",
        _SERVED,
    ),
    Engine(
        "optimum-int8",
        "Optimum dynamic int8",
        _LIBRARY,
        "optimum",
        "huggingface",
        "int8",
        _LOADED | BEAMS,
    ),
    Engine(
        "ctranslate2-int8",
        "CTranslate2 int8",
        _LIBRARY,
        "ctranslate2",
        "ctranslate",
        "int8",
        _LOADED | BEAMS,
    ),
    Engine("llama-cpp-q8_0", "llama.cpp Q8_0", _LIBRARY, _LLAMA, "llama_cpp", "q8_0", _LOADED),
    Engine("llama-cpp-q4_0", "llama.cpp Q4_0", _LIBRARY, _LLAMA, "llama_cpp", "q4_0", _LOADED),
    Engine(
        "llama-server-q8_0",
        "llama-server Q8_0",
        _HTTP,
        _LLAMA,
        _LLAMA_SERVER,
        "q8_0",
        _SERVED | TURN,
    ),
    Engine(
        "llama-server-q4_0",
        "llama-server Q4_0",
        _HTTP,
        _LLAMA,
        _LLAMA_SERVER,
        "q4_0",
        _SERVED | TURN,
    ),
    Engine(
        "openvino-int8",
        "OpenVINO GenAI int8",
        _LIBRARY,
        _OPENVINO,
        "openvino_genai",
        "int8",
        _LOADED | BESIDE | BEAMS | TURN,
    ),
    Engine(
        "openvino-int4",
        "OpenVINO GenAI int4",
        _LIBRARY,
        _OPENVINO,
        "openvino_genai",
        "int4",
        _LOADED | BESIDE | BEAMS | TURN,
    ),
    Engine(
        "openvino-server-int8",
        "OpenVINO GenAI int8",
        _HTTP,
        _OPENVINO,
        "openvino_server",
        "int8",
        _SERVED | TURN,
    ),
    Engine(
        "openvino-server-int4",
        "OpenVINO GenAI int4",
        _HTTP,
        _OPENVINO,
        "openvino_server",
        "int4",
        _SERVED | TURN,
    ),
]
