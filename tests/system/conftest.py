"""The container that all tests of a run share, with the package installed, and the figures that they leave behind."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.container import Container, booted, unmet

APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-q", "-o", "Dpkg::Options::=--force-confold")
DIGITS = "/opt/inferd/lib/python3.11/site-packages/inferd_agent/demo/models/digits"

_figures: list[str] = []


@pytest.fixture(scope="session")
def figures() -> list[str]:
    """Lines to be printed at the end of the run."""
    return _figures


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _figures:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(_figures))


@pytest.fixture(scope="session")
def package() -> Path:
    """The .deb that TEST_SYSTEM names."""
    package = Path(os.environ.get("TEST_SYSTEM", ""))
    if not package.name:
        pytest.skip("takes minutes: make test-system")
    if reason := unmet():
        pytest.skip(reason)
    assert package.is_file(), f"{package}: make wheelhouse deb"
    return package.resolve()


@pytest.fixture(scope="session")
def box(package: Path, tmp_path_factory: pytest.TempPathFactory, figures: list[str]) -> Iterator[Container]:
    """A Debian with the package, users `alice` of group inferd and `mallory` of none, and the demo's model."""
    folder = tmp_path_factory.mktemp("box")
    shared = {"dist": package.parent, "tests": Path(__file__).parent, "next": folder}
    with booted(folder / "console", shared) as container:
        began_s = time.monotonic()
        container.run(*APT, "install", f"/mnt/dist/{package.name}", timeout_s=600)
        took_s = time.monotonic() - began_s
        size = container.run("du", "-sm", "/opt/inferd").stdout.split()[0]
        mib = package.stat().st_size >> 20
        figures.append(f"package {mib} MiB, installed {size} MiB in {took_s:.1f} s, compiled Python files included")
        container.run("useradd", "-m", "-G", "inferd", "alice")
        container.run("useradd", "-m", "mallory")
        container.run("cp", "-r", DIGITS, "/var/lib/inferd/models/")
        yield container


@pytest.fixture
def callers(box: Container) -> Iterator[subprocess.Popen[str]]:
    """Four callers in the container, at work; closing their input ends them."""
    command = box.inside("/opt/inferd/bin/python3", "-I", "/mnt/tests/callers.py", user="alice")
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "calling\n"
        yield process
    finally:
        process.kill()
        process.wait(60)
