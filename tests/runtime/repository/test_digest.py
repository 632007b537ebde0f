"""Fingerprints, digests and settling."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from inferd_runtime.repository.digest import Fingerprint, Settling, digest, fingerprint
from tests.runtime.repository.stage import Clock


def files(folder: Path, **contents: str) -> list[Path]:
    """Files of these contents."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (folder / name).write_text(text)
    return [folder / name for name in contents]


def test_fingerprint_is_stable_and_sees_every_change(tmp_path: Path) -> None:
    """Reading changes nothing; writing, growing, replacing, adding and removing do."""
    paths = files(tmp_path, a="one", b="two")
    seen = fingerprint(paths)
    paths[0].read_text()
    assert fingerprint(reversed(paths)) == seen
    sights = [seen]
    paths[0].write_text("one more")
    sights.append(fingerprint(paths))
    os.utime(paths[0], ns=(1, 1))
    sights.append(fingerprint(paths))
    (tmp_path / "new").write_text("two")
    os.utime(tmp_path / "new", ns=(paths[1].stat().st_mtime_ns,) * 2)
    (tmp_path / "new").replace(paths[1])
    sights.append(fingerprint(paths))
    sights.append(fingerprint(paths[:1]))
    paths[0].unlink()
    sights.append(fingerprint(paths[:1]))
    assert len(set(sights)) == len(sights)


def test_digest_is_of_names_and_contents_only(tmp_path: Path) -> None:
    """The same files elsewhere have the same digest; another name or byte has another."""
    first = digest(files(tmp_path / "x", a="1", b="2"), tmp_path / "x")
    assert digest(files(tmp_path / "y", b="2", a="1"), tmp_path / "y") == first
    others = [
        digest(files(tmp_path / "z1", a="1", b="3"), tmp_path / "z1"),
        digest(files(tmp_path / "z2", a="1", c="2"), tmp_path / "z2"),
        digest(files(tmp_path / "z3", a="12", b=""), tmp_path / "z3"),
        digest(files(tmp_path / "z4", a="1"), tmp_path / "z4"),
    ]
    assert len({first, *others}) == 5


def test_settled_after_lying_still() -> None:
    """What looks the same for the settle time is settled; every change begins anew."""
    clock = Clock()
    settling = Settling(0.5, clock=clock, wall=lambda: 0.0)
    one, two = Fingerprint((("a", 1, 0, 0),), 100.0), Fingerprint((("a", 2, 0, 0),), 100.0)
    assert not settling.is_settled("m", one)
    clock.now += 0.4
    assert not settling.is_settled("m", two)
    clock.now += 0.4
    assert not settling.is_settled("m", two)
    clock.now += 0.2
    assert settling.is_settled("m", two)
    settling.keep([])
    assert not settling.is_settled("m", two)


def test_old_files_are_settled_at_once() -> None:
    """Files that the kernel last changed a while ago need no waiting; those from the future do."""
    settling = Settling(0.5, clock=Clock(), wall=lambda: 1000.0)
    assert settling.is_settled("old", Fingerprint((("a", 1, 0, 0),), 998.0))
    assert not settling.is_settled("new", Fingerprint((("a", 1, 0, 0),), 999.5))
    assert not settling.is_settled("future", Fingerprint((("a", 1, 0, 0),), 2000.0))
    assert not settling.is_settled("gone", "gone")


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2)), max_size=30))
def test_never_settled_sooner_than_the_settle_time(steps: list[tuple[float, int]]) -> None:
    """However looks and changes come, settled means unchanged for the settle time."""
    clock = Clock()
    settling = Settling(0.5, clock=clock, wall=lambda: 0.0)
    since, last = clock.now, None
    for wait_s, size in steps:
        clock.now += wait_s
        if size != last:
            since, last = clock.now, size
        settled = settling.is_settled("m", Fingerprint((("a", size, 0, 0),), 0.0))
        assert settled == (clock.now - since >= 0.5)
