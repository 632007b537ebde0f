"""Every configured listener from the outside: who answers there, if anybody, and may callers come in?

A TCP listener counts as ours when it shows one of our certificates: that needs neither a token nor trust.
"""

from __future__ import annotations

import errno
import grp
import json
import os
import socket
import ssl
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inferd import Client, InferdError
from inferd_agent.config import Listener
from inferd_agent.doctor.finding import Finding, error, ok, warning
from inferd_agent.doctor.grpc_call import is_ready
from inferd_agent.doctor.places import Place, look

ANSWER_S = 3.0
Answer = Literal["nobody", "ready", "not ready", "no access", "foreign"]
_NOT_OURS = "it shows a certificate that is not this daemon's"
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  what to listen on, which nobody can call


@dataclass(frozen=True, slots=True)
class Door:
    """A listener with what a call there met; `place` is a Unix socket's inode."""

    listener: Listener
    answer: Answer
    detail: str = ""
    place: Place | None = None
    group: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How Unix sockets should be, by the configuration; an empty group is any."""

    mode: int
    group: str


def knock(listener: Listener, certificates: Sequence[Path]) -> Door:
    """Call a listener. `certificates` are the files of those that the daemon may show on TCP."""
    if listener.kind == "tcp":
        answer, detail = _knock_tcp(listener, certificates)
        return Door(listener, answer, detail)
    path = Path(listener.path)
    place = look(path)
    answer, detail = _knock_unix(listener, place, certificates)
    return Door(listener, answer, detail, place, _group_name(place.gid) if place.exists else "")


def check_doors(doors: Sequence[Door], wanted: Wanted, start: str) -> Iterator[Finding]:
    """`start` is the command that starts the daemon."""
    is_running = any(door.answer in ("ready", "not ready") for door in doors)
    if not is_running and not any(door.answer == "no access" for door in doors):
        yield warning("listeners", "no daemon answers at any listener", start)
    for door in doors:
        yield from _check_door(door, is_running)
        if door.place is not None and is_running and door.answer != "nobody":
            yield from _check_socket(door.listener.path, door.place, door.group, wanted)


def _check_door(door: Door, is_running: bool) -> Iterator[Finding]:
    name = str(door.listener)
    match door.answer:
        case "ready":
            yield ok("listeners", f"{name}: the daemon answers{door.detail}")
        case "not ready":
            yield warning("listeners", f"{name}: the daemon answers, but not every model is up", "inferd models")
        case "no access":
            yield warning("listeners", f"{name}: {door.detail}", "run the doctor as root or as a member of its group")
        case "foreign":
            yield error(
                "listeners", f"{name} is taken by another program: {door.detail}",
                "end it (ss -ltnxp shows which), or configure another listener",
            )  # fmt: skip
        case "nobody" if is_running:
            yield error(
                "listeners", f"{name}: the daemon runs, but not here{door.detail}",
                "restart it: systemctl restart inferd; it listens as configured when it started",
            )  # fmt: skip
        case "nobody":
            yield ok("listeners", f"{name} is free")


def _check_socket(path: str, place: Place, group: str, wanted: Wanted) -> Iterator[Finding]:
    mode = stat.S_IMODE(place.mode)
    if mode != wanted.mode:
        yield warning(
            "listeners", f"{path} has mode {mode:04o}, configured is {wanted.mode:04o}",
            "restart the daemon; under inferd.socket set SocketMode= there",
        )  # fmt: skip
    if wanted.group and group != wanted.group:
        yield warning(
            "listeners", f"{path} belongs to group {group}, configured is {wanted.group}",
            "restart the daemon; under inferd.socket set SocketGroup= there",
        )  # fmt: skip


def _knock_unix(listener: Listener, place: Place, certificates: Sequence[Path]) -> tuple[Answer, str]:
    if place.problem:
        return "no access", f"it cannot be looked at: {place.problem}"
    if not place.exists:
        return "nobody", ""
    if not stat.S_ISSOCK(place.mode):
        return "foreign", "there is something that is not a socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(ANSWER_S)
        outcome = sock.connect_ex(listener.path)
        if listener.memory and not outcome:
            return _offer_nothing(sock)
        if listener.grpc and not outcome:
            return _call(listener, sock, certificates)
    if outcome == errno.ECONNREFUSED:
        return "nobody", ": its socket is left over"
    if outcome == errno.EACCES:
        return "no access", "your user may not open it"
    if outcome:
        return "foreign", os.strerror(outcome)
    ca = f"{listener.path}.ca.pem" if listener.tls else None
    return _ask(f"unix:{listener.path}" + ("" if listener.tls else "?tls=off"), ca)


def _offer_nothing(sock: socket.socket) -> tuple[Answer, str]:
    """What answers where memory is handed over: a daemon refuses a line that brings none, in its own words."""
    try:
        sock.sendall(b"{}\n")
        refusal = json.loads(sock.recv(4096))
        return ("ready", ", and takes memory") if refusal["status"] else ("foreign", "it takes what is no memory")
    except (OSError, ValueError, LookupError, TypeError):
        return "foreign", "it takes no memory as inferd does"


def _knock_tcp(listener: Listener, certificates: Sequence[Path]) -> tuple[Answer, str]:
    if not listener.port:
        return "nobody", ": its port is chosen at every start"
    host = _EVERYWHERE.get(listener.host, listener.host)
    try:
        with socket.create_connection((host, listener.port), ANSWER_S) as sock:
            if listener.grpc:
                return _call(listener, sock, certificates)
    except OSError:
        return "nobody", ""
    if not listener.tls:
        return _ask(f"http://{f'[{host}]' if ':' in host else host}:{listener.port}", None)
    try:
        shown = ssl.get_server_certificate((host, listener.port), timeout=ANSWER_S)
    except (OSError, ValueError) as failure:
        return "foreign", f"it speaks no TLS ({failure})"
    if _is_ours(ssl.PEM_cert_to_DER_cert(shown), certificates):
        return "ready", ""
    return "foreign", _NOT_OURS


def _call(listener: Listener, sock: socket.socket, certificates: Sequence[Path]) -> tuple[Answer, str]:
    """Whether gRPC is spoken at a connection, inside the listener's TLS."""
    try:
        with _encrypted(listener, sock) if listener.tls else sock as line:
            if listener.tls and listener.kind == "tcp" and not _is_ours(_shown(line), certificates):
                return "foreign", _NOT_OURS
            return ("ready", ", by gRPC") if is_ready(line, ANSWER_S) else ("not ready", "")
    except (OSError, ValueError) as failure:
        return "foreign", f"it speaks no gRPC{'' if listener.tls else ' without TLS'} ({failure})"


def _encrypted(listener: Listener, sock: socket.socket) -> ssl.SSLSocket:
    """On a Unix socket the CA beside it tells whose it is; on TCP the certificate is compared with ours afterwards."""
    if listener.kind == "unix":
        context = ssl.create_default_context(cafile=f"{listener.path}.ca.pem")
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(sock, server_hostname="localhost")


def _shown(line: socket.socket) -> bytes | None:
    return line.getpeercert(binary_form=True) if isinstance(line, ssl.SSLSocket) else None


def _is_ours(shown: bytes | None, certificates: Sequence[Path]) -> bool:
    return any(_first_certificate(path) == shown for path in certificates)


def _ask(url: str, ca: str | None) -> tuple[Answer, str]:
    try:
        with Client(url, ca=ca, token="", timeout_s=ANSWER_S) as client:
            if client.is_ready():
                return "ready", ""
            return ("not ready", "") if client.is_live() else ("foreign", "it answers nothing about its health")
    except InferdError as failure:
        return "foreign", str(failure)


def _first_certificate(path: Path) -> bytes:
    try:
        text = path.read_text("ascii")
        end = "-----END CERTIFICATE-----"
        return ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN") : text.index(end) + len(end)])
    except (OSError, ValueError):
        return b""


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
