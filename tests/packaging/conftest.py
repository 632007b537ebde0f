"""One package for all tests of a run, whichever worker asks first."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path

import pytest

from tests.packaging import wheelhouse


@pytest.fixture(scope="session")
def deb(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A .deb of made-up wheels."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "deb"
    folder.mkdir(exist_ok=True)
    made = folder / "dist/inferd_0.1.0_amd64.deb"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            done = wheelhouse.build("deb", folder)
            assert done.returncode == 0, done.stderr
    return made
