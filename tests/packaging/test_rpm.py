"""The RPM of made-up wheels, where rpmbuild is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging import wheelhouse

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(shutil.which("rpmbuild") is None, reason="rpmbuild is not installed"),
]


@pytest.fixture(scope="module")
def rpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An RPM."""
    folder = tmp_path_factory.mktemp("rpm")
    done = wheelhouse.build("rpm", folder)
    assert done.returncode == 0, done.stderr
    return folder / "dist/inferd-0.1.0-1.x86_64.rpm"


def test_it_holds_the_same_tree(rpm: Path) -> None:
    """Command, units, pages and the folders of the state, which are the daemon's own."""
    listed = _query(rpm, "--list", "--verbose")
    assert "/usr/bin/inferd -> /opt/inferd/bin/inferd" in listed
    assert "/usr/lib/systemd/system/inferd.service" in listed
    assert "/usr/share/man/man1/inferd.1.gz" in listed
    models = next(line for line in listed.splitlines() if line.endswith("/var/lib/inferd/models"))
    assert models.startswith("drwxr-x---")
    assert models.split()[2:4] == ["inferd", "inferd"]


def test_an_upgrade_keeps_an_edited_configuration(rpm: Path) -> None:
    """The file is marked so that rpm lays the new one beside it."""
    assert _query(rpm, "--configfiles") == "/etc/inferd/inferd.toml\n"
    flags = _query(rpm, "--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]")
    assert "/etc/inferd/inferd.toml cn" in flags


def test_it_wants_one_of_the_pythons_that_it_serves(rpm: Path) -> None:
    """What rpm would find out by searching the files is not asked for."""
    wanted = _query(rpm, "--requires")
    assert "(python(abi) = 3.11 or python(abi) = 3.13)" in wanted
    assert "native" not in wanted


def _query(rpm: Path, *what: str) -> str:
    command = ["rpm", "--query", "--package", *what, rpm]
    return subprocess.run(command, check=True, capture_output=True, text=True, env={"LC_ALL": "C", "HOME": "/"}).stdout
