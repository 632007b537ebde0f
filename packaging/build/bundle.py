"""The bundle: packages, models, an installer and checksums in one file, for sites without a network."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import tarfile
from pathlib import Path

import deb
import tree
from checkout import ROOT, Build, epoch, version

_PARTS = ROOT / "packaging/bundle"


def build(build: Build) -> Path:
    """Build `inferd-VERSION-ARCH-bundle.tar` into the destination and return its path; its checksum lies beside it."""
    work = build.work / f"bundle-{build.arch}"
    shutil.rmtree(work, ignore_errors=True)
    folder = work / f"inferd-{version()}-{build.arch}"
    (folder / "packages").mkdir(parents=True)
    deb.build(dataclasses.replace(build, dest=folder / "packages"))
    for path in build.debs:
        shutil.copy2(path, folder / "packages")
    tree.own_wheel(folder / "sdk")
    shutil.copytree(build.models, folder / "models")
    shutil.copyfile(_PARTS / "install.sh", folder / "install.sh")
    (folder / "install.sh").chmod(0o755)
    facts = {"version": version(), "arch": build.arch}
    (folder / "README").write_text((_PARTS / "README").read_text().format(**facts))
    (folder / "SHA256SUMS").write_text(_sums(folder))
    tree.normalise(folder)
    made = build.dest / f"{folder.name}-bundle.tar"
    with tarfile.open(made, "w", format=tarfile.GNU_FORMAT) as file:
        file.add(folder, folder.name, filter=_nobodys)
    (build.dest / f"{made.name}.sha256").write_text(f"{_sha256(made)}  {made.name}\n")
    return made


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without who built it; the date is the build's whatever the file system keeps of it."""
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = epoch()
    return member


def _sums(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return "".join(f"{_sha256(path)}  {path.relative_to(folder)}\n" for path in files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
