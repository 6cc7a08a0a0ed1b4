"""Each room imports only what the table of rooms allows."""

import ast
from pathlib import Path

import pytest

import gpt2flow.server.errors

SERVER = Path(gpt2flow.server.errors.__file__).parent

# What a room may import of the other rooms. What those may import, it may too.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "caller": set(),
    "request_limits": {"errors"},
    "config": {"errors", "request_limits"},
    "manifest": {"errors"},
    "params": {"errors", "request_limits"},
    "sequence": {"params"},
    "results": {"errors", "sequence"},
    "histogram": set(),
    "tracebacks": set(),
    "log": {"config", "tracebacks"},
    "kv_cache": {"sequence"},
    "waiting": {"sequence"},
    "scheduler": {"sequence", "kv_cache", "waiting"},
    "forecast": {"sequence", "kv_cache"},
    "model_runner": {"config", "sequence"},
    "ranking": set(),
    "logits": {"params", "ranking"},
    "sampler": {"params", "logits"},
    "beam_search": {"sequence", "kv_cache", "params"},
    "constraint": {"params", "tokenizer"},
    "grammar_worker": set(),
    "grammar_process": {"errors"},
    "grammar_line": {"errors", "params", "forecast"},
    "grammar_trials": {"constraint", "grammar_process", "grammar_line"},
    "tokenizer": set(),
    "generation": {"results", "sampler", "beam_search", "constraint", "tokenizer"},
    "engine_stats": {"histogram", "scheduler"},
    "engine": {
        "config",
        "scheduler",
        "forecast",
        "model_runner",
        "generation",
        "engine_stats",
    },
    "async_engine": {"engine"},
    "task_factory": {"generation"},
    "memory": set(),
    "model": {"memory", "manifest", "async_engine", "task_factory", "grammar_trials"},
    "registry": {"model"},
    "config_file": {"config"},
    "reload": {"registry"},
    "telemetry": {"model"},
    "permissions": {"caller", "params"},
    "watched_files": {"errors"},
    "certificates": {"errors"},
    "tokens": {"caller", "params"},
    "servicer": {"registry", "telemetry", "permissions", "watched_files", "certificates", "tokens"},
    "app": {"servicer", "log", "reload", "config_file"},
    "__init__": {"app"},
}
# Libraries that one room alone may know.
ALONE = {
    "onnxruntime": {"model_runner"},
    "llguidance": {"constraint", "grammar_worker"},
    "tokenizers": {"tokenizer"},
}
PROTOBUF = ("google", "gpt2flow.inference", "grpc_health", "grpc_reflection", "grpc_status")


def room_of(path: Path) -> str:
    return path.relative_to(SERVER).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def allowed(room: str) -> set[str]:
    return {room}.union(*(allowed(other) for other in ROOMS[room]))


FILES = sorted(SERVER.rglob("*.py"))


def test_the_table_names_every_room() -> None:
    assert {room_of(path) for path in FILES} == set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SERVER)))
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    room = room_of(path)
    for name in imports(path):
        if name.startswith("gpt2flow.server."):
            other = name.split(".")[2]
            assert other in allowed(room), f"{room} imports {name}"
        library = name.partition(".")[0]
        assert room in ALONE.get(library, {room}), f"{room} imports {name}"
        if name.startswith(PROTOBUF):
            assert room == "servicer", f"{room} knows protobuf: {name}"
        if library in {"grpc", "grpc_health"}:
            assert room in {"servicer", "app"}, f"{room} knows gRPC: {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SERVER)))
def test_no_file_grows_into_two_rooms(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
