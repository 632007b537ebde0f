"""One CA for many devices: certificates that the CA in a state folder makes for other hosts.

The CA's key stays where it is. What goes to a device is good for that device alone, and for a limited time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from inferd_agent.errors import ConfigError
from inferd_agent.files import make_private_folder, write_all_atomically
from inferd_agent.tls.files import read_certificates, read_key
from inferd_agent.tls.host import HostNames
from inferd_agent.tls.issue import Pair, fingerprint, host_of, issue
from inferd_agent.tls.material import TlsMaterial

CERTIFICATE, KEY, CA = "tls.crt", "tls.key", "ca.pem"


def export_authority(folder: Path) -> str:
    """The CA's certificate (PEM) of a `tls` folder; a CA is made where there is none. Raises ConfigError."""
    _make_if_missing(folder)
    certificate = read_certificates(folder / "ca.pem")[0]
    return certificate.public_bytes(Encoding.PEM).decode()


def issue_for(folder: Path, out: Path, names: HostNames, days: int, *, now: datetime | None = None) -> str:
    """Write `tls.crt`, `tls.key` and `ca.pem` for a device into `out`; the certificate's fingerprint.

    Raises ConfigError where there is no CA key, where the CA ends before the certificate would, or where there is
    something in `out` already.
    """
    _make_if_missing(folder)
    now = now or datetime.now(UTC)
    authority = _authority(folder)
    life = timedelta(days=days)
    left = authority.certificate.not_valid_after_utc - now
    if left < life:
        raise ConfigError(f"{folder / 'ca.pem'}: the CA ends in {left.days} days; ask for fewer than {days}")
    taken = [name for name in (CERTIFICATE, KEY, CA) if (out / name).exists()]
    if taken:
        raise ConfigError(f"{out / taken[0]}: is there already; name another folder or remove it")
    pair = issue(authority, names, now, life)
    make_private_folder(out)
    write_all_atomically(
        {
            out / KEY: (pair.key_pem, 0o600),
            out / CERTIFICATE: (pair.certificate_pem, 0o644),
            out / CA: (authority.certificate_pem, 0o644),
        }
    )
    return fingerprint(pair.certificate)


def _make_if_missing(folder: Path) -> None:
    if not (folder / "ca.pem").exists():
        TlsMaterial(folder)


def _authority(folder: Path) -> Pair:
    path = folder / "ca.key"
    if not path.exists():
        raise ConfigError(f"{path}: is not here, so no certificate can be made; issue where the CA's key is")
    pair = Pair(read_certificates(folder / "ca.pem")[0], read_key(path))
    if not isinstance(pair.key, ec.EllipticCurvePrivateKey) or not pair.matches:
        raise ConfigError(f"{path}: is not the key of {folder / 'ca.pem'}")
    return pair


def describe(folder: Path, own: str) -> dict[str, str]:
    """What a person compares: of the certificate that the LAN sees, and of the CA. ConfigError if there is none."""
    leaf = read_certificates(Path(own) if own else folder / "cert.pem")[0]
    authority = read_certificates(folder / "ca.pem")[0]
    names = host_of(leaf)
    return {
        "fingerprint": fingerprint(leaf),
        "valid_until": f"{leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
        "names": ", ".join((*names.names, *names.addresses)),
        "certificate": own or str(folder / "cert.pem"),
        "ca_fingerprint": fingerprint(authority),
        "ca_certificate": str(folder / "ca.pem"),
    }
