"""Whether multicast DNS works here: a question sent to its group on every interface must come back to us.

The kernel loops multicast back to its sender through the packet filter, out and in: what does not return would not be
heard from others either. Nothing is asked that a device would answer.
"""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from inferd_agent.doctor.finding import Finding, error, ok, warning

GROUP, PORT = "224.0.0.251", 5353
HEARD_S = 1.0
_UP, _LOOPBACK, _MULTICAST = 0x1, 0x8, 0x1000


@dataclass(frozen=True, slots=True)
class Interface:
    """One that could carry multicast; `problem` is why it did not."""

    name: str
    problem: str = ""


def read_interfaces(root: Path = Path("/")) -> tuple[str, ...]:
    """Interfaces that are up, carry multicast and are not the loopback."""
    found = []
    for folder in sorted((root / "sys/class/net").glob("*")):
        with contextlib.suppress(OSError, ValueError):
            flags = int((folder / "flags").read_text("ascii"), 16)
            if flags & _UP and flags & _MULTICAST and not flags & _LOOPBACK:
                found.append(folder.name)
    return tuple(found)


def listen_to_ourselves(names: Iterable[str], *, port: int = PORT, heard_s: float = HEARD_S) -> tuple[Interface, ...]:
    """Send a question on each interface and wait for it, all together at most a second or so."""
    return tuple(Interface(name, _try(name, port, heard_s)) for name in list(names)[:16])


def check_multicast(interfaces: Iterable[Interface], *, is_wanted: bool) -> Iterator[Finding]:
    """An error only where the daemon should be found on the LAN."""
    found = list(interfaces)
    say = error if is_wanted else warning
    if not found:
        yield say(
            "mdns", "no interface that is up carries multicast", "connect a network; bridges and VPNs may lack it"
        )
    for each in found:
        if each.problem:
            yield say(
                "mdns", f"multicast DNS does not work on {each.name}: {each.problem}",
                f"let UDP port {PORT} to and from {GROUP} through the firewall",
            )  # fmt: skip
        else:
            yield ok("mdns", f"multicast DNS works on {each.name}")


def _try(name: str, port: int, heard_s: float) -> str:
    """Why our own question is not heard; "" where it is."""
    question = _question()
    try:
        index = socket.if_nametoindex(name)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((GROUP, port))
            mreqn = struct.pack("4s4si", socket.inet_aton(GROUP), bytes(4), index)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, mreqn)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, mreqn)
            sock.sendto(question, (GROUP, port))
            return "" if _hears(sock, question, heard_s) else "what is sent does not come back"
    except OSError as failure:
        return failure.strerror or str(failure)


def _hears(sock: socket.socket, question: bytes, heard_s: float) -> bool:
    end_s = time.monotonic() + heard_s
    while (left_s := end_s - time.monotonic()) > 0:
        readable, _, _ = select.select([sock], [], [], left_s)
        if readable and sock.recv(9000) == question:
            return True
    return False


def _question() -> bytes:
    """A question for a name that nobody has, so that nobody answers."""
    label = f"inferd-doctor-{secrets.token_hex(4)}".encode()
    return (
        struct.pack("!6H", 0, 0, 1, 0, 0, 0) + bytes([len(label)]) + label + b"\x05local\0" + struct.pack("!2H", 1, 1)
    )
