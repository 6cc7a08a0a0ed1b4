"""Processors that this process may use: affinity and quotas of its cgroups."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_V1, _V2 = "cgroup", "cgroup2"


@dataclass(frozen=True, slots=True)
class CpuLimit:
    """Limit of the processors that a process may use.

    Attributes:
        affinity: Processors that its threads may run on.
        quota: Processor time per time by its cgroups, such as 1.5; None is no limit.
    """

    affinity: int
    quota: float | None = None

    @property
    def threads(self) -> int:
        """Threads that run all the time without being throttled, at least one.

        A fraction of a processor is left out. The threads of a run wait for each other, so one
        that is throttled for the rest of a period, usually 100 ms, would hold up all of them.
        """
        return self.affinity if self.quota is None else max(1, min(self.affinity, int(self.quota)))


@dataclass(frozen=True, slots=True)
class _Mount:
    """Mounted hierarchy of cgroups.

    Attributes:
        kind: Type of the file system: `cgroup` or `cgroup2`.
        options: Options of the file system; those of `cgroup` name its controllers.
        top: Cgroup at the mount point.
        point: Path of the mount point.
    """

    kind: str
    options: list[str]
    top: str
    point: str


def cpu_limit(root: Path = Path("/")) -> CpuLimit:
    """Return the limit of this process, read anew at each call.

    Args:
        root: Directory that contains `proc` and the mounted cgroups.
    """
    quotas = [quota for folder in _cgroups(root) if (quota := _quota(folder)) is not None]
    return CpuLimit(_affinity(), min(quotas, default=None))


def _affinity() -> int:
    """Return the number of processors that threads may run on; cpusets count."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroups(root: Path) -> Iterator[Path]:
    """Yield the directories of the process's cgroups, from the top down.

    A quota of any of them holds for all cgroups below it.
    """
    own = _own_cgroups(_lines(root / "proc/self/cgroup"))
    for mount in _mounts(_lines(root / "proc/self/mountinfo")):
        cgroup = own.get(mount.kind)
        if cgroup is None or (mount.kind == _V1 and "cpu" not in mount.options):
            continue
        folder = root / mount.point.lstrip("/")
        yield folder
        for name in _below(cgroup, mount.top):
            folder /= name
            yield folder


def _own_cgroups(lines: list[str]) -> dict[str, str]:
    """Return the process's cgroup with processors, by type of hierarchy.

    A line is `hierarchy:controllers:cgroup`; version 2 is hierarchy 0 without controllers.
    """
    found = {}
    for line in lines:
        number, controllers, cgroup = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            found[_V2] = cgroup
        elif "cpu" in controllers.split(","):
            found[_V1] = cgroup
    return found


def _mounts(lines: list[str]) -> Iterator[_Mount]:
    """Yield the mounted hierarchies of `/proc/self/mountinfo`."""
    for line in lines:
        place, _, system = line.partition(" - ")
        places, systems = place.split(), system.split()
        if len(places) >= 5 and len(systems) == 3 and systems[0] in {_V1, _V2}:
            yield _Mount(systems[0], systems[2].split(","), places[3], places[4])


def _below(cgroup: str, top: str) -> list[str]:
    """Return the names from a mount point down to a cgroup.

    A container may see its cgroup's path on the host, which is then that of the mount point.
    """
    names, above = cgroup.split("/")[1:], top.rstrip("/").split("/")[1:]
    if names[: len(above)] != above or ".." in names:
        return []
    return [name for name in names[len(above) :] if name]


def _quota(folder: Path) -> float | None:
    """Return the quota of one cgroup in processors; None without one."""
    version_2 = _lines(folder / "cpu.max")
    if version_2:
        limit, period = [*version_2[0].split(), ""][:2]
    else:
        files = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        limit, period = ("".join(_lines(folder / name)) for name in files)
    # No limit is `max` in version 2, and -1 in version 1.
    with contextlib.suppress(ValueError, ZeroDivisionError):
        quota = int(limit) / int(period)
        return quota if quota > 0 else None
    return None


def _lines(file: Path) -> list[str]:
    """Return the lines of a file; none if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
