"""What this checkout is, and what is built from it: the version, the date, and where everything lies."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Debian's word for an architecture, and what the kernel, wheels and RPM call it.
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class Build:
    """One build: for which machines, from what, and where to. `pythons` are minor versions, oldest first."""

    arch: str
    pythons: tuple[str, ...]
    lock: Path
    wheelhouse: Path
    work: Path
    dest: Path
    models: Path
    debs: tuple[Path, ...] = ()

    @property
    def machine(self) -> str:
        """The kernel's word for the architecture."""
        return ARCHITECTURES[self.arch]


def host_architecture() -> str:
    """Debian's word for this machine, or the kernel's where nothing is built for it."""
    machine = platform.machine()
    return next((name for name, word in ARCHITECTURES.items() if word == machine), machine)


def version() -> str:
    """The version in pyproject.toml."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert isinstance(found, str)
    return found


@functools.cache
def epoch() -> int:
    """Seconds that all of one build is dated with: SOURCE_DATE_EPOCH, else the time of the last commit."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    command = ("git", "log", "-1", "--format=%ct")
    return int(subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, cwd=ROOT).stdout)


def run(*command: str | Path, **env: str) -> None:
    """Run a command in the checkout, dated, with variables beside our own. Raises CalledProcessError if it fails."""
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"SOURCE_DATE_EPOCH": str(epoch())} | env)
