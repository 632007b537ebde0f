"""Builds what is installed: `python packaging/build wheelhouse | deb | rpm | bundle`.

`wheelhouse` fetches every wheel by checksum and is the only step that needs a network; all else is made from those
wheels and this checkout alone, and two builds of one commit give the same bytes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import bundle
import deb
import rpm
import wheels
from checkout import ARCHITECTURES, ROOT, Build, host_architecture

_BUILDERS = {"deb": deb.build, "rpm": rpm.build, "bundle": bundle.build}


def main() -> int | str:
    given = _parser().parse_args()
    values = {name: value for name, value in vars(given).items() if name != "what"}
    build = Build(**values | {"pythons": tuple(given.pythons), "debs": tuple(given.debs)})
    try:
        if given.what == "wheelhouse":
            wheels.fetch(build)
            return 0
        if not any(build.wheelhouse.glob("*.whl")):
            return f"no wheels in {build.wheelhouse}; `make wheelhouse` fetches them"
        build.dest.mkdir(parents=True, exist_ok=True)
        made = _BUILDERS[given.what](build)
    except subprocess.CalledProcessError as error:
        return f"`{' '.join(map(str, error.cmd[:6]))} ...` failed; what it said is above"
    sys.stdout.write(f"{made}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="packaging/build", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("what", choices=("wheelhouse", *_BUILDERS))
    add("--arch", choices=sorted(ARCHITECTURES), default=host_architecture())
    add("--pythons", type=_pythons, default="3.11,3.13", help="minor versions to carry packages for (%(default)s)")
    add("--lock", type=_path, default=ROOT / "packaging/locks/cpu.txt", help="pins and checksums of all wheels")
    add("--wheelhouse", type=_path, default=ROOT / "build/wheelhouse", help="where the wheels lie")
    add("--work", type=_path, default=ROOT / "build", help="for what lies between")
    add("--dest", type=_path, default=ROOT / "dist", help="where the result goes")
    add("--models", type=_path, default=ROOT / "agent/inferd_agent/demo/models", help="bundle: the models to carry")
    add("--debs", type=_path, nargs="*", default=(), help="bundle: further packages that the site's machines lack")
    return parser


def _pythons(text: str) -> list[str]:
    return sorted(text.split(","), key=lambda python: int(python.split(".")[1]))


def _path(text: str) -> Path:
    return Path(text).resolve()


if __name__ == "__main__":
    sys.exit(main())
