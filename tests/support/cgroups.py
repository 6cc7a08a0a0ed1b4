"""Folders that look like the cgroups of a process."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cgroups:
    """Mounted hierarchy below a root of its own.

    Attributes:
        root: Directory that contains `proc` and the mount point.
        point: Path of the mount point.
        version: Version of the hierarchy.
    """

    root: Path
    point: str
    version: int

    def folder(self, cgroup: str) -> Path:
        """Make the directory of a cgroup below the mount point."""
        folder = self.root / f"{self.point}{cgroup}".lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def limit(self, cgroup: str, quota: int | None, period: int = 100_000) -> None:
        """Give a cgroup a quota in microseconds; None is no limit."""
        folder = self.folder(cgroup)
        if self.version == 2:
            (folder / "cpu.max").write_text(f"{'max' if quota is None else quota} {period}\n")
        else:
            (folder / "cpu.cfs_quota_us").write_text(f"{-1 if quota is None else quota}\n")
            (folder / "cpu.cfs_period_us").write_text(f"{period}\n")


def v1(root: Path, cgroup: str, *, top: str = "/", point: str = "/sys/fs/cgroup/cpu") -> Cgroups:
    """Make a hierarchy of version 1, with `top` at its mount point."""
    _write(root, f"11:memory:{cgroup}-memory", f"{top} /sys/fs/cgroup/memory", "cgroup rw,memory")
    _write(root, f"4:cpu,cpuacct:{cgroup}", f"{top} {point}", "cgroup rw,cpu,cpuacct")
    return Cgroups(root, point, 1)


def v2(root: Path, cgroup: str, *, top: str = "/", point: str = "/sys/fs/cgroup") -> Cgroups:
    """Make a hierarchy of version 2, with `top` at its mount point."""
    _write(root, f"0::{cgroup}", f"{top} {point}", "cgroup2 rw,nsdelegate")
    return Cgroups(root, point, 2)


def _write(root: Path, cgroup: str, mount: str, system: str) -> None:
    """Add the lines of a hierarchy to the files of the process."""
    process = root / "proc/self"
    process.mkdir(parents=True, exist_ok=True)
    kind, options = system.split()
    with (process / "cgroup").open("a") as file:
        file.write(f"{cgroup}\n")
    with (process / "mountinfo").open("a") as file:
        file.write(f"31 23 0:28 {mount} rw,nosuid shared:9 - {kind} {kind} {options}\n")
