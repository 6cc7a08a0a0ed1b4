"""Floors of `pyproject.toml`; `make floors` installs them."""

from packaging.utils import canonicalize_name
from packaging.version import Version
from tests.floors.requirements import floors
from tests.support.project import PROJECT

# The first grpcio that checks the size of a compressed message while it inflates it, as all later
# ones do. `tests/faults/test_bombs.py` sends such a message to the installed one.
SAFE_GRPCIO = Version("1.83.1")


def test_the_server_needs_a_grpcio_that_does_not_inflate_bombs() -> None:
    assert Version(floors("server")["grpcio"]) >= SAFE_GRPCIO


def test_what_ci_runs_satisfies_every_floor() -> None:
    lines = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    pinned = {canonicalize_name(name): version for name, version in pairs}
    for extra in ("client", "server"):
        for name, floor in floors(extra).items():
            assert Version(pinned[canonicalize_name(name)]) >= Version(floor), name
