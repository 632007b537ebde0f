"""A wheelhouse of a few made-up wheels, so that whole packages are built within seconds."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_LINUX = "manylinux_2_17_x86_64"

# What the lock says of each: name, version, tag, and for which Pythons.
_WHEELS = (
    ("plain", "1.0", "py3-none-any", ""),
    ("native", "1.0", f"cp311-cp311-{_LINUX}", "python_full_version < '3.12'"),
    ("native", "2.0", f"cp313-cp313-{_LINUX}", "python_full_version >= '3.12'"),
    ("hatchling", "1.0", "py3-none-any", ""),
)


def make(folder: Path) -> tuple[Path, Path]:
    """Write the wheels and a lock of them, and return the folder of the wheels and the lock."""
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    lock = folder / "lock.txt"
    with lock.open("w") as file:
        for name, version, tag, marker in _WHEELS:
            path = wheels / f"{name}-{version}-{tag}.whl"
            _write_wheel(path, name, version, tag)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            file.write(f"{name}=={version}{' ; ' if marker else ''}{marker} \\\n    --hash=sha256:{digest}\n")
    return wheels, lock


def build(what: str, folder: Path, *options: str | Path, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
    """Build a package of made-up wheels; what is between and what comes of it lie below the folder."""
    wheels, lock = folder / "wheels", folder / "lock.txt"
    if not lock.exists():
        make(folder)
    places = ("--wheelhouse", wheels, "--lock", lock, "--work", folder / "work", "--dest", folder / "dist")
    command = (sys.executable, ROOT / "packaging/build", what, "--arch", "amd64", *places, *options)
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, umask=umask)


def _write_wheel(path: Path, name: str, version: str, tag: str) -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}/__init__.py", f"VERSION = {version!r}\n")
        file.writestr(f"{name}/common.py", "# the same in every version\n" * 100)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n")
        file.writestr(f"{info}/entry_points.txt", f"[console_scripts]\n{name}-tool = {name}:main\n")
        file.writestr(f"{info}/RECORD", f"{name}/__init__.py,,\n")
