"""Files and folders: what the daemon's user may do there, who else may, and how full the disks are."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from inferd_agent.doctor.finding import Finding, Level
from inferd_agent.doctor.places import (
    FULL_BYTES,
    TIGHT_BYTES,
    Place,
    User,
    check_configuration_file,
    check_disks,
    check_models,
    check_owned,
    check_secrets,
    look,
    secrets_in,
)

DAEMON = User("inferd", 990, frozenset({990}))
FOLDER = Place("/state", True, stat.S_IFDIR | 0o700, 990, 990, 1 << 40, 1)


def one(findings: object) -> Finding:
    (found,) = findings  # type: ignore[misc, attr-defined]
    assert isinstance(found, Finding)
    assert bool(found.fix) == (found.level is not Level.OK)
    return found


@pytest.mark.parametrize(
    ("place", "level", "said"),
    [
        (FOLDER, Level.OK, "can write"),
        (Place("/state"), Level.OK, "not there yet"),
        (replace(FOLDER, uid=0), Level.ERROR, "inferd cannot write /state"),
        (replace(FOLDER, uid=0, mode=stat.S_IFDIR | 0o770), Level.ERROR, "others than inferd"),
        (replace(FOLDER, mode=stat.S_IFDIR | 0o777), Level.ERROR, "others than inferd"),
        (replace(FOLDER, is_read_only=True), Level.ERROR, "read-only"),
        (replace(FOLDER, mode=stat.S_IFREG | 0o700), Level.ERROR, "not a folder"),
        (Place("/state", problem="Permission denied"), Level.ERROR, "Permission denied"),
    ],
)
def test_a_folder_that_the_daemon_writes(place: Place, level: Level, said: str) -> None:
    """It is the daemon's own, writable and closed to writers; everything else is an error with a fix."""
    found = one(check_owned("state", place, DAEMON))
    assert (found.level, said in found.text) == (level, True), found


def test_modes_count_as_the_kernel_counts_them() -> None:
    """Owner, group and others are asked in that order and only once; root may do everything."""
    closed_to_owner = replace(FOLDER, mode=stat.S_IFDIR | 0o077)
    assert not closed_to_owner.allows(DAEMON, 7)
    assert replace(closed_to_owner, uid=1).allows(DAEMON, 7)
    assert not replace(FOLDER, uid=1, gid=5, mode=stat.S_IFDIR | 0o750).allows(DAEMON, 4)
    assert replace(FOLDER, uid=1, mode=0).allows(User("root", 0), 7)


@pytest.mark.parametrize(
    ("place", "level", "said"),
    [
        (replace(FOLDER, uid=0, mode=stat.S_IFDIR | 0o755), Level.OK, "can read"),
        (Place("/state"), Level.WARNING, "nothing is served"),
        (replace(FOLDER, uid=0, gid=0), Level.ERROR, "cannot read"),
        (replace(FOLDER, uid=0, mode=stat.S_IFDIR | 0o777), Level.ERROR, "every user"),
    ],
)
def test_a_model_folder(place: Place, level: Level, said: str) -> None:
    """It need only be read, and strangers must not put models into it."""
    found = one(check_models([place], DAEMON))
    assert (found.level, said in found.text) == (level, True), found


def test_disks_are_judged_once_each() -> None:
    """Two folders on one disk are one finding; little room is a warning, next to none an error."""
    first, second = replace(FOLDER, free_bytes=TIGHT_BYTES), Place("/cache", free_bytes=FULL_BYTES - 1, disk=2)
    levels = [found.level for found in check_disks([first, replace(first, path="/x"), second])]
    assert levels == [Level.OK, Level.ERROR]
    assert one(check_disks([replace(FOLDER, free_bytes=FULL_BYTES)])).level is Level.WARNING


def test_secrets_that_others_can_read_are_found(tmp_path: Path) -> None:
    """Token files and private keys are found where they lie; a mode beyond 0640 is an error naming the file."""
    (tmp_path / "tls").mkdir()
    for name in ("tokens.json", "tls/ca.key", "tls/key.pem", "tls/cert.pem"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o600)
    places = secrets_in([tmp_path])
    assert [Path(place.path).name for place in places] == ["ca.key", "key.pem", "tokens.json"]
    assert one(check_secrets(places)).level is Level.OK
    (tmp_path / "tokens.json").chmod(0o644)
    found = one(check_secrets(secrets_in([tmp_path])))
    assert (found.level, "tokens.json" in found.text) == (Level.ERROR, True)
    (tmp_path / "tokens.json").chmod(0o640)
    assert one(check_secrets(secrets_in([tmp_path]))).level is Level.OK


def test_the_configuration_file_is_the_administrators() -> None:
    """Unreadable to the daemon or writable to all: errors; as packages install it: nothing to say."""
    file = Place("/etc/inferd/inferd.toml", True, stat.S_IFREG | 0o640, 0, 990)
    assert list(check_configuration_file(file, DAEMON)) == []
    assert "cannot read" in one(check_configuration_file(replace(file, gid=0), DAEMON)).text
    assert "every user" in one(check_configuration_file(replace(file, mode=stat.S_IFREG | 0o646), DAEMON)).text


def test_looking_never_fails(tmp_path: Path) -> None:
    """What is there is described; what is not has the disk that it would be on."""
    found = look(tmp_path)
    assert (found.exists, found.is_folder, found.problem) == (True, True, "")
    absent = look(tmp_path / "a" / "b")
    assert (absent.exists, absent.disk) == (False, found.disk)
    assert absent.free_bytes
