"""Imports between the rooms of the server, and of its libraries."""

from pathlib import Path

import pytest
from tests.support.imports import imports

import gpt2flow.server.errors

SERVER = Path(gpt2flow.server.errors.__file__).parent

# Rooms that a room may import; it may also import what these may.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "tokenizer": {"bundle"},
    "limits": {"config"},
    "params": {"limits"},
    "bundle": {"errors"},
    "config": {"errors"},
    "access": {"params"},
    "sampling": {"params"},
    "fair_queue": set(),
    "engine": {"sampling", "fair_queue"},
    "work_pool": {"engine"},
    "grammar": {"work_pool", "tokenizer"},
    "generation": {"grammar"},
    "models": {"generation", "bundle", "config"},
    "telemetry": {"models"},
    "servicer": {"telemetry", "access"},
    "kserve": {"servicer"},
    "app": {"servicer", "kserve"},
    "__init__": {"app"},
}
# Libraries, and the only modules that may import them.
ALONE = {
    "onnxruntime": {"bundle/model_runner.py"},
    "llguidance": {"grammar/constraint.py", "grammar/worker.py"},
    "tokenizers": {"bundle/decoder.py", "tokenizer/tokenizer.py", "tokenizer/variants.py"},
}
PROTOBUF = ("google", "gpt2flow.inference", "grpc_health", "grpc_reflection", "grpc_status")


def room_of(path: Path) -> str:
    return path.relative_to(SERVER).parts[0].removesuffix(".py")


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
        assert str(path.relative_to(SERVER)) in ALONE.get(
            library, {str(path.relative_to(SERVER))}
        ), f"{room} imports {name}"
        if name.startswith(PROTOBUF):
            assert room in {"servicer", "kserve"}, f"{room} imports protobuf: {name}"
        if library in {"grpc", "grpc_health"}:
            assert room in {"servicer", "kserve", "app"}, f"{room} imports gRPC: {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SERVER)))
def test_no_file_exceeds_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
