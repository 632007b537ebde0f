"""The reader: what is missing, forbidden or strange reads as nothing; device nodes tell whether they open."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_runtime.probe import examine, probe
from inferd_runtime.probe.reader import CHUNK_BYTES, MAX_CHUNKS, Node, Reader
from inferd_runtime.probe.record import record
from tests.fixtures.machines.replay import load_tree, materialise, replay

NOBODY = 65534


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """No root powers inside the test, so that permission bits count."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(NOBODY)
    yield
    if was_root:
        os.seteuid(0)


def test_missing_things_read_as_nothing(tmp_path: Path) -> None:
    """No file, no folder, a folder for a file, a file for a folder, a NUL in the path: all nothing."""
    (tmp_path / "file").write_text("x")
    reader = Reader(tmp_path)
    assert reader.text("/none") is None
    assert reader.text("/") is None
    assert reader.text("/a\0b") is None
    assert reader.line("/none") == ""
    assert reader.names("/none", ".*") == ()
    assert reader.names("/file", ".*") == ()
    assert reader.node("/none") is None


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """Device-tree NULs are trimmed, invalid UTF-8 is replaced, endless files are cut."""
    (tmp_path / "model").write_bytes(b"Board\0")
    (tmp_path / "odd").write_bytes(b"\xff\xfe")
    (tmp_path / "long").write_bytes(b"x" * (CHUNK_BYTES * MAX_CHUNKS + 1))
    reader = Reader(tmp_path)
    assert reader.line("/model") == "Board"
    assert reader.text("/odd") == "\ufffd\ufffd"
    assert len(reader.text("/long") or "") == CHUNK_BYTES * MAX_CHUNKS


def test_kernel_settings_are_read() -> None:
    """/proc/sys refuses reads of megabytes; we ask for less."""
    assert Reader().line("/proc/sys/kernel/osrelease") == os.uname().release


def test_nodes_that_open_and_nodes_that_do_not(tmp_path: Path) -> None:
    """A node that opens has error 0, one that does not has the reason's number."""
    (tmp_path / "folder").mkdir()
    node = Reader().node("/dev/null")
    assert node is not None
    assert node.error == 0
    folder = Reader(tmp_path).node("/folder")
    assert folder is not None
    assert folder.error == errno.EISDIR


@pytest.mark.usefixtures("unprivileged")
def test_forbidden_files_are_nothing() -> None:
    """A root that we may not read is a machine about which little is known, not an error."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        root = Path(folder)
        (root / "dev").mkdir()
        for name in ("secret", "dev/nvidia0", "dev/other"):
            (root / name).write_text("x")
            (root / name).chmod(0)
        reader = Reader(root)
        assert reader.text("/secret") is None
        for path in ("/dev/nvidia0", "/dev/other"):
            node = reader.node(path)
            assert node is not None
            assert node.error == errno.EACCES
        root.chmod(0)
        assert probe(root, affinity={0}).allowed_cores == (0,)
        root.chmod(0o700)


class Garbled(Reader):
    """Answers everything, with garbage."""

    def __init__(self, texts: list[str], node: Node) -> None:
        super().__init__()
        self._texts, self._node = texts, node

    def text(self, path: str) -> str | None:
        return self._texts[len(path) % len(self._texts)]

    def names(self, path: str, pattern: str) -> tuple[str, ...]:
        return tuple(name for name in ("index0", "renderD128", "accel0", "0000:00:02.0", "17000000.gpu"))

    def node(self, path: str) -> Node | None:
        return self._node


PLAUSIBLE = st.sampled_from(
    [
        "0\n", "-1\n", "max\n", "0-3\n", "0x030000\n", "0::/a\n", "DRIVER=i915\nPCI_CLASS=30000\nPCI_ID=8086:1",
        "31 23 0:27 / /cg rw - cgroup2 c rw\n", "processor: 0\nCPU part: 0xd0b\n\n", "nvidia,tegra234\0", "48K\n",
    ]
)  # fmt: skip


@given(
    texts=st.lists(st.text() | PLAUSIBLE, min_size=1, max_size=13),
    error=st.integers(0, 200),
    affinity=st.sets(st.integers(0, 9)),
)
def test_a_garbled_machine_is_still_a_machine(texts: list[str], error: int, affinity: set[int]) -> None:
    """Whatever every file holds, there is a Machine with at least one usable core that can be shown."""
    machine = examine(Garbled(texts, Node(0o660, 0, 44, error)), affinity)
    assert machine.allowed_cores
    assert machine.usable_cores >= 1
    assert json.dumps(machine.to_dict())


def test_a_recording_plays_back_the_same(tmp_path: Path) -> None:
    """Recording a machine and playing it back gives the same Machine, without serial numbers."""
    tree = load_tree("intel-n100")
    tree["files"]["/proc/cpuinfo"] = [*tree["files"]["/proc/cpuinfo"], "Serial\t\t: 10000000deadbeef", ""]
    reader = materialise(tree, tmp_path / "first")
    again = record(reader, {0, 1, 2, 3}, "again")
    assert "deadbeef" not in str(again)
    assert again["note"] == "again"
    assert replay(again, tmp_path / "second") == examine(reader, {0, 1, 2, 3})


def test_a_recording_of_here_plays_back_here(tmp_path: Path) -> None:
    """What is recorded on the machine at hand is enough to find the same cores, flags and limits again."""
    affinity = os.sched_getaffinity(0)
    machine = examine(Reader(), affinity)
    again = replay(record(Reader(), affinity, "here"), tmp_path)
    assert again.digest == machine.digest
    assert again.caches == machine.caches
