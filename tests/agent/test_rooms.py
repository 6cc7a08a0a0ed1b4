"""Imports between the rooms of the agent, and of its libraries."""

from pathlib import Path

import pytest
from tests.support.imports import imports

import gpt2flow.agent.errors

AGENT = Path(gpt2flow.agent.errors.__file__).parent

# Rooms at the bottom, and the rooms that they may import.
LOW: dict[str, set[str]] = {
    "errors": set(),
    "net": {"errors"},
    "telemetry": {"errors", "report"},
    "metrics": {"config", "errors", "net", "shop"},
    "delivery": {"config", "errors", "metrics", "net", "shop", "telemetry"},
}
# Rooms that no other room imports.
HIGH = {"delivery", "evaluation", "http"}
# Libraries that an extra or one task brings, and the only places that import them.
ALONE = {
    "opentelemetry": {"telemetry/otlp.py"},
    "playwright": {"hands"},
    "prometheus_client": {"delivery/observation.py", "http", "metrics"},
    "starlette": {"http", "payments/requests.py", "payments/service.py"},
    "uvicorn": {"payments/service.py"},
    "standardwebhooks": {"delivery/webhook.py", "http/signatures.py"},
    "aiosmtplib": {"delivery/mail.py"},
    "httpx": {"delivery/webhook.py", "net/addresses.py", "payments/http.py"},
}
FILES = sorted(AGENT.rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(AGENT).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(AGENT).parts[0].removesuffix(".py")


def rooms(path: Path) -> set[str]:
    """Return the other rooms of the agent that a module imports."""
    found = {each.split(".")[2] for each in imports(path) if each.startswith("gpt2flow.agent.")}
    return found - {room_of(path)}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    assert rooms(path) <= LOW.get(room_of(path), rooms(path) - HIGH)


@pytest.mark.parametrize("library", sorted(ALONE))
def test_a_library_has_its_place(library: str) -> None:
    users = {path for path in FILES if library in {each.split(".")[0] for each in imports(path)}}
    assert users
    places = ALONE[library]
    strays = {name(path) for path in users if not {name(path), room_of(path)} & places}
    assert not strays
