"""The files of a package as they lie on a disk, from `/`: what the .deb and the .rpm hold and the bundle carries.

The virtual environment has one folder of packages for each Python, and the distribution's `python3` finds its own. A
file that is the same for several is one file with several names. Everything has the modes and the date that it is
installed with, so that the same sources give the same tree.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import sys
from pathlib import Path

import pages
import wheels
from checkout import ROOT, Build, epoch, run

# Whose job these record is the package manager's now; they would also hold the paths of the machine that built.
_PIP_RECORDS = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
_LAUNCHER = """\
#!/opt/inferd/bin/python3 -I
from inferd_agent.cli import main

main()
"""


def lay(build: Build, work: Path) -> Path:
    """Lay the whole tree under `work`, anew, and return its root. Raises CalledProcessError where a step fails."""
    shutil.rmtree(work, ignore_errors=True)
    root = work / "root"
    _environment(build, own_wheel(work / "wheel"), root / "opt/inferd")
    _link(root / "usr/bin/inferd", "/opt/inferd/bin/inferd")
    _copy(ROOT / "packaging/etc/inferd.toml", root / "etc/inferd/inferd.toml")
    _units(root / "usr")
    _documents(root / "usr/share/doc/inferd")
    for path, content in pages.written().items():
        _write(root / path, content)
    normalise(root)
    return root


def own_wheel(folder: Path) -> Path:
    """Build inferd's own wheel into a folder and return its path."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder)
    (wheel,) = folder.glob("inferd-*.whl")
    return wheel


def normalise(root: Path) -> None:
    """Give everything below a date and modes that do not depend on who builds, when and where."""
    when = epoch()
    for path in sorted(root.rglob("*"), reverse=True):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (when, when), follow_symlinks=False)
    root.chmod(0o755)
    os.utime(root, (when, when))


def _environment(build: Build, wheel: Path, prefix: Path) -> None:
    laid: list[Path] = []
    for python in build.pythons:
        site_packages = prefix / f"lib/python{python}/site-packages"
        wheels.install(build, python, wheel, site_packages)
        shutil.rmtree(site_packages / "bin", ignore_errors=True)
        for path in site_packages.glob("*.dist-info/*"):
            if path.name in _PIP_RECORDS:
                path.unlink()
        _share(site_packages, laid)
        laid.append(site_packages)
    _link(prefix / "bin/python3", "/usr/bin/python3")
    _write(prefix / "pyvenv.cfg", "home = /usr/bin\ninclude-system-site-packages = false\n")
    _write(prefix / "bin/inferd", _LAUNCHER)
    (prefix / "bin/inferd").chmod(0o755)


def _share(folder: Path, others: list[Path]) -> None:
    """Make files that one of the other folders has too, at the same place, one file with both names."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        for other in others:
            same = other / path.relative_to(folder)
            if same.is_file() and filecmp.cmp(path, same, shallow=False):
                path.unlink()
                path.hardlink_to(same)
                break


def _units(usr: Path) -> None:
    """The system's units, those for a user, and drop-ins that an administrator copies."""
    folders = {"user": usr / "lib/systemd/user", "drop-ins": usr / "share/inferd/drop-ins"}
    for path in sorted((ROOT / "systemd").rglob("*")):
        if path.is_file():
            _copy(path, folders.get(path.parent.name, usr / "lib/systemd/system") / path.name)


def _documents(folder: Path) -> None:
    _copy(ROOT / "LICENSE", folder / "copyright")
    _copy(ROOT / "README.md", folder / "README.md")
    for path in (ROOT / "docs").glob("*.md"):
        _copy(path, folder / path.name)


def _copy(source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, to)


def _write(to: Path, content: str | bytes) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(content.encode() if isinstance(content, str) else content)


def _link(path: Path, to: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)
