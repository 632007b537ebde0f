"""A LAN of network namespaces: one switch, N hosts on veth cables, each with its own name, addresses and daemon.

The switch is a bridge in a namespace of its own, so that the machine's own firewall and interfaces have no part in it.
Whatever happens, nothing stays: what still runs in a namespace is killed by its id, and what an earlier run that was
itself killed left behind is removed at the next start.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.e2e.daemon import Daemon

INTERFACE = "eth0"
_NUMBERS = itertools.count()
_OURS = re.compile(r"ifd(\d+)-\d+-\w+")
_NAMES = Path("/run/netns")
_OWN_NAME = 'hostname "$0"; exec ip netns exec "$@"'


@cache
def missing() -> str:
    """Why there is no network for the tests; empty where there is."""
    if "FLEET_CALLS" not in os.environ:
        return "takes a minute: make test-fleet"
    if os.geteuid() != 0:
        return "network namespaces need root"
    absent = [tool for tool in ("ip", "unshare", "hostname", "sysctl") if not shutil.which(tool)]
    if absent:
        return f"not installed: {', '.join(absent)}"
    try:
        with Network("try"):
            return ""
    except (RuntimeError, AssertionError, subprocess.TimeoutExpired) as error:
        return f"no network of namespaces here: {' '.join(str(error).split())}"


class Host:
    """A machine of the network. Its host name is its `name`; files and processes are the test's own."""

    def __init__(self, network: Network, number: int, name: str) -> None:
        self.name = name
        self.namespace = f"{network.prefix}-{name}"
        self.address = f"10.97.0.{number}"
        self.address6 = f"fd97::{number}"
        self._network = network
        self._port = f"port{number}"

    def plug_in(self) -> None:
        """Make the namespace and its cable to the switch."""
        switch, own = self._network.switch, self.namespace
        _ip("netns", "add", own)
        for setting in ("all", "default"):  # no waiting for addresses to prove unique
            self.run("sysctl", "-qw", f"net.ipv6.conf.{setting}.accept_dad=0")
        _ip("-n", own, "link", "set", "lo", "up")
        _ip("-n", switch, "link", "add", self._port, "type", "veth", "peer", "name", INTERFACE, "netns", own)
        self.rejoin()
        _ip("-n", switch, "link", "set", self._port, "up")
        _ip("-n", own, "link", "set", INTERFACE, "up")
        _ip("-n", own, "address", "add", f"{self.address}/24", "dev", INTERFACE)
        _ip("-n", own, "address", "add", f"{self.address6}/64", "dev", INTERFACE, "nodad")

    def leave(self) -> None:
        """A partition: the cable stays in, nothing gets through."""
        _ip("-n", self._network.switch, "link", "set", self._port, "nomaster")

    def rejoin(self) -> None:
        """The end of a partition."""
        _ip("-n", self._network.switch, "link", "set", self._port, "master", "lan")

    def command(self, *args: str) -> list[str]:
        """The command line that runs `args` on this host; the process keeps its id, so signals reach it."""
        return ["unshare", "--uts", "sh", "-c", _OWN_NAME, self.name, self.namespace, *args]

    def run(
        self, *args: str, timeout_s: float = 120, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on this host and wait; a failure shows what it said, unless `check` is False."""
        done = subprocess.run(
            self.command(*args), capture_output=True, text=True, timeout=timeout_s, check=False, **options
        )
        assert not check or done.returncode == 0, f"{self.name}: {args} ended with {done.returncode}:\n{done.stderr}"
        return done

    def python(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run Python on this host, as in `python("-m", "tests.fleet.some_module")`."""
        return self.run(sys.executable, *args, **options)

    def popen(self, *args: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command on this host; what still runs at the end of the network is killed."""
        return subprocess.Popen(self.command(*args), text=True, **options)

    def daemon(self, folder: Path, **options: Any) -> Daemon:
        """A daemon on this host, not yet started; arguments as `Daemon` has them."""
        folder.mkdir(parents=True, exist_ok=True)
        return Daemon(folder, prefix=tuple(self.command()), **options)


class Network:
    """`with Network("one", "two") as lan:` hosts by name, as `lan["one"]`."""

    def __init__(self, *names: str) -> None:
        self.prefix = f"ifd{os.getpid()}-{next(_NUMBERS)}"
        self.switch = f"{self.prefix}-switch"
        self.hosts = tuple(Host(self, number, name) for number, name in enumerate(names, 1))

    def __getitem__(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    def __enter__(self) -> Self:
        remove_left_behind()
        try:
            _ip("netns", "add", self.switch)
            _ip("-n", self.switch, "link", "add", "lan", "type", "bridge", "mcast_snooping", "0", "forward_delay", "0")
            _ip("-n", self.switch, "link", "set", "lan", "up")
            for host in self.hosts:
                host.plug_in()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill what runs here and remove everything; callable twice."""
        for namespace in (*(host.namespace for host in self.hosts), self.switch):
            _remove(namespace)


def remove_left_behind() -> None:
    """Remove the networks of runs that are no more; another run may do the same now."""
    for name in namespaces():
        owner = _OURS.fullmatch(name)
        if owner and not Path(f"/proc/{owner[1]}").exists():
            with contextlib.suppress(RuntimeError):
                _remove(name)


def _remove(namespace: str) -> None:
    if namespace not in namespaces():
        return
    for pid in _ip("netns", "pids", namespace).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    _ip("netns", "del", namespace)


def namespaces() -> list[str]:
    """All network namespaces of this machine that have a name; `ip` stumbles over those of others that just end."""
    return [path.name for path in _NAMES.glob("*")]


def _ip(*args: str) -> str:
    done = subprocess.run(["ip", *args], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout
