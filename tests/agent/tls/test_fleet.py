"""One CA for many devices: what is issued serves, and what must not be issued is not."""

from __future__ import annotations

import shutil
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from inferd_agent.errors import ConfigError
from inferd_agent.tls import HostNames, TlsMaterial
from inferd_agent.tls.files import check_own
from inferd_agent.tls.fleet import describe, export_authority, issue_for

NAMES = HostNames(("camera-7", "localhost"), ("10.0.0.7",))


def test_an_issued_certificate_serves_and_comes_from_the_exported_ca(tmp_path: Path) -> None:
    """The files go to a daemon as its own certificate; the chain is the device's certificate alone."""
    folder, out = tmp_path / "tls", tmp_path / "camera-7"
    pem = export_authority(folder)
    assert export_authority(folder) == pem == (folder / "ca.pem").read_text()
    fingerprint = issue_for(folder, out, NAMES, 30)
    assert (out / "tls.key").stat().st_mode & 0o777 == 0o600
    assert (out / "ca.pem").read_text() == pem
    assert (out / "tls.crt").read_text().count("BEGIN CERTIFICATE") == 1
    leaf = check_own(out / "tls.crt", out / "tls.key", datetime.now(UTC))
    assert 29 <= (leaf.not_valid_after_utc - datetime.now(UTC)).days <= 30
    own = TlsMaterial(tmp_path / "device", cert=str(out / "tls.crt"), key=str(out / "tls.key"))
    assert own.fingerprints["own"] == fingerprint
    context = ssl.create_default_context(cadata=pem)
    assert context.get_ca_certs()
    told = describe(tmp_path / "device", str(out / "tls.crt"))
    assert (told["fingerprint"], told["names"]) == (fingerprint, "camera-7, localhost, 10.0.0.7")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A second certificate needs another folder."""
    issue_for(tmp_path / "tls", tmp_path / "out", NAMES, 30)
    with pytest.raises(ConfigError, match="is there already"):
        issue_for(tmp_path / "tls", tmp_path / "out", NAMES, 30)


def test_without_the_cas_key_nothing_is_issued(tmp_path: Path) -> None:
    """Devices have no key of the fleet's CA, and cannot make certificates for others."""
    issue_for(tmp_path / "tls", tmp_path / "out", NAMES, 30)
    (tmp_path / "tls" / "ca.key").unlink()
    with pytest.raises(ConfigError, match="issue where the CA's key is"):
        issue_for(tmp_path / "tls", tmp_path / "more", NAMES, 30)


def test_a_foreign_key_is_refused(tmp_path: Path) -> None:
    """The key must be the CA's."""
    export_authority(tmp_path / "a")
    export_authority(tmp_path / "b")
    shutil.copy(tmp_path / "b" / "ca.key", tmp_path / "a" / "ca.key")
    with pytest.raises(ConfigError, match="is not the key"):
        issue_for(tmp_path / "a", tmp_path / "out", NAMES, 30)


def test_no_certificate_outlives_its_ca(tmp_path: Path) -> None:
    """The days that are left are told."""
    with pytest.raises(ConfigError, match=r"the CA ends in 36\d\d days"):
        issue_for(tmp_path / "tls", tmp_path / "out", NAMES, 4000)
    assert not (tmp_path / "out").exists()
