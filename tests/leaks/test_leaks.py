"""Short form of the soak of cancelled and failed calls: `make soak-cancels`."""

from collections.abc import Iterator

import pytest
from tests.leaks.growth import Growth, Subject, subject
from tests.leaks.server import heap_is_measurable
from tests.support.project import SHIPPED_BUNDLE

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not heap_is_measurable(), reason="glibc 2.33 or newer counts the heap"),
]

CALLS = 180
# A leak shows in every attempt; what else a process allocates does not.
MEASURED_CALLS, ATTEMPTS = 900, 4


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with subject(SHIPPED_BUNDLE, tmp_path_factory.mktemp("server")) as one:
        yield one


@pytest.mark.parametrize(
    "kind",
    [
        "reset before its message",
        "reset with its message",
        "stream cancelled in the middle",
        "reset unread",
    ],
)
def test_a_call_that_ends_early_has_its_batches_released(served: Subject, kind: str) -> None:
    growth = served.measure(kind, CALLS, slices=2)
    assert growth.batches == 0
    assert growth.statuses["CANCELLED"]


def test_a_call_that_ends_early_leaves_no_memory_behind(served: Subject) -> None:
    measured: list[Growth] = []
    for _ in range(ATTEMPTS):
        measured.append(served.measure("reset before its message", MEASURED_CALLS, slices=6))
        if not measured[-1].faults:
            return
    pytest.fail(str(measured))


def test_a_client_that_leaves_is_no_internal_error(served: Subject) -> None:
    """A failed write may be seen before the cancellation behind it."""
    served.measure("reset unread", CALLS, slices=2)
    assert not served.server.events("internal_error")
    codes = {event["code"] for event in served.server.events("rpc")}
    assert not codes & {"INTERNAL", "UNKNOWN"}
