"""Which devices are believed: those pinned by `inferd trust`, and those with a certificate of the fleet's own CA.

What a device announces plays no part, only what it proves in the TLS handshake; a wrong certificate ends that before a
byte of a request, and so of a token, is sent. A name or an instance id that was pinned is believed with that pin alone,
whatever the fleet's CA says: a device that shows another certificate later is refused.

A pin is the device's certificate and, where the device has a local CA of its own, that CA: so a pin outlives the
renewals that the device makes by itself.
"""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec
from msgspec import Struct

from inferd.address import Address
from inferd.errors import ConnectionFailed, TLSError, Untrusted
from inferd.fleet.record import Device

MAX_FILE_BYTES = 4 << 20
_MOST_MADE = 1024
LOCAL_AUTHORITY = "inferd CA "
_NOT_YET, _EXPIRED = 9, 10  # OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED


class Pin(Struct, frozen=True, kw_only=True):
    """A device as it was when somebody trusted it. `certificates`: its own (PEM), and its local CA's if it has one."""

    name: str
    instance_id: str
    fingerprint: str
    certificates: str


class Authority(Struct, frozen=True, kw_only=True):
    """A CA (PEM) whose every certificate is a device of the fleet."""

    fingerprint: str
    certificate: str


class Trusted(Struct, frozen=True, kw_only=True):
    """Everything that is trusted; what the file holds."""

    pins: tuple[Pin, ...] = ()
    authorities: tuple[Authority, ...] = ()

    def pin_for(self, device: Device) -> Pin | None:
        """The pin of a device: by its instance id, else by its name."""
        by_id = (pin for pin in self.pins if pin.instance_id == device.instance_id)
        by_name = (pin for pin in self.pins if pin.name == device.name)
        return next(by_id, None) or next(by_name, None)

    def without(self, pin: Pin) -> Trusted:
        """Without this pin, and without any other of the same device."""
        rest = tuple(each for each in self.pins if pin.instance_id != each.instance_id and pin.name != each.name)
        return msgspec.structs.replace(self, pins=rest)

    def plus(self, pin: Pin) -> Trusted:
        """With this pin in place of the device's old one."""
        return msgspec.structs.replace(self, pins=(*self.without(pin).pins, pin))

    def anchors(self, device: Device) -> str:
        """The certificates (PEM) that end a chain for this device, empty where it is not trusted."""
        pin = self.pin_for(device)
        return pin.certificates if pin else "".join(each.certificate for each in self.authorities)


class DeviceTrust:
    """A `Verifier` for one device."""

    def __init__(self, device: Device, anchors: str) -> None:
        self._device = device
        self._context = pinned_context(anchors)

    def context(self, within_s: float = 0.0) -> ssl.SSLContext:
        """The same for all connections to the device."""
        return self._context

    def refusal(self, address: Address, error: ssl.SSLError) -> TLSError:
        """Loud where the certificate is another one."""
        where = f"{self._device.name} at {address.url}"
        if not isinstance(error, ssl.SSLCertVerificationError):
            return TLSError(f"TLS with {where} failed: {error}")
        if error.verify_code in (_NOT_YET, _EXPIRED):
            return Untrusted(f"{where}: {error.verify_message}; is its clock, or this machine's, right?")
        return Untrusted(
            f"{where} shows another certificate than the one trusted: it was reinstalled, or somebody answers in its"
            " place. Nothing was sent to it"
        )


class TrustStore:
    """The trusted devices of a file; read again when it changes. For any thread, but reads files."""

    def __init__(self, path: Path | None = None, env: Mapping[str, str] = os.environ) -> None:
        self.path = path or default_path(env)
        self._lock = Lock()
        self._stamp: tuple[int, ...] | None = None
        self._trusted = Trusted()
        self._made: dict[str, tuple[str, DeviceTrust]] = {}

    def read(self) -> Trusted:
        """What is trusted now, nothing where there is no file. Raises TLSError when the file is damaged."""
        with self._lock:
            return self._read()

    def is_trusted(self, device: Device) -> bool:
        """Whether there is anything to believe the device by; the handshake tells whether it is really that one."""
        return bool(self.read().anchors(device))

    def trust_for(self, device: Device) -> DeviceTrust:
        """How to verify a device, the same object as long as its trust is the same. Raises Untrusted."""
        with self._lock:
            anchors = self._read().anchors(device)
            if not anchors:
                raise Untrusted(f"{device.name} is not trusted; compare its fingerprint: inferd trust '{device.name}'")
            known = self._made.get(device.instance_id)
            if known is None or known[0] != anchors:
                if len(self._made) >= _MOST_MADE:
                    self._made.clear()
                known = self._made[device.instance_id] = (anchors, DeviceTrust(device, anchors))
            return known[1]

    def _read(self) -> Trusted:
        try:
            found = self.path.stat()
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            if stamp != self._stamp:
                self._trusted, self._stamp = _decode(self.path), stamp
        except FileNotFoundError:
            self._trusted, self._stamp = Trusted(), None
        except OSError as error:
            raise TLSError(f"{self.path}: cannot be read: {error.strerror}") from error
        return self._trusted


