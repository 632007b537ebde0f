"""The Debian package: the tree, the scripts beside this module's `deb` folder, and control files made from both."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from pathlib import Path

import tree
from checkout import ROOT, Build, run, version

_SCRIPTS = ROOT / "packaging/deb"


def build(build: Build) -> Path:
    """Build `inferd_VERSION_ARCH.deb` into the destination and return its path."""
    root = tree.lay(build, build.work / f"deb-{build.arch}")
    _control(build, root)
    tree.normalise(root)
    made = build.dest / f"inferd_{version()}_{build.arch}.deb"
    # More threads would give other bytes.
    run("dpkg-deb", "--root-owner-group", "--threads-max=1", "-Zzstd", "-z12", "--build", root, made)
    return made


def _control(build: Build, root: Path) -> None:
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    folder = root / "DEBIAN"
    folder.mkdir()
    for path in _SCRIPTS.iterdir():
        if path.name != "control":
            shutil.copyfile(path, folder / path.name)
            if path.name in ("postinst", "prerm", "postrm"):
                (folder / path.name).chmod(0o755)
    conffiles = [path for path in files if path.is_relative_to(root / "etc")]
    (folder / "conffiles").write_text("".join(f"/{path.relative_to(root)}\n" for path in conffiles))
    sums = (f"{_md5(path)}  {path.relative_to(root)}\n" for path in files if path not in conffiles)
    (folder / "md5sums").write_text("".join(sums))
    facts = {"version": version(), "arch": build.arch, "size_kib": _size_kib(files)}
    control = (_SCRIPTS / "control").read_text().format(**facts, pythons=_python_relation(build.pythons))
    (folder / "control").write_text(control)


def _python_relation(pythons: tuple[str, ...]) -> str:
    """Which versions of python3 serve: those between the oldest and the newest, without those left out between."""
    minors = [int(python.split(".")[1]) for python in pythons]
    gaps = [
        f"python3 (<< 3.{before + 1}) | python3 (>= 3.{after})"
        for before, after in itertools.pairwise(minors)
        if after > before + 1
    ]
    return ", ".join([f"python3 (>= 3.{minors[0]})", *gaps, f"python3 (<< 3.{minors[-1] + 1})"])


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _size_kib(files: list[Path]) -> int:
    """KiB on disk; what has several names counts once."""
    sizes = {(stat := path.stat()).st_ino: stat.st_size for path in files}
    return sum(-(-size // 1024) for size in sizes.values())
