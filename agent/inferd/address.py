"""Where the daemon is and how to trust it: URLs, the environment, and what lies beside a socket.

unix:/path            TLS on a Unix socket; the certificate authority is in `/path.ca.pem`
unix:/path?tls=off    plain, guarded by the socket's mode and the caller's uid alone
https://host:port     TLS, trusting the given CA, else the system's
http://127.0.0.1:port plain, on loopback only: a token must not cross a network in the clear
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from threading import Lock
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

from inferd.errors import BadAddress, TLSError, Unsupported

SYSTEM_SOCKET = "/run/inferd/inferd.sock"
DEFAULT_PORTS = {"https": 443, "http": 80}
# How long a daemon may take from its first caller to its first answer, where systemd listens for it.
STARTING_S = 60.0


@dataclass(frozen=True, slots=True)
class Address:
    """One place to connect to: a socket's `path`, or `host` and `port`. `server_name` is None where TLS is off."""

    url: str
    path: str | None
    host: str
    port: int
    server_name: str | None

    @property
    def authority(self) -> str:
        """What the Host header says."""
        if self.path is not None:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def check_is_here(self) -> None:
        """Raise Unsupported unless it is on this machine."""
        if self.path is None and not _is_loopback(self.host):
            raise Unsupported(f"memory can be shared on one machine only, and {self.url} may be another")


def parse_url(url: str) -> Address:
    """Read one of the URLs above; raises BadAddress."""
    scheme = url.partition(":")[0]
    if scheme == "unix":
        return _parse_unix(url)
    if scheme not in DEFAULT_PORTS:
        raise BadAddress(f"'{url}': expected unix:/path, https://host:port or http://127.0.0.1:port")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadAddress(f"'{url}': {error}") from None
    if not host or parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise BadAddress(f"'{url}': expected {scheme}://host:port and nothing else")
    if scheme == "http" and not _is_loopback(host):
        raise BadAddress(f"'{url}': plain http is for loopback addresses only, use https")
    return Address(url, None, host, port or DEFAULT_PORTS[scheme], host if scheme == "https" else None)


def _parse_unix(url: str) -> Address:
    path, _, query = url.removeprefix("unix:").partition("?")
    if path.startswith("//"):
        path = "/" + path.lstrip("/")
    if not path.startswith("/"):
        raise BadAddress(f"'{url}': the socket's path must be absolute, as in unix:{SYSTEM_SOCKET}")
    options = dict(parse_qsl(query, keep_blank_values=True))
    tls = options.pop("tls", "on")
    if options or tls not in ("on", "off"):
        raise BadAddress(f"'{url}': the only option of a unix URL is tls=on or tls=off")
    return Address(url, path, "localhost", 0, "localhost" if tls == "on" else None)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def find_url(env: Mapping[str, str] = os.environ) -> str:
    """INFERD_URL, else the user's own socket if it is there, else the system's if that is, else where one would be."""
    url = env.get("INFERD_URL")
    if url:
        return url
    candidates = [] if os.geteuid() == 0 else _user_sockets(env)
    candidates.append(SYSTEM_SOCKET)
    if os.geteuid() == 0:
        candidates += _user_sockets(env)
    return "unix:" + next((path for path in candidates if Path(path).exists()), candidates[0])


def find_token(given: str | None, env: Mapping[str, str] = os.environ) -> str | None:
    """The token that is given, else INFERD_TOKEN; an empty one is none."""
    return given if given is not None else env.get("INFERD_TOKEN")


def _user_sockets(env: Mapping[str, str]) -> list[str]:
    runtime = env.get("XDG_RUNTIME_DIR", "")
    state = env.get("XDG_STATE_HOME", "")
    if not state.startswith("/"):
        state = str(Path(env.get("HOME", "/")) / ".local/state")
    return [f"{folder}/inferd/inferd.sock" for folder in (runtime, state) if folder.startswith("/")]


class Verifier(Protocol):
    """Whom to believe at the other end. A refusal comes out of the handshake, before a byte of a request is sent."""

    def context(self, within_s: float = STARTING_S) -> ssl.SSLContext:
        """The TLS context for a new connection; may read files and wait so long, so not for the event loop. Raises
        TLSError."""
        ...

    def refusal(self, address: Address, error: ssl.SSLError) -> TLSError:
        """What a failed handshake means."""
        ...


class Trust:
    """The TLS context for an address; made anew when the CA's file has changed. Any thread may ask."""

    def __init__(
        self, address: Address, ca: str | os.PathLike[str] | None, env: Mapping[str, str] = os.environ
    ) -> None:
        given = os.fspath(ca) if ca else env.get("INFERD_CA") or None
        self._ca = given or (f"{address.path}.ca.pem" if address.path is not None else None)
        self._is_system = self._ca is None
        self._path = address.path if given is None else None
        self._lock = Lock()
        self._stamp: tuple[int, ...] = ()
        self._context: ssl.SSLContext | None = None

    def context(self, within_s: float = STARTING_S) -> ssl.SSLContext:
        """Reads the file when needed, so not for the event loop. Raises TLSError when it is not there or no CA."""
        with self._lock:
            try:
                stamp = self._stamp_now()
            except TLSError:
                if self._path is None:
                    raise
                _wait_until_up(self._path, min(within_s, STARTING_S))
                stamp = self._stamp_now()
            if self._context is None or stamp != self._stamp:
                self._context, self._stamp = self._load(), stamp
            return self._context

    def refusal(self, address: Address, error: ssl.SSLError) -> TLSError:
        """A failed handshake in the caller's words."""
        return TLSError(f"TLS with {address.url} failed: {error}")

    def _stamp_now(self) -> tuple[int, ...]:
        if self._ca is None:
            return ()
        try:
            found = Path(self._ca).stat()
        except OSError as error:
            raise TLSError(
                f"no CA certificate: {error.strerror}: {self._ca}; give ca= or INFERD_CA", is_unsent=True
            ) from None
        return (found.st_mtime_ns, found.st_ino, found.st_size)

    def _load(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._ca)
        except (OSError, ssl.SSLError) as error:
            raise TLSError(f"{self._ca} is no CA certificate: {error}", is_unsent=True) from None
        if not self._is_system:
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        return context


def _wait_until_up(path: str, within_s: float) -> None:
    """Until whoever listens on a socket answers a TLS greeting, in whatever way: systemd listens before the daemon is
    there, and the daemon puts its CA beside the socket before it answers."""
    greeting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    greeting.check_hostname = False
    greeting.verify_mode = ssl.CERT_NONE  # nothing is said to it and nothing believed
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(within_s)
        sock.connect(path)
        greeting.wrap_socket(sock).close()
