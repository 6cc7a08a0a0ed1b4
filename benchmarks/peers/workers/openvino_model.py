"""Conversion and loading of a checkpoint for OpenVINO GenAI."""

import subprocess
import sys
from pathlib import Path
from typing import Any

_FORMATS = {
    "int8": ["--weight-format", "int8"],
    "int4": ["--weight-format", "int4", "--sym", "--group-size", "128", "--ratio", "1.0"],
}
_CACHE_GB = 2


def convert(checkpoint: Path, folder: Path, variant: str) -> Path:
    """Return the checkpoint in a format such as int4, converted if needed."""
    target = folder / f"openvino-{variant}"
    if target.exists():
        return target
    draft = target.with_suffix(".draft")
    command = [str(Path(sys.executable).with_name("optimum-cli")), "export", "openvino"]
    command += ["--model", str(checkpoint), "--task", "text-generation-with-past"]
    command += [*_FORMATS[variant], str(draft)]
    completed = subprocess.run(command, stdout=sys.stderr, check=False)
    if completed.returncode:
        raise RuntimeError(f"optimum-cli failed with {completed.returncode}, see the log")
    draft.rename(target)
    return target


def open_pipeline(
    model: Path, *, threads: int, streams: int, capacity: int, properties: dict[str, Any]
) -> Any:
    """Return a pipeline whose cache has room for all streams."""
    import openvino_genai  # noqa: PLC0415 - the conversion does not need it

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_seqs = streams
    scheduler.max_num_batched_tokens = streams * capacity
    scheduler.cache_size = _CACHE_GB
    scheduler.enable_prefix_caching = True
    scheduler.dynamic_split_fuse = False
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", **properties}
    return openvino_genai.ContinuousBatchingPipeline(str(model), scheduler, "CPU", settings)


def step_bytes(model: Path) -> int:
    """Return the bytes of all weights but the position embeddings."""
    import openvino  # noqa: PLC0415 - as above

    graph = openvino.Core().read_model(model / "openvino_model.xml")
    constants = [node for node in graph.get_ops() if node.get_type_name() == "Constant"]
    return sum(
        int(node.get_byte_size()) for node in constants if "wpe" not in node.get_friendly_name()
    )
