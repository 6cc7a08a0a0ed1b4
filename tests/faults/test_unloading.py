"""A model that is unloaded gives back what loading it took, each time."""

import json
import shutil
import signal
from pathlib import Path

from tests.support.fault_client import assert_serving, canary, eventually
from tests.support.project import SHIPPED_BUNDLE
from tests.support.server_process import ServerProcess, server_process

WARM_UP, TIMES = 3, 10
# Ten models that stay would take some 200 MB.
_MOST = 25 * 2**20


def unloaded(server: ServerProcess) -> int:
    """Return how many models have been unloaded so far."""
    events = [json.loads(line)["event"] for line in server.log.read_text().splitlines()]
    return events.count("unloaded")


def replace(server: ServerProcess, bundle: Path, run: int) -> None:
    """Has the server load a bundle that is new to it, and unload the one before."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["training"]["run"] = str(run)
    draft = bundle / "manifest.draft"
    draft.write_text(json.dumps(manifest))
    draft.replace(bundle / "manifest.json")
    before = unloaded(server)
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: unloaded(server) > before)


def test_models_that_come_and_go_leave_no_memory_behind(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(SHIPPED_BUNDLE, bundle)
    with server_process(bundle, tmp_path) as server:
        answer = canary(server.address)
        for run in range(WARM_UP):
            replace(server, bundle, run)
            assert canary(server.address) == answer
        before = server.footprint()
        for run in range(WARM_UP, WARM_UP + TIMES):
            replace(server, bundle, run)
            assert canary(server.address) == answer
            # Freed memory is given back a moment after the model has gone.
            eventually(lambda: server.footprint().rss < before.rss + _MOST)
        eventually(lambda: server.footprint().threads <= before.threads)
        eventually(lambda: server.footprint().descriptors <= before.descriptors)
        assert_serving(server.address)
