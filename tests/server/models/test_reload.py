"""Reload of settings and bundles; a mistake keeps the old models."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.support.bundles import copy_bundle, copy_damaged_bundle, swap_bundle
from tests.support.run_gate import closed_gate
from tests.support.running_server import PROMPT, RunningServer, greedy, serving
from tests.support.waiting import until

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server import ConfigSource
from gpt2flow.server.models.reload import Reloader

pytestmark = pytest.mark.process

LONG = pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(60))
ENGINE = "port = 0\n[engine]\nthreads = 1\nmax_sequences = 6\n"
_POLL = 0.05


def entry(name: str, path: Path, *lines: str) -> str:
    return "\n".join(["[[models]]", f'name = "{name}"', f'path = "{path}"', *lines, ""])


@dataclass
class Reloading:
    """Server with its settings file, its reloader and its captured log.

    Attributes:
        checks: Number of times that the reloader has read the state of the files.
    """

    running: RunningServer
    reloader: Reloader
    file: Path
    bundle: Path
    log: list[Any]
    checks: int = 0

    def __post_init__(self) -> None:
        stamp = self.reloader._stamp

        async def counted() -> Any:
            found = await stamp()
            self.checks += 1
            return found

        self.reloader._stamp = counted  # type: ignore[method-assign]

    def write(self, *parts: str) -> None:
        """Replace the settings file by renaming, as an editor does."""
        draft = self.file.with_suffix(".draft")
        draft.write_text(ENGINE + "".join(parts))
        draft.replace(self.file)

    async def event(self, *events: str) -> Any:
        """Wait for one of these events; remove the log up to it."""
        await until(lambda: any(line["event"] in events for line in self.log))
        i = next(i for i, line in enumerate(self.log) if line["event"] in events)
        line = self.log[i]
        del self.log[: i + 1]
        return line

    async def reload_event(self) -> Any:
        return await self.event("reloaded", "reload_failed")

    async def checked(self, times: int = 1) -> None:
        """Wait for further checks of the files."""
        due = self.checks + times
        await until(lambda: self.checks >= due)


@asynccontextmanager
async def start(bundle: Path, tmp_path: Path, *, watch: bool) -> AsyncIterator[Reloading]:
    place = Path(shutil.copytree(bundle, tmp_path / "place"))
    file = tmp_path / "server.toml"
    file.write_text(ENGINE + entry("first", place))
    source = ConfigSource(file=file, given={"host": "127.0.0.1"})
    config = source.read()
    async with serving(config) as running:
        reloader = Reloader(
            running.server.registry, config, source.read, file if watch else None, _POLL
        )
        with capture_logs() as log:
            reloading = Reloading(running, reloader, file, place, log)
            task = asyncio.create_task(reloader.run())
            # Later changes differ from what this check has found.
            await reloading.checked()
            yield reloading
            assert not task.done()
            task.cancel()


@pytest.fixture
async def watched(bundle: Path, tmp_path: Path) -> AsyncIterator[Reloading]:
    async with start(bundle, tmp_path, watch=True) as reloading:
        yield reloading


@pytest.fixture
async def unwatched(bundle: Path, tmp_path: Path) -> AsyncIterator[Reloading]:
    async with start(bundle, tmp_path, watch=False) as reloading:
        yield reloading


def names(running: RunningServer) -> list[str]:
    return [model.name for model in running.server.registry.models]


async def test_the_settings_file_adds_replaces_and_removes_models(
    watched: Reloading, tmp_path: Path
) -> None:
    watched.write(entry("second", watched.bundle), entry("first", watched.bundle))
    line = await watched.reload_event()
    assert (line["added"], line["replaced"], line["removed"]) == (["second"], [], [])
    assert names(watched.running) == ["second", "first"]
    watched.write(entry("second", copy_bundle(watched.bundle, tmp_path / "new", run="2")))
    line = await watched.reload_event()
    assert (line["added"], line["replaced"], line["removed"]) == ([], ["second"], ["first"])
    watched.write(entry("second", tmp_path / "new", "max_sequences = 2"))
    assert (await watched.reload_event())["replaced"] == ["second"]
    assert watched.running.model.limits.max_sequences == 2


async def test_another_bundle_in_the_same_place_is_loaded(
    watched: Reloading, tmp_path: Path
) -> None:
    before = watched.running.model.bundle.fingerprint
    swap_bundle(copy_bundle(watched.bundle, tmp_path / "new", run="2"), watched.bundle)
    assert (await watched.reload_event())["replaced"] == ["first"]
    assert watched.running.model.bundle.fingerprint != before


async def test_a_damaged_bundle_keeps_the_old_model(watched: Reloading, tmp_path: Path) -> None:
    old = watched.running.model
    damaged = copy_damaged_bundle(
        copy_bundle(watched.bundle, tmp_path / "new", run="2"), tmp_path / "bad"
    )
    with closed_gate(old.engine) as gate:
        calls = [watched.running.stub.GenerateStream(LONG) for _ in range(4)]
        await gate.until_unfinished(4)
        swap_bundle(damaged, watched.bundle)
        line = await watched.reload_event()
        assert (line["event"], line["log_level"]) == ("reload_failed", "error")
        assert "model.onnx.data does not match the hash" in line["reason"]
    for call in calls:
        rest = [message async for message in call]
        assert rest[-1].end.result.usage.completion_tokens == 60
        assert rest[-1].end.fingerprint == old.bundle.fingerprint
    assert watched.running.model is old
    await watched.checked(5)
    # The failure is logged once.
    assert "reload_failed" not in {line["event"] for line in watched.log}
    swap_bundle(tmp_path / "new", watched.bundle)
    assert (await watched.reload_event())["replaced"] == ["first"]


@pytest.mark.parametrize(
    "text,message",
    [
        (lambda path: entry("first", path, "[["), "is not TOML"),
        (lambda path: entry("first", path, "threads = 0"), "models[0].threads is 0, must be in"),
        (lambda path: entry("first", path / "x"), "x is not a directory"),
        (lambda path: entry("first", path, f'fingerprint = "{"0" * 64}"'), "must have 000"),
        (lambda path: entry("first", path, "kv_cache_memory = 1"), "kv_cache_memory is 1 bytes"),
        (lambda _: "", "no model given"),
    ],
)
async def test_a_mistake_keeps_the_old_models(
    unwatched: Reloading, text: Callable[[Path], str], message: str
) -> None:
    old = unwatched.running.model
    unwatched.write(text(unwatched.bundle))
    unwatched.reloader.trigger()
    line = await unwatched.reload_event()
    assert message in line["reason"]
    assert "\n" not in line["reason"]
    assert unwatched.running.model is old
    unwatched.write(entry("first", unwatched.bundle, "max_sequences = 2"))
    unwatched.reloader.trigger()
    assert (await unwatched.reload_event())["replaced"] == ["first"]


async def test_settings_that_need_a_restart_are_named(unwatched: Reloading) -> None:
    unwatched.write(entry("first", unwatched.bundle))
    others = "\n[connections]\nmax_age_seconds = 60\n[engine.requests]\nmessage_bytes = 99999\n"
    text = unwatched.file.read_text().replace("port = 0", "port = 1")
    unwatched.file.write_text(text + others)
    unwatched.reloader.trigger()
    expected = ["port", "connections", "engine.requests.message_bytes"]
    assert (await unwatched.event("needs_restart"))["settings"] == expected


async def test_a_requested_reload_loads_a_changed_bundle(
    unwatched: Reloading, tmp_path: Path
) -> None:
    swap_bundle(copy_bundle(unwatched.bundle, tmp_path / "new", run="2"), unwatched.bundle)
    await asyncio.sleep(4 * _POLL)
    assert unwatched.log == []  # Without a settings file nothing is watched.
    unwatched.reloader.trigger()
    assert (await unwatched.reload_event())["replaced"] == ["first"]


async def test_a_changed_list_of_choices_is_read_again(watched: Reloading, tmp_path: Path) -> None:
    articles = tmp_path / "articles.txt"
    articles.write_text("cup\nhat\n")
    table = f'[models.choices]\narticles = "{articles.name}"\n'
    watched.write(entry("first", watched.bundle), table)
    assert (await watched.reload_event())["replaced"] == ["first"]
    assert watched.running.model.choices["articles"].entries == 2
    articles.write_text("cup\nhat\ncap\n")
    assert (await watched.reload_event())["replaced"] == ["first"]
    assert watched.running.model.choices["articles"].entries == 3


async def test_a_bad_list_of_choices_keeps_the_old_one(watched: Reloading, tmp_path: Path) -> None:
    articles = tmp_path / "articles.txt"
    articles.write_text("cup\nhat\n")
    watched.write(
        entry("first", watched.bundle), f'[models.choices]\narticles = "{articles.name}"\n'
    )
    assert (await watched.reload_event())["replaced"] == ["first"]
    articles.write_text("cup\nhat\ncup\n")
    line = await watched.reload_event()
    assert line["event"] == "reload_failed"
    assert line["reason"] == f"choices 'articles': {articles}, line 3 repeats line 1: 'cup'"
    assert watched.running.model.choices["articles"].entries == 2
    articles.unlink()
    line = await watched.reload_event()
    assert line["reason"].startswith(f"choices 'articles': {articles} cannot be read: ")
