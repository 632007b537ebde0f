"""What is fetched is what was expected, or it is said why it is not here."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients import fetch
from tests.models.fetch import FetchFailed


def test_other_bytes_are_refused(tmp_path: Path) -> None:
    """Both checksums are told; a file that is not there is no file."""
    (tmp_path / "perf_analyzer").write_bytes(b"something else")
    for name in ("perf_analyzer", "nothing"):
        with pytest.raises(FetchFailed, match=rf"{name}: expected SHA-256 {'0' * 64}, got"):
            fetch.check(tmp_path / name, "0" * 64)


def test_without_packages_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline and without a cache the reason is pip's, and no half of an environment stays."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("perf_analyzer is a program for Linux on x86-64")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(fetch.Missing, match="pip download"):
        fetch.perf_analyzer(tmp_path / "cache")
    assert [each.name for each in (tmp_path / "cache").iterdir()] == ["clients.lock"]


@pytest.mark.parametrize("get", [fetch.perf_analyzer, fetch.kserve])
def test_a_look_fetches_nothing(tmp_path: Path, get: Callable[..., Path]) -> None:
    """What is not in the cache is missing, at once."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("perf_analyzer is a program for Linux on x86-64")
    with pytest.raises(fetch.Missing, match="not in the cache"):
        get(tmp_path, may_fetch=False)
    assert not list(tmp_path.iterdir())


def test_other_machines_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is fetched."""
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(fetch.Missing, match="x86-64"):
        fetch.perf_analyzer(tmp_path)
    assert not list(tmp_path.iterdir())
