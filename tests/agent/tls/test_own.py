"""Own certificates, and the names of the host."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from inferd_agent.config import Listener
from inferd_agent.errors import ConfigError
from inferd_agent.tls import HostNames, TlsMaterial, find_host
from tests.agent.tls.test_material import shake

HOST = HostNames.of(("localhost",), ("127.0.0.1",))
UNIX = Listener("unix", path="/x")
TCP = Listener("tcp", host="0.0.0.0", port=1)


def _make(folder: Path, name: str = "own.example", days: int = 30) -> tuple[str, str]:
    """A self-signed RSA certificate and its key, as `openssl req -x509` makes them."""
    folder.mkdir(exist_ok=True)
    cert, key = folder / "own.crt", folder / "own.key"
    private = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(private.public_key())
    certificate = (
        x509.CertificateBuilder(subject, subject, private.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC))
        .not_valid_after(datetime.now(UTC) + timedelta(days=days))
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(private, hashes.SHA256())
    )
    cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(_pem(private, serialization.NoEncryption()))
    key.chmod(0o640)
    return str(cert), str(key)


def _pem(private: rsa.RSAPrivateKey, encryption: serialization.KeySerializationEncryption) -> bytes:
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _open(folder: Path, now: datetime | None = None, **more: str) -> TlsMaterial:
    return TlsMaterial(folder, host=lambda: HOST, clock=lambda: now or datetime.now(UTC), **more)


def test_an_own_certificate_serves_tcp_and_the_local_ca_unix(tmp_path: Path) -> None:
    """Each listener gets the certificate that its callers can check by name; a reload takes a new file live."""
    cert, key = _make(tmp_path / "a")
    material = _open(tmp_path / "tls", cert=cert, key=key)
    context = material.context_for(TCP)
    shake(context, Path(cert), "own.example")
    shake(material.context_for(UNIX), material.ca_path, "localhost")
    old = material.fingerprints["own"]
    _make(tmp_path / "a")
    material.reload(names=["more.lan"], cert=cert, key=key)
    assert material.fingerprints["own"] != old
    shake(context, Path(cert), "own.example")
    shake(material.context_for(UNIX), material.ca_path, "more.lan")


def test_a_reload_that_fails_changes_nothing(tmp_path: Path) -> None:
    """A broken file leaves the old certificate in service; adding an own one needs a restart."""
    cert, key = _make(tmp_path / "a")
    trust = tmp_path / "trust.pem"
    trust.write_bytes(Path(cert).read_bytes())
    material = _open(tmp_path / "tls", cert=cert, key=key)
    Path(cert).write_text("-----BEGIN CERTIFICATE-----\n")
    with pytest.raises(ConfigError, match="not a PEM certificate"):
        material.reload(names=[], cert=cert, key=key)
    shake(material.context_for(TCP), trust, "own.example")
    with pytest.raises(ConfigError, match="neither a DNS name nor an address"):
        material.reload(names=["not a name"], cert=cert, key=key)
    with pytest.raises(ConfigError, match="by a restart"):
        material.reload(names=[])


def test_unusable_certificates_stop_the_start(tmp_path: Path) -> None:
    """Foreign key, encrypted key, readable key, missing file, not yet and no longer valid: each is named."""
    cert, key = _make(tmp_path / "a")
    _, foreign = _make(tmp_path / "b")
    state = tmp_path / "tls"
    with pytest.raises(ConfigError, match="is not the key of the certificate"):
        _open(state, cert=cert, key=foreign)
    with pytest.raises(ConfigError, match=r"own\.crt: expired on"):
        _open(state, datetime.now(UTC) + timedelta(days=31), cert=cert, key=key)
    with pytest.raises(ConfigError, match="is this machine's clock right"):
        _open(state, datetime.now(UTC) - timedelta(days=1), cert=cert, key=key)
    with pytest.raises(ConfigError, match="none: cannot be read: No such file"):
        _open(state, cert=cert, key=str(tmp_path / "none"))
    Path(key).chmod(0o644)
    with pytest.raises(ConfigError, match="every user can read this private key"):
        _open(state, cert=cert, key=key)
    locked = tmp_path / "locked.key"
    locked.write_bytes(_pem(rsa.generate_private_key(65537, 2048), serialization.BestAvailableEncryption(b"x")))
    locked.chmod(0o600)
    with pytest.raises(ConfigError, match="is encrypted"):
        _open(state, cert=cert, key=str(locked))


def test_a_certificate_that_ends_soon_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two weeks before, at every start and reload."""
    cert, key = _make(tmp_path / "a", days=5)
    _open(tmp_path / "tls", cert=cert, key=key)
    assert "own.crt expires on" in caplog.text


def test_configured_names_are_added(tmp_path: Path) -> None:
    """DNS names in any script, wildcards and addresses; anything else is refused."""
    host = HOST.plus(["Edge.LAN", "192.0.2.1", "2001:DB8::1", "*.lan", "bücher.example"])
    assert host.names == ("*.lan", "edge.lan", "localhost", "xn--bcher-kva.example")
    assert host.addresses == ("127.0.0.1", "192.0.2.1", "2001:db8::1")
    material = TlsMaterial(tmp_path / "tls", names=["x.lan", "2001:db8::1"], host=lambda: HOST)
    for name in ("x.lan", "2001:db8::1"):
        shake(material.context_for(UNIX), material.ca_path, name)
    for wrong in ("", "a b", "a..b", "-", "x" * 300, "ü" * 80):
        with pytest.raises(ConfigError, match="neither a DNS name nor an address"):
            HOST.plus([wrong])


def test_the_host_is_found_without_dns(tmp_path: Path) -> None:
    """Names from the kernel and the hosts file, addresses from the interfaces; link-local ones are left out."""
    name = os.uname().nodename.lower()
    short = name.split(".")[0]
    (tmp_path / "etc").mkdir()
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "etc/hosts").write_text(f"# note\n127.0.1.1 {short}.corp.example {short} # us\n10.0.0.1 other\n")
    (tmp_path / "proc/net/if_inet6").write_text(
        "20010db8000000000000000000000007 02 40 00 80 eth0\nfe800000000000000000000000000001 02 40 20 80 eth0\n"
    )
    host = find_host(tmp_path)
    assert {"localhost", name, f"{short}.local", f"{short}.corp.example"} <= set(host.names)
    assert "other" not in host.names
    assert {"127.0.0.1", "::1", "2001:db8::7"} <= set(host.addresses)
    assert not any(each.startswith("fe80") for each in host.addresses)
    assert "localhost" in find_host(tmp_path / "nothing").names
