"""What the daemon's TLS stands on: STATE/tls/{ca.pem,ca.key,cert.pem,key.pem}, own files, and the live contexts.

Invariants: a private key is never readable by others; a failed renewal or reload leaves what served before, on the disk
and in memory. Open connections keep their certificate, new ones get the new. Everything but `context_for` and `pem_for`
reads files and may run on any one thread; what it finds is handed to the others in one assignment.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from inferd_agent.config import Listener
from inferd_agent.errors import ConfigError
from inferd_agent.files import make_private_folder, write_all_atomically, write_atomically
from inferd_agent.tls.files import check_own, read_certificates, read_key
from inferd_agent.tls.host import HostNames, find_host
from inferd_agent.tls.issue import (
    AUTHORITY_SPARE,
    Pair,
    fingerprint,
    host_of,
    is_fresh,
    is_valid,
    issue,
    new_authority,
)

log = logging.getLogger(__name__)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Pem(NamedTuple):
    """A certificate chain and its key, for a library that makes its own contexts; another object once it is renewed."""

    chain: bytes
    key: bytes


class _Door:
    """The context that servers hold; each handshake looks up here which certificate is the newest.

    Loading a certificate into a context in use would race with handshakes on the event loop.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self.front = self._newest = _server_context(cert, key)
        self.pem = Pem(cert.read_bytes(), key.read_bytes())
        self.front.sni_callback = self._choose  # called for every handshake, also for those without a name

    def replace(self, cert: Path, key: Path) -> None:
        self._newest = _server_context(cert, key)
        self.pem = Pem(cert.read_bytes(), key.read_bytes())

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _front: ssl.SSLContext) -> None:
        connection.context = self._newest


