"""Builds what is installed: `python packaging/build wheelhouse | deb`.

`wheelhouse` fetches every wheel by checksum and is the only step that needs a network; all else is made from those
wheels and this checkout alone, and two builds of one commit give the same bytes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import deb
import wheels
from checkout import ARCHITECTURES, ROOT, Target, host_architecture


def main() -> int | str:
    parser = argparse.ArgumentParser(prog="packaging/build", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("wheelhouse", "deb"))
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), default=host_architecture())
    parser.add_argument(
        "--pythons", default="3.11,3.13", help="the distributions' Pythons to carry packages for (default: %(default)s)"
    )
    parser.add_argument("--wheelhouse", type=Path, default=ROOT / "build/wheelhouse")
    parser.add_argument("--dest", type=Path, default=ROOT / "dist", help="where the result goes (default: dist)")
    given = parser.parse_args()
    try:
        _make(given)
    except subprocess.CalledProcessError as error:
        return f"`{' '.join(map(str, error.cmd[:6]))} ...` failed; what it said is above"
    return 0


def _make(given: argparse.Namespace) -> None:
    target = Target(given.arch, tuple(sorted(given.pythons.split(","), key=lambda text: int(text.split(".")[1]))))
    if given.what == "wheelhouse":
        wheels.fetch(target, given.wheelhouse)
        return
    if not given.wheelhouse.is_dir():
        raise SystemExit(f"there is no wheelhouse at {given.wheelhouse}; `make wheelhouse` fetches it")
    given.dest.mkdir(parents=True, exist_ok=True)
    made = deb.build(target, given.wheelhouse, given.dest)
    sys.stdout.write(f"{made}\n")


if __name__ == "__main__":
    sys.exit(main())
