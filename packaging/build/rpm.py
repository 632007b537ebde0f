"""The RPM package: the same tree, packed by rpmbuild, for distributions whose Python is among those that it carries."""

from __future__ import annotations

import shutil
from pathlib import Path

import tree
from checkout import ROOT, Build, run, version

_SPEC = ROOT / "packaging/rpm/inferd.spec"
# Debian's scripts make these; RPM lists them, with their owner.
_FOLDERS = ("var/lib/inferd/models", "var/cache/inferd")


def build(build: Build) -> Path:
    """Build `inferd-VERSION-1.MACHINE.rpm` into the destination and return its path."""
    work = build.work / f"rpm-{build.arch}"
    root = tree.lay(build, work)
    for folder in _FOLDERS:
        (root / folder).mkdir(parents=True)
    tree.normalise(root)
    pythons = " or ".join(f"python(abi) = {python}" for python in build.pythons)
    facts = {"version": version(), "machine": build.machine, "root": root, "pythons": f"({pythons})"}
    spec = work / "inferd.spec"
    spec.write_text(_SPEC.read_text().format(**facts))
    defined = {"_topdir": work / "rpmbuild", "_rpmdir": work / "rpms", "_tmppath": work / "tmp"}
    words = [word for name, value in defined.items() for word in ("--define", f"{name} {value}")]
    run("rpmbuild", "-bb", "--quiet", "--target", build.machine, *words, spec)
    (packed,) = (work / "rpms").rglob("*.rpm")
    return Path(shutil.move(packed, build.dest / packed.name))
