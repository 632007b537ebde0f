"""Makes keys and certificates, and says whether one is still good. Pure: no files, no clock of its own."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from inferd_agent.tls.host import HostNames

AUTHORITY_LIFE = timedelta(days=3650)
AUTHORITY_SPARE = timedelta(days=180)  # an authority with less left is made anew, with its key
CERTIFICATE_LIFE = timedelta(days=90)
_CLOCK_SKEW = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: PrivateKeyTypes

    @property
    def matches(self) -> bool:
        """True where the key is the certificate's."""
        return _public_bytes(self.certificate.public_key()) == _public_bytes(self.key.public_key())

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def new_authority(host: str, now: datetime, key: ec.EllipticCurvePrivateKey | None = None) -> Pair:
    """A CA for this host alone. With an old key the clients that trust the old certificate trust the new one too."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = _name(f"inferd CA {host[:32]} {identifier.digest.hex()[:8]}")
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)  # sign certificates and CRLs
    certificate = (
        _builder(name, name, key, now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(certificate, key)


def issue(authority: Pair, host: HostNames, now: datetime, life: timedelta = CERTIFICATE_LIFE) -> Pair:
    """A server certificate with a fresh key, good for all of the host's names."""
    assert isinstance(authority.key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.DNSName(each) for each in host.names]
    names += [x509.IPAddress(ipaddress.ip_address(each)) for each in host.addresses]
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)  # digital signature
    certificate = (
        _builder(_name("inferd"), authority.certificate.subject, key, now, life)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return Pair(certificate, key)


def is_valid(certificate: x509.Certificate, now: datetime) -> bool:
    """True between its two dates."""
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


def is_fresh(pair: Pair, authority: x509.Certificate, host: HostNames, now: datetime) -> bool:
    """True while a pair needs no renewal: ours, whole, more than a third of its life left, the names right.

    An address that the host has lost is harmless and no reason; a name that is no longer wanted is one.
    """
    certificate = pair.certificate
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    if not pair.matches or not is_valid(certificate, now) or certificate.not_valid_after_utc - now < life / 3:
        return False
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    has = host_of(certificate)
    return has.names == host.names and set(host.addresses) <= set(has.addresses)


def host_of(certificate: x509.Certificate) -> HostNames:
    """The names a certificate is good for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return HostNames((), ())
    return HostNames.of(
        names.get_values_for_type(x509.DNSName), (str(each) for each in names.get_values_for_type(x509.IPAddress))
    )


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 in hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + life)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _public_bytes(key: object) -> bytes:
    encoded: bytes = key.public_bytes(  # type: ignore[attr-defined]  # every kind of public key has it
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded
