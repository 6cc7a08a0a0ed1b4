"""Growth of a server process per call of a kind."""

import asyncio
import itertools
import json
import signal
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.leaks.kinds import KINDS, RAW_KINDS, Callers
from tests.leaks.server import Holding
from tests.support.command_line import gpt2flow
from tests.support.server_process import Footprint, ServerProcess, server_process
from tests.support.waiting import eventually

# Calls of each kind before the first measurement, since caches and pools fill.
WARM_UP = 20
# Slices of the calls of a kind; the growth within the first does not count.
SLICES = 9
# Most bytes of the heap that a call may leave behind, and most of Python's blocks.
# A leaked batch has 96 bytes or more; the rest is noise.
MAX_BYTES, MAX_BLOCKS = 40.0, 0.5
# A server has settled when this many reports in a row are the same within some bytes.
_SAME, _STABLE_BYTES = 4, 2048
# Tasks of an idle server beyond those before the first call.
_EXTRA_TASKS = 4
_IDLE_METRICS = ("requests_running", "requests_waiting", "slots_used")


@dataclass(frozen=True)
class Growth:
    """Growth per call of one kind.

    Attributes:
        kind: Name of the kind.
        calls: Number of calls after the warm-up.
        heap: Bytes of the heap per call: the median over the slices.
        blocks: Blocks of Python's allocator per call: the median over the slices.
        batches: gRPC's batches that were not released, of all calls.
        resident: Resident bytes per call, from the first slice to the last.
        statuses: Number of calls by status.
    """

    kind: str
    calls: int
    heap: float
    blocks: float
    batches: int
    resident: float
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def faults(self) -> list[str]:
        """Sentences about what is beyond its limit."""
        found = []
        if self.batches > 0:
            found.append(f"{self.kind}: {self.batches} batches not released, limit 0")
        if self.heap > MAX_BYTES:
            found.append(f"{self.kind}: {self.heap:.0f} bytes per call, limit {MAX_BYTES:.0f}")
        if self.blocks > MAX_BLOCKS:
            found.append(f"{self.kind}: {self.blocks:.2f} blocks per call, limit {MAX_BLOCKS}")
        allowed = KINDS[self.kind].statuses if self.kind in KINDS else ("CANCELLED",)
        if not self.statuses.get(allowed[0]):
            found.append(f"{self.kind}: no call ended with {allowed[0]}")
        if unexpected := self.statuses.keys() - set(allowed):
            found.append(f"{self.kind}: unexpected statuses {sorted(unexpected)}")
        return found


class Subject:
    """Server whose growth is measured.

    Args:
        server: The process, of `tests.leaks.server`.
        report: File that it reports to.
        callers: Its clients.
        runner: Event loop of the clients.
    """

    def __init__(
        self, server: ServerProcess, report: Path, callers: Callers, runner: asyncio.Runner
    ) -> None:
        self.server = server
        self._report = report
        self._callers = callers
        self._runner = runner
        self._idle_tasks = server.metric("tasks")

    def warm_up(self) -> None:
        """Make some calls of each kind."""
        for kind in (*KINDS, *RAW_KINDS):
            self._runner.run(self._callers.run(kind, WARM_UP))

    def measure(self, kind: str, calls: int, slices: int = SLICES) -> Growth:
        """Make calls of a kind, and return the growth per call."""
        each = max(calls // slices, 1)
        points: list[tuple[Holding, Footprint]] = []
        self._callers.statuses.clear()
        for _ in range(slices):
            self._runner.run(self._callers.run(kind, each))
            points.append(self.settle())
        held = [holding for holding, _ in points]
        return Growth(
            kind=kind,
            calls=each * (slices - 1),
            heap=_growth([one.heap for one in held], each),
            blocks=_growth([one.blocks for one in held], each),
            batches=held[-1].batches - held[0].batches,
            resident=(points[-1][1].rss - points[0][1].rss) / (each * (slices - 1)),
            statuses=dict(self._callers.statuses),
        )

    def settle(self) -> tuple[Holding, Footprint]:
        """Wait until no call is left, and return what the server holds."""
        eventually(lambda: self.server.metric("tasks") <= self._idle_tasks + _EXTRA_TASKS)
        eventually(lambda: not any(self.server.metric(name) for name in _IDLE_METRICS))
        reports = [self._report_now() for _ in range(_SAME)]

        def is_stable() -> bool:
            reports.append(self._report_now())
            heaps = [report.heap for report in reports[-_SAME:]]
            return max(heaps) - min(heaps) <= _STABLE_BYTES

        # Connections are torn down after their end.
        eventually(is_stable, lambda: reports)
        return reports[-1], self.server.footprint()

    def _report_now(self) -> Holding:
        self._report.unlink(missing_ok=True)
        self.server.process.send_signal(signal.SIGUSR1)
        eventually(self._report.exists)
        return Holding(**json.loads(self._report.read_text()))


def _growth(values: Sequence[int], calls: int) -> float:
    """Return the growth per call: the median over the slices."""
    return statistics.median(
        (after - before) / calls for before, after in itertools.pairwise(values)
    )


@contextmanager
def subject(bundle: Path, folder: Path) -> Iterator[Subject]:
    """Serve a bundle by a process that reports what it holds."""
    _, out, _ = gpt2flow("token", "example", "--json")
    token = json.loads(out)
    tokens, report = folder / "tokens.toml", folder / "holding.json"
    tokens.write_text(token["entry"])
    tokens.chmod(0o600)
    program = ("tests.leaks.server", str(report))
    with (
        server_process(bundle, folder, f"--tokens={tokens}", program=program) as server,
        asyncio.Runner() as runner,
    ):
        served = Subject(server, report, Callers(server.address, token["token"]), runner)
        served.warm_up()
        yield served