def default_path(env: Mapping[str, str] = os.environ) -> Path:
    """`$XDG_CONFIG_HOME/inferd/trust.json`."""
    given = env.get("XDG_CONFIG_HOME", "")
    folder = Path(given) if given.startswith("/") else Path(env.get("HOME", "/")) / ".config"
    return folder / "inferd" / "trust.json"


def pinned_context(anchors: str) -> ssl.SSLContext:
    """TLS 1.3 with exactly these ends of a chain, be they CAs or the device's own certificate. Raises TLSError.

    Names are not compared: devices have addresses that come and go, and the pin or the fleet's CA says who it is.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=anchors)
    except (ssl.SSLError, ValueError) as error:
        raise TLSError(f"a trusted certificate is damaged: {error}; trust the device anew") from error
    return context


def first_contact(device: Device, timeout_s: float) -> Pin:
    """The pin that a device would get, from a handshake that sends nothing; whether it is right, a person must say.

    Raises Untrusted where the certificate is not the one announced, ConnectionFailed where nobody answers.
    """
    chain, host = _shown_by(device, timeout_s)
    fingerprint = fingerprint_of(chain[0])
    if fingerprint != device.fingerprint:
        raise Untrusted(
            f"{device.name} announces the fingerprint {device.fingerprint[:16]}…, but {host} shows {fingerprint[:16]}…:"
            " somebody answers in its place, or its certificate was renewed just now; try again in a minute"
        )
    certificates = ssl.DER_cert_to_PEM_cert(chain[0])
    issuer = ssl.DER_cert_to_PEM_cert(chain[1]) if len(chain) > 1 else ""
    if issuer and _is_local_authority(device, host, issuer, timeout_s):
        certificates += issuer
    return Pin(name=device.name, instance_id=device.instance_id, fingerprint=fingerprint, certificates=certificates)


def proves(device: Device, anchors: str, timeout_s: float) -> bool:
    """Whether what a device shows ends at these certificates (PEM); sends nothing. Raises TLSError for damaged ones."""
    context = pinned_context(anchors)
    for host in device.addresses:
        try:
            _handshake(host, device.port, context, timeout_s).close()
        except ssl.SSLError:
            return False
        except OSError:
            continue
        return True
    return False


def fingerprint_of(der: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(der).hexdigest()


def _shown_by(device: Device, timeout_s: float) -> tuple[list[bytes], str]:
    """The chain that the first address to answer shows, and that address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    failures = []
    for host in device.addresses:
        try:
            with _handshake(host, device.port, context, timeout_s) as sock:
                return _chain(sock), host
        except OSError as error:
            failures.append(f"{host}: {error}")
    raise ConnectionFailed(f"{device.name} does not answer ({'; '.join(failures)})")


def _is_local_authority(device: Device, host: str, issuer: str, timeout_s: float) -> bool:
    """Whether the device's certificate really comes from this CA, and the CA is one that inferd made for one host.

    Any other CA would make a pin believe everybody who has a certificate of that CA.
    """
    try:
        with _handshake(host, device.port, pinned_context(issuer), timeout_s) as sock:
            return _issuer_of(sock).startswith(LOCAL_AUTHORITY)
    except (OSError, TLSError):
        return False


def _issuer_of(sock: ssl.SSLSocket) -> str:
    """The common name of a verified certificate's issuer."""
    shown: Any = sock.getpeercert() or {}
    names = (value for part in shown.get("issuer", ()) for key, value in part if key == "commonName")
    return str(next(names, ""))


def _handshake(host: str, port: int, context: ssl.SSLContext, timeout_s: float) -> ssl.SSLSocket:
    sock = socket.create_connection((host, port), timeout_s)
    try:
        return context.wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


def _chain(sock: ssl.SSLSocket) -> list[bytes]:
    """The certificates that the peer sent, its own first. Public only since Python 3.13; older ones have it inside."""
    if hasattr(sock, "get_unverified_chain"):
        return list(sock.get_unverified_chain())
    inner = getattr(sock, "_sslobj", None)
    if inner is not None and hasattr(inner, "get_unverified_chain"):
        return [ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in inner.get_unverified_chain() or ()]
    own = sock.getpeercert(binary_form=True)
    assert own is not None
    return [own]


def _decode(path: Path) -> Trusted:
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES)
    try:
        return msgspec.json.decode(data, type=Trusted)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise TLSError(f"{path}: is damaged: {error}; remove it and trust the devices anew") from error
