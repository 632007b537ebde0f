"""Files and folders: whether the daemon's user can use them, who else can, and whether their disks have room.

`look` reads, everything else is told what was found. A place that is not there is a fact, not a failure.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from inferd_agent.doctor.finding import Finding, error, ok, warning

MiB = 1 << 20
FULL_BYTES, TIGHT_BYTES = 64 * MiB, 1024 * MiB
READ, WRITE, ENTER = 4, 2, 1
_SECRETS = ("tokens.json*", "*.key", "*.token", "tls/*.key", "tls/*key.pem")


@dataclass(frozen=True, slots=True)
class User:
    """Who the daemon runs as; `groups` are all of its group ids."""

    name: str
    uid: int
    groups: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Place:
    """What is at a path, and how its disk stands; `problem` is why it could not be looked at."""

    path: str
    exists: bool = False
    mode: int = 0
    uid: int = 0
    gid: int = 0
    free_bytes: int | None = None
    disk: int = 0
    is_read_only: bool = False
    problem: str = ""

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    def allows(self, user: User, wanted: int) -> bool:
        """Whether the mode lets the user do all of READ, WRITE, ENTER; root may do everything."""
        if user.uid == 0:
            return True
        shift = 6 if user.uid == self.uid else 3 if self.gid in user.groups else 0
        return (self.mode >> shift) & wanted == wanted


def look(path: Path) -> Place:
    """The place itself; for what is not there yet, the disk that it would be on."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        above = next((each for each in path.parents if each.is_dir()), Path("/"))
        return Place(str(path), free_bytes=_free_bytes(above), disk=above.stat().st_dev)
    except OSError as failure:
        return Place(str(path), problem=failure.strerror or str(failure))
    flags = os.statvfs(path).f_flag
    return Place(
        str(path), True, status.st_mode, status.st_uid, status.st_gid, _free_bytes(path), status.st_dev,
        bool(flags & os.ST_RDONLY),
    )  # fmt: skip


def secrets_in(folders: Iterable[Path]) -> tuple[Place, ...]:
    """Tokens and private keys as they lie in state and configuration folders."""
    found = {path for folder in folders for pattern in _SECRETS for path in _glob(folder, pattern)}
    return tuple(look(path) for path in sorted(found))


def check_owned(what: str, place: Place, user: User) -> Iterator[Finding]:
    """A folder that the daemon writes: its own, writable, and nobody else's."""
    path = quote(place.path)
    if place.problem:
        yield error(what, f"{place.path} cannot be looked at: {place.problem}", "run the doctor as root (sudo)")
    elif not place.exists:
        yield ok(what, f"{place.path} is not there yet; the daemon makes it")
    elif not place.is_folder:
        yield error(what, f"{place.path} is not a folder", f"mv {path} {path}.old")
    elif place.is_read_only:
        yield error(what, f"{place.path} is on a disk mounted read-only", "mount it read-write, or configure another")
    elif not place.allows(user, READ | WRITE | ENTER):
        yield error(what, f"{user.name} cannot write {place.path}", f"chown -R {user.name} {path}")
    elif place.mode & 0o022:
        yield error(what, f"others than {user.name} can write {place.path}", f"chmod go-w {path}")
    else:
        yield ok(what, f"{user.name} can write {place.path}")


def check_models(places: Iterable[Place], user: User) -> Iterator[Finding]:
    """Model folders need only be read."""
    for place in places:
        path = quote(place.path)
        if place.problem:
            yield error("models", f"{place.path} cannot be looked at: {place.problem}", "run the doctor as root (sudo)")
        elif not place.exists:
            yield warning("models", f"{place.path} is not there, so nothing is served from it", f"mkdir -p {path}")
        elif not place.allows(user, READ | ENTER):
            yield error("models", f"{user.name} cannot read {place.path}", f"chmod -R o+rX {path}")
        elif place.mode & 0o002 and not place.mode & stat.S_ISVTX:
            yield error("models", f"every user can put models into {place.path}", f"chmod o-w {path}")
        else:
            yield ok("models", f"{user.name} can read {place.path}")


def check_disks(places: Iterable[Place]) -> Iterator[Finding]:
    """Each disk once, under the first path that lies on it."""
    disks: dict[int, Place] = {}
    for place in places:
        if place.free_bytes is not None:
            disks.setdefault(place.disk, place)
    for place in disks.values():
        assert place.free_bytes is not None
        text = f"{place.free_bytes / MiB:,.0f} MiB free for {place.path}"
        if place.free_bytes < FULL_BYTES:
            yield error("disk", f"only {text}", "make room: certificates, tokens and plans cannot be written")
        elif place.free_bytes < TIGHT_BYTES:
            yield warning("disk", f"only {text}", "make room: new models and compiled ones may not fit")
        else:
            yield ok("disk", text)


def check_secrets(places: Iterable[Place]) -> Iterator[Finding]:
    """Private keys and tokens: not for every user to read, not for the group to change."""
    found = list(places)
    exposed = [place for place in found if place.exists and place.mode & 0o027]
    for place in exposed:
        who = "every user" if place.mode & 0o007 else "its group"
        verb = "read" if place.mode & 0o004 else "change"
        yield error("secrets", f"{who} can {verb} {place.path}", f"chmod 0600 {quote(place.path)}, then replace it")
    if not exposed:
        yield ok("secrets", f"{len(found)} files with keys or tokens, none open to others")


def check_configuration_file(place: Place, user: User) -> Iterator[Finding]:
    """Readable to the daemon, writable to nobody but its owner."""
    path = quote(place.path)
    if place.mode & 0o002:
        yield error("configuration", f"every user can change {place.path}", f"chmod o-w {path}")
    if not place.allows(user, READ):
        yield error(
            "configuration", f"{user.name} cannot read {place.path}", f"chgrp {user.name} {path}; chmod g+r {path}"
        )


def _glob(folder: Path, pattern: str) -> list[Path]:
    try:
        return [path for path in folder.glob(pattern) if path.is_file() and not path.name.endswith(".lock")]
    except OSError:
        return []


def _free_bytes(path: Path) -> int | None:
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
