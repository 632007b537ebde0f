"""A Debian under its own systemd, booted by systemd-nspawn from a tree that debootstrap made once.

Whatever the container writes lies in memory and is gone with it, at the latest when the tests are killed. It has no
network but loopback, and no part in the host's systemd: commands enter its namespaces, as root or as one of its users.
One container runs at a time, for tree and control groups are shared; where none can be had the test is skipped.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SUITE = "bookworm"
PACKAGES = ("systemd", "systemd-sysv", "libpam-systemd", "dbus", "dbus-user-session", "python3", "adduser", "procps")
# As it was before the tests' own home took its place.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inferd-tests"
# Seconds for a mirror to give a Debian, and for another run to end.
MAKE_S, WAIT_S = 300, 300
# All that a command starts or mounts ends with it, and it with us, however we end.
_CONFINED = ("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--mount-proc", "--fork", "--kill-child")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def unmet() -> str:
    """Why no container can be booted here, empty where one can."""
    if os.geteuid() != 0:
        return "only root can boot a container"
    tools = ("systemd-nspawn", "debootstrap", "nsenter", "setpriv")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (apt-get install systemd-container debootstrap)"
    return ""


def base_tree() -> Path:
    """The Debian to boot, made at the first call and kept in the user's cache. Skips where no mirror gives one."""
    CACHE.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:8]
    made = CACHE / f"{SUITE}-{digest}"
    with _alone("debian.lock"):
        if not made.exists() and (failure := _debootstrap(made) and _debootstrap(made)):
            pytest.skip(f"debootstrap gives no Debian here: {failure}")
    return made


def _debootstrap(made: Path) -> str:
    """Make the tree, whole or not at all; what went wrong, if anything."""
    half = Path(tempfile.mkdtemp(prefix="making-", dir=CACHE))
    options = ("--variant=minbase", f"--include={','.join(PACKAGES)}")
    try:
        done = subprocess.run(
            (*_CONFINED, "debootstrap", *options, SUITE, half),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=MAKE_S, check=False,
        )  # fmt: skip
        if done.returncode:
            return done.stdout[-300:].strip() or f"exit code {done.returncode}"
        half.chmod(0o755)
        half.rename(made)
    except subprocess.TimeoutExpired:
        pytest.skip(f"debootstrap takes more than {MAKE_S} s here")
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return ""


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Meanwhile no other run does the same; skips where another one takes too long. The lock falls with the process."""
    with (CACHE / name).open("w") as lock:
        end = time.monotonic() + WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    pytest.skip(f"another run has held {lock.name} for {WAIT_S} s")
            time.sleep(0.2)
        yield


class Container:
    """One booted container. `shared` are host folders, read-only at the same path under /mnt."""

    def __init__(self, tree: Path, log: Path, shared: dict[str, Path]) -> None:
        self._log = log
        binds = [f"--bind-ro={path}:/mnt/{name}" for name, path in shared.items()]
        self._command = (
            *_CONFINED, "systemd-nspawn", "--boot", f"--directory={tree}", "--volatile=overlay",
            f"--machine=inferd-{os.getpid()}", "--private-network", "--register=no", "--keep-unit",
            "--console=pipe", "--quiet", *binds,
        )  # fmt: skip
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._init = 0

    def boot(self) -> None:
        """Returns when systemd says that it runs."""
        with self._log.open("wb") as log:
            self._nspawn = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.until(self._found_init, timeout_s=180)
        self.until(
            lambda: self.run("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded"),
            timeout_s=180,
        )

    def _found_init(self) -> bool:
        """Whether systemd is there: a child of nspawn's, but not the first, which only makes the other."""
        assert self._nspawn is not None
        with contextlib.suppress(OSError):
            for child in (each for nspawn in _children(self._nspawn.pid) for each in _children(nspawn)):
                is_first = re.search(r"^NSpid:.*\t1$", Path(f"/proc/{child}/status").read_text(), re.MULTILINE)
                if is_first and Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                    self._init = child
                    return True
        return self._nspawn_ended()

    def _nspawn_ended(self) -> bool:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, self._log.read_text(errors="replace")
        return False

    def kill(self) -> None:
        """End every process of the container, whatever they do."""
        if self._nspawn is not None:
            with contextlib.suppress(ProcessLookupError):
                if self._init:
                    os.kill(self._init, 9)
                self._nspawn.wait(60)
            self._nspawn.kill()
            self._nspawn.wait(60)
        _remove_groups()

    def inside(self, *command: str, user: str = "") -> tuple[str, ...]:
        """The command of the host's that runs `command` in the container."""
        become = (
            ("runuser", "-u", user, "--", "env", "HOME=/tmp") if user else ("env", "-i", f"PATH={PATH}", "HOME=/root")
        )
        return ("nsenter", "-t", str(self._init), "-m", "-u", "-i", "-n", "-p", "-r", "-w", "--", *become, *command)

    def run(
        self, *command: str, user: str = "", check: bool = True, timeout_s: float = 240, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the container; AssertionError with all that it said where it fails, unless not `check`."""
        done = subprocess.run(
            self.inside(*command, user=user), input=text, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert not check or done.returncode == 0, (
            f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}\n{self.journal()}"
        )
        return done

    def path(self, inside: str) -> Path:
        """A path of the container as the host sees it; symlinks in it lead astray."""
        return Path(f"/proc/{self._init}/root{inside}")

    def write(self, inside: str, content: str) -> None:
        """Write a file in the container, and its folder."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def property(self, name: str, unit: str = "inferd.service") -> str:
        """What `systemctl show` says."""
        return self.run("systemctl", "show", "--value", "--property", name, unit).stdout.strip()

    def journal(self, lines: int = 60) -> str:
        """What the service and systemd said about it of late. What is said just now may come a moment later."""
        command = ("journalctl", "--no-pager", "--output=cat", "--unit=inferd.service", f"--lines={lines}")
        return subprocess.run(self.inside(*command), capture_output=True, text=True, timeout=60, check=False).stdout

    def until(self, condition: Callable[[], object], timeout_s: float = 120) -> None:
        """Wait for what another process does; the test fails when it does not come."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f"did not come true in time\n{self.journal() if self._init else ''}"
            time.sleep(0.1)


@contextlib.contextmanager
def booted(log: Path, shared: dict[str, Path]) -> Iterator[Container]:
    """A container that runs until the block ends."""
    container = Container(base_tree(), log, shared)
    with _alone("container.lock"):
        try:
            container.boot()
            yield container
        finally:
            container.kill()


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _remove_groups() -> None:
    """Take away the control groups that nspawn made below ours and left behind."""
    places = {"name=systemd": "/sys/fs/cgroup/systemd", "": "/sys/fs/cgroup"}
    if Path("/sys/fs/cgroup/unified").is_dir():
        places[""] = "/sys/fs/cgroup/unified"
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        if controllers in places:
            for part in ("payload", "supervisor"):
                folder = Path(places[controllers] + own, part)
                for path in sorted(folder.glob("**"), reverse=True):
                    with contextlib.suppress(OSError):
                        path.rmdir()
