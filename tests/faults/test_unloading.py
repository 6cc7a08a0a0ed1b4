"""Repeated reloads: an unloaded model releases all of its resources."""

import json
import shutil
import signal
from pathlib import Path

from tests.support.fault_client import assert_nothing_left, canary
from tests.support.project import SHIPPED_BUNDLE
from tests.support.server_process import ServerProcess, server_process
from tests.support.waiting import eventually

WARM_UP, RELOADS = 3, 20
# Bytes. Fragmentation takes about 30 MB in the end, however many reloads there are, and part of it
# before the first measurement. The leaked models would take about 400 MB.
_MAX_GROWTH = 60 * 2**20


def unloaded(server: ServerProcess) -> int:
    """Return the number of models unloaded so far."""
    return len(server.events("unloaded"))


def replace(server: ServerProcess, bundle: Path, run: int) -> None:
    """Make the server load a changed bundle and unload the previous one."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["training"]["run"] = str(run)
    draft = bundle / "manifest.draft"
    draft.write_text(json.dumps(manifest))
    draft.replace(bundle / "manifest.json")
    before = unloaded(server)
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: unloaded(server) > before)


def test_repeated_reloads_leak_nothing(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(SHIPPED_BUNDLE, bundle)
    with server_process(bundle, tmp_path) as server:
        answer = canary(server.address)
        for run in range(WARM_UP):
            replace(server, bundle, run)
            assert canary(server.address) == answer
        before = server.baseline()
        for run in range(WARM_UP, WARM_UP + RELOADS):
            replace(server, bundle, run)
            assert canary(server.address) == answer
        # Memory is released a moment after the model is unloaded.
        limit = before.rss + _MAX_GROWTH
        eventually(lambda: server.footprint().rss < limit, server.footprint)
        assert_nothing_left(server, before)
