"""Hypothesis profiles of all tests, and the option `--fast`.

The default profile draws the same examples in every run, so that only a change to the code can
make a test fail. `pytest --hypothesis-profile=search` draws others.

`pytest --fast` leaves out the tests that are marked `process`, draws fewer examples, and refuses
processes and connections.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from tests.support.fast_run import refuse_processes

if TYPE_CHECKING:
    from tests.support.postgresql import PostgresqlServer

# Directories whose tests are all marked `process`; other tests are marked one by one.
PROCESS = ("client", "cli", "deploy", "docs", "e2e", "faults", "interop", "server/telemetry")

# No deadline: the time of an example depends on the machine, not on the code.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("search"), derandomize=True)
settings.register_profile("fast", settings.get_profile("same"), max_examples=25)
settings.load_profile("same")


def pytest_addoption(parser: pytest.Parser) -> None:
    help_text = "leave out the tests that start processes, open connections, or take long"
    parser.addoption("--fast", action="store_true", help=help_text)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("fast"):
        settings.load_profile("fast")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    directories = [Path(__file__).parent / name for name in PROCESS]
    for item in items:
        if any(item.path.is_relative_to(directory) for directory in directories):
            item.add_marker(pytest.mark.process)
    if config.getoption("fast"):
        left_out = [item for item in items if item.get_closest_marker("process")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("process")]


@pytest.fixture(scope="session", autouse=True)
def _fast_run(pytestconfig: pytest.Config) -> Iterator[None]:
    """Hold fast runs to what they promise."""
    with pytest.MonkeyPatch.context() as patch:
        if pytestconfig.getoption("fast"):
            refuse_processes(patch)
        yield


@pytest.fixture(scope="session")
def postgresql() -> Iterator["PostgresqlServer"]:
    """PostgreSQL server of this run.

    Without one, the test is skipped, or fails with CI=true.
    """
    # Imported here, because most tests need no database.
    from tests.support.postgresql import UnavailableError, postgresql_server, skip

    with ExitStack() as resources:
        try:
            server = resources.enter_context(postgresql_server())
        except UnavailableError as error:
            skip(str(error))
        yield server
