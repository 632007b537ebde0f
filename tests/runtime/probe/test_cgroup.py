"""Control groups: where we are in the hierarchy, and that the tightest limit on the way up wins."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_runtime.probe.cgroup import (
    Cgroups,
    Mount,
    chain,
    parse_cfs,
    parse_cpu_max,
    parse_memberships,
    parse_mounts,
)
from inferd_runtime.probe.reader import Reader
from tests.fixtures.machines.replay import materialise

V2_MOUNT = "31 23 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"


def cgroups(root: Path, path: str, settings: dict[str, str], mounts: str = V2_MOUNT) -> Cgroups:
    files = {"/proc/self/cgroup": f"0::{path}\n", "/proc/self/mountinfo": mounts}
    files |= {f"/sys/fs/cgroup/{name}": value for name, value in settings.items()}
    return Cgroups(materialise({"files": files}, root))


@pytest.mark.parametrize(
    ("root", "path", "folders"),
    [
        ("/", "/a/b", ["/cg/a/b", "/cg/a", "/cg"]),
        ("/", "/", ["/cg"]),
        ("/docker/x", "/docker/x", ["/cg"]),
        ("/docker/x", "/docker/x/y", ["/cg/y", "/cg"]),
        ("/docker/x", "/docker/xy", ["/cg"]),
        ("/", "/../other", ["/cg"]),
    ],
)
def test_chain_runs_from_our_group_to_the_mount(root: str, path: str, folders: list[str]) -> None:
    """The chain follows what is mounted, with and without namespaces, and never leaves the mount point."""
    assert chain(Mount(2, frozenset(), root, "/cg"), path) == folders


def test_the_tightest_quota_on_the_way_up_wins(tmp_path: Path) -> None:
    """A parent's smaller quota beats our own, and the group that sets it is named."""
    found = cgroups(
        tmp_path,
        "/kubepods/pod/app",
        {
            "kubepods/pod/app/cpu.max": "400000 100000",
            "kubepods/pod/cpu.max": "150000 100000",
            "kubepods/cpu.max": "max",
        },
    ).cpu_quota()
    assert found is not None
    assert (found.value, found.source, found.cgroup) == (1.5, "cgroup v2", "/sys/fs/cgroup/kubepods/pod")


def test_no_quota_is_none(tmp_path: Path) -> None:
    """ "max" all the way up is no limit."""
    assert cgroups(tmp_path, "/a", {"a/cpu.max": "max 100000\n"}).cpu_quota() is None


def test_cpusets_intersect_on_the_way_up(tmp_path: Path) -> None:
    """A cpuset counts with its ancestors'; an empty file says nothing."""
    found = cgroups(tmp_path, "/a/b", {"a/b/cpuset.cpus.effective": "\n", "a/cpuset.cpus.effective": "0-3,8\n"})
    assert found.cpuset() == {0, 1, 2, 3, 8}


def test_memory_high_counts_as_a_limit(tmp_path: Path) -> None:
    """Beyond memory.high a process only stalls, so the lower of the two is the limit."""
    found = cgroups(tmp_path, "/a", {"a/memory.max": "4096000\n", "a/memory.high": "2048000\n"}).memory_limit()
    assert found is not None
    assert found.value == 2048000


def test_versions_side_by_side_are_both_heard(tmp_path: Path) -> None:
    """In the hybrid layout a quota of version 1 is found beside a version 2 tree without controllers."""
    files = {
        "/proc/self/cgroup": "3:cpu,cpuacct:/svc\n0::/svc\n",
        "/proc/self/mountinfo": "40 39 0:30 / /cg/cpu\\040acct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "41 39 0:31 / /cg/unified rw - cgroup2 cgroup2 rw\n",
        "/cg/cpu acct/svc/cpu.cfs_quota_us": "50000\n",
        "/cg/cpu acct/svc/cpu.cfs_period_us": "100000\n",
    }
    found = Cgroups(materialise({"files": files}, tmp_path)).cpu_quota()
    assert found is not None
    assert (found.value, found.source) == (0.5, "cgroup v1")


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("150000 100000\n", 1.5),
        ("max 100000", None),
        ("50000", 0.5),
        ("", None),
        (None, None),
        ("1 0", None),
        ("x y", None),
    ],
)
def test_cpu_max(text: str | None, cpus: float | None) -> None:
    """cpu.max in all its forms."""
    assert parse_cpu_max(text) == cpus


def test_cfs_without_a_limit() -> None:
    """-1 is version 1's word for no quota."""
    assert parse_cfs("-1\n", "100000\n") is None
    assert parse_cfs("150000", "100000") == 1.5


@given(st.text(), st.text())
def test_garbage_never_raises(cgroup: str, mountinfo: str) -> None:
    """Whatever the two files hold, reading them gives lists and paths below the mounts."""
    for membership in parse_memberships(cgroup):
        for mount in parse_mounts(mountinfo + " - cgroup2 x"):
            assert all(".." not in folder.split("/") or ".." in mount.point for folder in chain(mount, membership.path))
    parse_cpu_max(cgroup)
    parse_cfs(cgroup, mountinfo)


@given(st.from_regex(r"/(\.\.|[a-z]{1,3})(/(\.\.|[a-z]{1,3})){0,5}", fullmatch=True))
def test_no_path_leads_out_of_the_mount(path: str) -> None:
    """A group's path with dots in it never points outside."""
    assert all(".." not in folder for folder in chain(Mount(2, frozenset(), "/", "/cg"), path))


def test_missing_files_say_nothing(tmp_path: Path) -> None:
    """Without /proc there is no limit, and no error."""
    found = Cgroups(Reader(tmp_path))
    assert (found.cpu_quota(), found.cpuset(), found.memory_limit()) == (None, None, None)
