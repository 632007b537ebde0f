"""Wheels: fetched by checksum for every Python that a package serves, and laid out without running any of them.

pip judges a lock's markers (`python_full_version < '3.12'`) by the Python that it runs on, so they are judged here, by
the Python that is meant.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from checkout import Build, run
from packaging.requirements import Requirement

# What builds inferd's own wheel is in the lock too, for `make setup`; nothing that is installed needs it.
BUILD_ONLY = frozenset({"hatchling", "pathspec", "pluggy", "tomlkit", "trove-classifiers"})
# The C library of Debian 12, and the oldest standards that wheels are still built to.
_GLIBC_MINORS = range(36, 4, -1)
_OLD_STANDARDS = ("manylinux2014", "manylinux2010", "manylinux1")


def fetch(build: Build) -> None:
    """Download the wheels of the lock for every Python of the build, and for the one that builds."""
    build.wheelhouse.mkdir(parents=True, exist_ok=True)
    for python in build.pythons:
        lock = _lock_for(build, python, without=frozenset())
        _pip("download", "--dest", build.wheelhouse, *_for(build, python), "--require-hashes", "--requirement", lock)
    own = ("--only-binary", ":all:", "--require-hashes", "--requirement", build.lock)
    _pip("download", "--dest", build.wheelhouse, *own)


def install(build: Build, python: str, inferd: Path, site_packages: Path) -> None:
    """Lay inferd's wheel and everything it needs into `site_packages`; nothing is fetched, nothing is run."""
    lock = _lock_for(build, python, without=BUILD_ONLY)
    common: tuple[str | Path, ...] = ("--no-index", *_for(build, python), "--target", site_packages, "--no-compile")
    _pip("install", *common, "--find-links", build.wheelhouse, "--require-hashes", "--requirement", lock)
    _pip("install", *common, "--upgrade", inferd)


def _pip(command: str, *args: str | Path) -> None:
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", command, "--no-deps", *args)


def _for(build: Build, python: str) -> list[str]:
    """Options that make pip choose wheels for a machine and a Python that it does not run on."""
    standards = [*(f"manylinux_2_{minor}" for minor in _GLIBC_MINORS), *_OLD_STANDARDS]
    platforms = [word for standard in standards for word in ("--platform", f"{standard}_{build.machine}")]
    wanted = ["--implementation", "cp", "--python-version", python, "--ignore-requires-python"]
    return ["--only-binary", ":all:", *wanted, *platforms]


def _lock_for(build: Build, python: str, *, without: frozenset[str]) -> Path:
    """Write the pins that hold for this Python, and return where."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "platform_machine": build.machine,
    }
    pinned = _pinned(build.lock.read_text(), environment)
    build.work.mkdir(parents=True, exist_ok=True)
    path = build.work / f"lock-{build.arch}-{python}.txt"
    path.write_text("".join(f"{line}\n" for name, line in pinned if name not in without))
    return path


def _pinned(lock: str, environment: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The names, and the pins with their hashes but without markers, that hold in this environment."""
    for line in re.sub(r"\\\n", " ", lock).splitlines():
        text, *hashes = line.split("--hash=")
        requirement = Requirement(text.strip())
        if requirement.marker is None or requirement.marker.evaluate(environment):
            pin = f"{requirement.name}{requirement.specifier}"
            yield requirement.name, " ".join([pin, *(f"--hash={value.strip()}" for value in hashes)])
