"""Release of mapped weights after loading: memory shrinks, content stays."""

import mmap
import sys
from pathlib import Path

import pytest

from gpt2flow.server.models.memory import release

MEGABYTES = 8


def resident(path: Path) -> int:
    """Return the kilobytes of a mapped file that are resident."""
    kilobytes, inside = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        key, *rest = line.split(maxsplit=5)
        if not key.endswith(":"):
            inside = rest[-1] == str(path)
        elif inside and key == "Rss:":
            kilobytes += int(rest[0])
    return kilobytes


@pytest.mark.skipif(sys.platform != "linux", reason="memory is released on Linux only")
@pytest.mark.parametrize("access", [mmap.ACCESS_READ, mmap.ACCESS_COPY])
def test_pages_that_were_only_read_are_released(tmp_path: Path, access: int) -> None:
    path = tmp_path / "weights"
    content = bytes(range(256)) * (MEGABYTES * 4096)
    path.write_bytes(content)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=access) as mapped:
        assert mapped[:] == content
        assert resident(path) > MEGABYTES * 1000
        release(path)
        assert resident(path) < 100
        assert mapped[:] == content


@pytest.mark.skipif(sys.platform != "linux", reason="memory is released on Linux only")
def test_written_pages_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(4096 * 100))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[5000] = 7
        release(path)
        assert mapped[5000] == 7
