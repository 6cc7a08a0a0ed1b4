"""Compared engines, with the measurements that each supports."""

from dataclasses import dataclass

STREAMS = frozenset({"x1", "x4", "x8", "x16"})
BEAMS = frozenset({"beam4"})
TURN = frozenset({"turn"})
MEMORY = frozenset({"memory"})


@dataclass(frozen=True)
class Engine:
    """One row of the table.

    Attributes:
        key: Name for `--only` and in the JSON report.
        title: Name in the table and the plot.
        environment: Name of its requirements file and virtual environment; None for gpt2flow.
        worker: Module in `peers.workers` that runs it.
        variant: Weights and mode to run, in the worker's notation.
        supported: Keys of the measurements that it supports.
    """

    key: str
    title: str
    environment: str | None
    worker: str
    variant: str
    supported: frozenset[str]

    @property
    def is_peer(self) -> bool:
        """True for an engine of another project."""
        return self.environment is not None


_SERVED = STREAMS | BEAMS | TURN | MEMORY
_LLAMA, _LLAMA_SERVER, _OPENVINO = "llama-cpp", "llama_server", "openvino"

ENGINES = [
    Engine("gpt2flow-int8", "gpt2flow int8, gRPC", None, "gpt2flow_server", "int8", _SERVED),
    Engine("gpt2flow-int4", "gpt2flow int4, gRPC", None, "gpt2flow_server", "int4", _SERVED),
    Engine(
        "gpt2flow-int4-speculative",
        "gpt2flow int4, gRPC, speculative",
        None,
        "gpt2flow_server",
        "int4 speculative",
        frozenset({"x1"}),
    ),
    Engine("engine-int8", "its int8 engine, no gRPC", None, "gpt2flow_engine", "int8", STREAMS),
    Engine("engine-int4", "its int4 engine, no gRPC", None, "gpt2flow_engine", "int4", STREAMS),
    Engine("graph-int8", "its int8 graph alone", None, "gpt2flow_graph", "int8", STREAMS),
    Engine("graph-int4", "its int4 graph alone", None, "gpt2flow_graph", "int4", STREAMS),
    Engine(
        "transformers", "transformers fp32", "transformers", "huggingface", "fp32", STREAMS | BEAMS
    ),
    Engine(
        "optimum-int8", "Optimum dynamic int8", "optimum", "huggingface", "int8", STREAMS | BEAMS
    ),
    Engine(
        "ctranslate2-int8", "CTranslate2 int8", "ctranslate2", "ctranslate", "int8", STREAMS | BEAMS
    ),
    Engine("llama-cpp-q8_0", "llama.cpp Q8_0", _LLAMA, "llama_cpp", "q8_0", STREAMS),
    Engine("llama-cpp-q4_0", "llama.cpp Q4_0", _LLAMA, "llama_cpp", "q4_0", STREAMS),
    Engine(
        "llama-server-q8_0",
        "llama-server Q8_0, HTTP",
        _LLAMA,
        _LLAMA_SERVER,
        "q8_0",
        STREAMS | TURN | MEMORY,
    ),
    Engine(
        "llama-server-q4_0",
        "llama-server Q4_0, HTTP",
        _LLAMA,
        _LLAMA_SERVER,
        "q4_0",
        STREAMS | TURN | MEMORY,
    ),
    Engine(
        "openvino-int8",
        "OpenVINO GenAI int8",
        _OPENVINO,
        "openvino_genai",
        "int8",
        STREAMS | BEAMS | TURN,
    ),
    Engine(
        "openvino-int4",
        "OpenVINO GenAI int4",
        _OPENVINO,
        "openvino_genai",
        "int4",
        STREAMS | BEAMS | TURN,
    ),
]
