"""The reader: what is missing, forbidden or strange reads as nothing; device nodes tell whether they open."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferd_runtime.probe import examine, probe
from inferd_runtime.probe.reader import CHUNK_BYTES, MAX_CHUNKS, Reader
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
def test_forbidden_files_are_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A root that we may not read is a machine about which little is known, not an error."""
    folder = Path(os.environ.get("TMPDIR", "/tmp"))
    root = folder / f"inferd-probe-{os.getpid()}"
    root.mkdir()
    try:
        for name in ("secret", "nvidia0"):
            (root / name).write_text("x")
            (root / name).chmod(0)
        assert Reader(root).text("/secret") is None
        node = Reader(root).node("/secret")
        assert node is not None
        assert node.error == errno.EACCES
        root.chmod(0)
        assert probe(root, affinity={0}).allowed_cores == (0,)
    finally:
        root.chmod(0o700)
        for name in ("secret", "nvidia0"):
            (root / name).unlink()
        root.rmdir()


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
