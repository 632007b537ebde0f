"""Wheels: fetched by checksum for every Python that a package serves, and laid out without running any of them.

pip judges a lock's markers (`python_full_version < '3.12'`) by the Python that it runs on, so they are judged here, by
the Python that is meant.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from checkout import ROOT, Target, run
from packaging.requirements import Requirement

LOCK = ROOT / "packaging/locks/cpu.txt"
# What builds inferd's own wheel is in the lock too, for `make setup`; nothing that is installed needs it.
BUILD_ONLY = frozenset({"hatchling", "pathspec", "pluggy", "tomlkit", "trove-classifiers"})
# The oldest C library that we install on: Debian 12's, with every older standard that wheels are built to.
_GLIBC_MINOR = 36


def fetch(target: Target, wheelhouse: Path) -> None:
    """Download the wheels of the lock for every Python of the target, and for the one that builds."""
    wheelhouse.mkdir(parents=True, exist_ok=True)
    for python in target.pythons:
        lock = _written_lock(wheelhouse.parent, target, python, frozenset())
        _pip("download", "--dest", wheelhouse, *_for_python(target, python), "--requirement", lock)
    _pip("download", "--dest", wheelhouse, "--only-binary", ":all:", "--requirement", LOCK)


def install(target: Target, python: str, wheelhouse: Path, inferd: Path, site_packages: Path) -> None:
    """Lay inferd's wheel and everything it needs into `site_packages`; nothing is fetched, nothing is run."""
    lock = _written_lock(wheelhouse.parent, target, python, BUILD_ONLY)
    offline = ("--no-index", "--find-links", wheelhouse, *_for_python(target, python))
    where = ("--target", site_packages, "--no-compile", "--no-warn-script-location")
    _pip("install", *offline, *where, "--requirement", lock)
    _pip("install", "--no-index", *_for_python(target, python, is_ours=True), *where, inferd)


def _pip(command: str, *args: str | Path) -> None:
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", command, "--no-deps", *args)


def _for_python(target: Target, python: str, *, is_ours: bool = False) -> list[str]:
    legacy = ("manylinux2014", "manylinux2010", "manylinux1")
    names = [*(f"manylinux_2_{minor}" for minor in range(_GLIBC_MINOR, 4, -1)), *legacy]
    platforms = [word for name in names for word in ("--platform", f"{name}_{target.machine}")]
    hashes = [] if is_ours else ["--require-hashes"]
    python_words = ["--implementation", "cp", "--python-version", python, "--ignore-requires-python"]
    return ["--only-binary", ":all:", *python_words, *platforms, *hashes]


def _written_lock(folder: Path, target: Target, python: str, without: frozenset[str]) -> Path:
    path = folder / f"lock-{target.arch}-{python}.txt"
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "platform_machine": target.machine,
    }
    lines = [line for name, line in _pinned(LOCK.read_text(), environment) if name not in without]
    path.write_text("\n".join(lines) + "\n")
    return path


def _pinned(lock: str, environment: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The names and pins, with hashes and without markers, that hold in this environment."""
    for line in re.sub(r"\\\n", " ", lock).splitlines():
        text, *hashes = line.split("--hash=")
        requirement = Requirement(text.strip())
        if requirement.marker is None or requirement.marker.evaluate(environment):
            pin = f"{requirement.name}{requirement.specifier}"
            yield requirement.name, " ".join([pin, *(f"--hash={value.strip()}" for value in hashes)])
