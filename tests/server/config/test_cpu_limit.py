"""Default threads follow quotas of cgroups and affinity, in folders made here."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.cgroups import Cgroups, v1, v2

from gpt2flow.server import EngineConfig
from gpt2flow.server.config import settings
from gpt2flow.server.config.cpu_limit import CpuLimit, cpu_limit

PERIOD = 100_000
POD = "/kubepods/pod1/container1"


@pytest.fixture(params=[v1, v2])
def cgroups(request: pytest.FixtureRequest, tmp_path: Path) -> Cgroups:
    """Return a hierarchy whose process is in a container of a pod."""
    made: Cgroups = request.param(tmp_path, POD)
    return made


def test_without_a_quota_only_the_affinity_counts(cgroups: Cgroups) -> None:
    cgroups.limit(POD, None)
    assert cpu_limit(cgroups.root) == CpuLimit(len(os.sched_getaffinity(0)), None)


@pytest.mark.parametrize("group", ["", "/kubepods", "/kubepods/pod1", POD])
def test_a_quota_of_any_cgroup_above_counts(cgroups: Cgroups, group: str) -> None:
    cgroups.limit(group, 2 * PERIOD, PERIOD)
    assert cpu_limit(cgroups.root).quota == 2


def test_the_smallest_quota_along_the_path_counts(cgroups: Cgroups) -> None:
    cgroups.limit("/kubepods", 16 * PERIOD, PERIOD)
    cgroups.limit("/kubepods/pod1", 3 * PERIOD // 2, PERIOD)
    cgroups.limit(POD, 8 * 50_000, 50_000)
    assert cpu_limit(cgroups.root).quota == 1.5


def test_a_quota_of_another_cgroup_does_not_count(cgroups: Cgroups) -> None:
    cgroups.limit("/kubepods/pod2", PERIOD, PERIOD)
    cgroups.limit(f"{POD}/below", PERIOD, PERIOD)
    assert cpu_limit(cgroups.root).quota is None


@pytest.mark.parametrize("make", [v1, v2])
@pytest.mark.parametrize(
    "cgroup,top", [("/", "/"), ("/docker/c1", "/docker/c1"), ("/../c2", "/"), ("/a", "/b")]
)
def test_the_mount_point_of_a_container_is_its_cgroup(
    tmp_path: Path, make: Callable[..., Cgroups], cgroup: str, top: str
) -> None:
    cgroups = make(tmp_path, cgroup, top=top)
    cgroups.limit("", PERIOD // 2, PERIOD)
    assert cpu_limit(cgroups.root).quota == 0.5


def test_version_1_counts_where_version_2_is_mounted_beside_it(tmp_path: Path) -> None:
    v2(tmp_path, "/user", point="/sys/fs/cgroup/unified")
    old = v1(tmp_path, POD)
    old.limit(POD, 3 * PERIOD, PERIOD)
    assert cpu_limit(tmp_path).quota == 3


@pytest.mark.parametrize("content", ["", "max", "max 100000", "x y", "100000", "1 0", "-1 100000"])
def test_files_that_state_no_quota_are_no_limit(tmp_path: Path, content: str) -> None:
    cgroups = v2(tmp_path, POD)
    cgroups.folder(POD).joinpath("cpu.max").write_text(content)
    assert cpu_limit(tmp_path).quota is None


def test_a_system_without_cgroups_has_no_quota(tmp_path: Path) -> None:
    assert cpu_limit(tmp_path).quota is None


@pytest.mark.parametrize(
    "affinity,quota,threads",
    [(8, None, 8), (8, 2.0, 2), (8, 1.5, 1), (8, 0.25, 1), (8, 3.99, 3), (2, 6.0, 2)],
)
def test_a_fraction_of_a_processor_gets_no_thread(
    affinity: int, quota: float | None, threads: int
) -> None:
    assert CpuLimit(affinity, quota).threads == threads


def test_an_engine_runs_on_the_processors_of_the_affinity() -> None:
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    try:
        assert EngineConfig().threads == 1
    finally:
        os.sched_setaffinity(0, processors)


def test_an_engine_has_the_threads_of_the_quota(
    monkeypatch: pytest.MonkeyPatch, cgroups: Cgroups
) -> None:
    monkeypatch.setattr(settings, "cpu_limit", lambda: cpu_limit(cgroups.root))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    cgroups.limit(POD, 3 * PERIOD, PERIOD)
    assert EngineConfig().threads == 3
    assert EngineConfig(threads=5).threads == 5