class TlsMaterial:
    """Opens or makes the certificates; construction raises ConfigError if nothing can be served with."""

    def __init__(
        self,
        folder: Path,
        *,
        names: Iterable[str] = (),
        cert: str = "",
        key: str = "",
        host: Callable[[], HostNames] = find_host,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._folder = folder
        self._host = host
        self._clock = clock
        self._names = tuple(names)
        self._own: _Door | None = None
        self._own_certificate: x509.Certificate | None = None
        self._refresh()
        self._local = _Door(self._cert_path, self._key_path)
        self._certificate = read_certificates(self._cert_path)[0]
        if cert:
            self._take_own(Path(cert), Path(key))

    @property
    def ca_path(self) -> Path:
        """The local CA's certificate, for clients."""
        return self._folder / "ca.pem"

    @property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of the certificates in use: `ca`, `local`, and `own` if one is."""
        found = {"ca": fingerprint(read_certificates(self.ca_path)[0]), "local": fingerprint(self._certificate)}
        return found | ({"own": fingerprint(self._own_certificate)} if self._own_certificate else {})

    def fingerprint_for(self, listener: Listener) -> str:
        """SHA-256 of the certificate that a listener's callers see now."""
        own = self._own_certificate if listener.kind == "tcp" else None
        return fingerprint(own or self._certificate)

    @property
    def host_names(self) -> HostNames:
        """What the local CA's certificate is good for."""
        return host_of(self._certificate)

    @property
    def expires(self) -> datetime:
        """When the local CA's certificate ends."""
        return self._certificate.not_valid_after_utc

    def context_for(self, listener: Listener) -> ssl.SSLContext | None:
        """The living context of a listener: the own certificate for TCP if there is one, else the local CA's."""
        return self._door(listener).front if listener.tls else None

    def pem_for(self, listener: Listener) -> Pem | None:
        """As `context_for`, as it is now. For any thread."""
        return self._door(listener).pem if listener.tls else None

    def renew(self) -> bool:
        """Renew what is due (call it now and then); True if a certificate changed. ConfigError keeps the old one."""
        if not self._refresh():
            return False
        self._local.replace(self._cert_path, self._key_path)
        self._certificate = read_certificates(self._cert_path)[0]
        log.info("new certificate for %s, good until %s", ", ".join(self.host_names.names), f"{self.expires:%Y-%m-%d}")
        return True

    def reload(self, *, names: Iterable[str], cert: str = "", key: str = "") -> None:
        """Take changed settings and changed files. ConfigError keeps what served before.

        An own certificate where there was none, or none where there was one, needs new listeners: that is refused.
        """
        if bool(cert) != (self._own is not None):
            raise ConfigError("tls.cert: an own certificate is added or taken away by a restart")
        old, self._names = self._names, tuple(names)
        try:
            self.renew()
        except ConfigError:
            self._names = old
            raise
        if cert:
            self._take_own(Path(cert), Path(key))

    def publish(self, listener: Listener) -> Path | None:
        """Write the CA's certificate beside a TLS Unix socket, so that local clients find their trust there."""
        if listener.kind != "unix" or not listener.tls:
            return None
        path = published_path(listener)
        try:
            write_atomically(path, self.ca_path.read_bytes(), mode=0o644)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
        return path

    def _door(self, listener: Listener) -> _Door:
        return self._own if listener.kind == "tcp" and self._own is not None else self._local

    @property
    def _cert_path(self) -> Path:
        return self._folder / "cert.pem"

    @property
    def _key_path(self) -> Path:
        return self._folder / "key.pem"

    def _take_own(self, cert: Path, key: Path) -> None:
        leaf = check_own(cert, key, self._clock())
        if self._own is None:
            self._own = _Door(cert, key)
        else:
            self._own.replace(cert, key)
        self._own_certificate = leaf

    def _refresh(self) -> bool:
        """Bring the files up to date; True if the server's pair was written. A disk that is full keeps a valid pair."""
        host = self._host().plus(self._names)
        try:
            make_private_folder(self._folder)
            authority = self._authority(host)
            if self._is_current(authority, host):
                return False
            signing = self._signing(authority)
            pair = issue(signing, host, self._clock())
            # The CA goes along, so that whoever pins this host can believe its next certificate too.
            chain = pair.certificate_pem + signing.certificate_pem
            write_all_atomically({self._key_path: (pair.key_pem, 0o600), self._cert_path: (chain, 0o644)})
        except OSError as error:
            if not self._is_usable():
                raise ConfigError(f"{self._folder}: cannot write certificates: {error.strerror}") from error
            log.error("%s: cannot renew the certificate: %s; the old one goes on", self._folder, error.strerror)
            return False
        return True

    def _authority(self, host: HostNames) -> Pair | x509.Certificate:
        """The CA, made or renewed if need be; without its key where that is kept elsewhere."""
        ca_key = self._folder / "ca.key"
        certificate = read_certificates(self.ca_path)[0] if self.ca_path.exists() else None
        key = read_key(ca_key) if ca_key.exists() else None
        if certificate is not None and key is None:
            return certificate
        if certificate is not None and key is not None:
            pair = Pair(certificate, key)
            if not pair.matches:
                raise ConfigError(f"{ca_key}: is not the key of {self.ca_path}; restore the right one from a backup")
            now = self._clock()
            if is_valid(certificate, now) and certificate.not_valid_after_utc - now > AUTHORITY_SPARE:
                return pair
        if key is not None and not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{ca_key}: is not an ECDSA key of inferd's")
        made = new_authority(_short_name(host), self._clock(), key)
        write_all_atomically({ca_key: (made.key_pem, 0o600), self.ca_path: (made.certificate_pem, 0o644)})
        log.info("new local CA %s", self.ca_path)
        return made

    def _signing(self, authority: Pair | x509.Certificate) -> Pair:
        if isinstance(authority, Pair):
            return authority
        raise ConfigError(
            f"{self._folder / 'ca.key'}: is missing, so no certificate can be made; restore it, or remove"
            f" {self._folder} to start with a new CA (clients then need the new ca.pem)"
        )

    def _is_current(self, authority: Pair | x509.Certificate, host: HostNames) -> bool:
        ca = authority.certificate if isinstance(authority, Pair) else authority
        pair = self._pair()
        if pair is None:
            return False
        return is_fresh(pair, ca, host, self._clock()) or (not isinstance(authority, Pair) and self._is_usable())

    def _is_usable(self) -> bool:
        """True where the pair on the disk can serve, however soon it is due."""
        pair = self._pair()
        return pair is not None and pair.matches and is_valid(pair.certificate, self._clock())

    def _pair(self) -> Pair | None:
        """The server's pair, None where there is none or it is damaged: it can be made again."""
        try:
            return Pair(read_certificates(self._cert_path)[0], read_key(self._key_path))
        except ConfigError:
            return None


def published_path(listener: Listener) -> Path:
    """Where a listener's CA certificate is published."""
    return Path(f"{listener.path}.ca.pem")


def _server_context(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key, password=lambda: b"")  # never ask on a terminal
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"{cert}: cannot be used for TLS: {error}") from error
    return context


def _short_name(host: HostNames) -> str:
    """The host's own short name for the CA's subject."""
    local = [name for name in host.names if name.endswith(".local")]
    return local[0].removesuffix(".local") if local else "localhost"
