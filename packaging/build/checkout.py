"""What this checkout is: its root, version and date, and for which machines it is built."""

from __future__ import annotations

import os
import platform
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Debian's word for an architecture, and what its wheels are called.
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class Target:
    """One architecture, and the minor versions of Python that the package serves, oldest first."""

    arch: str
    pythons: tuple[str, ...]

    @property
    def machine(self) -> str:
        """The kernel's and the wheels' word for the architecture."""
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


def epoch() -> int:
    """Seconds that every file of a build is dated with: SOURCE_DATE_EPOCH, else the time of the last commit."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    return int(output("git", "log", "-1", "--format=%ct", cwd=ROOT))


def output(*command: str | Path, cwd: Path | None = None) -> str:
    """What a command prints. Raises CalledProcessError if it fails; its errors go to ours."""
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, cwd=cwd).stdout


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Run a command with variables beside our own. Raises CalledProcessError if it fails."""
    subprocess.run(command, check=True, cwd=cwd, env=os.environ | (env or {}))
