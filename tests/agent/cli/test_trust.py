"""`inferd trust` and `inferd tls` without a network: what is believed is kept, shown and taken back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inferd.fleet.trust import Pin, Trusted, TrustStore
from inferd_agent.cli.trust import _change
from tests.agent.cli.conftest import Run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of trust of this test's own, in a folder that is not there yet."""
    return tmp_path / "config" / "trust.json"


def test_a_fleets_ca_is_trusted_shown_and_taken_back(inferd: Run, tmp_path: Path, file: Path) -> None:
    """Export, trust, list, remove: the fingerprint is the same all the way."""
    office = str(tmp_path / "office")
    ca = tmp_path / "ca.pem"
    ca.write_text(inferd("tls", "ca", "export", "--state", office).out)
    fingerprint = json.loads(inferd("tls", "show", "--json", "--state", office).out)["ca_fingerprint"]
    for _ in range(2):
        done = inferd("trust", "--ca", str(ca), "--file", str(file))
        assert (done.exit_code, fingerprint in done.out) == (0, True)
    listed = json.loads(inferd("trust", "--list", "--json", "--file", str(file)).out)
    assert [each["fingerprint"] for each in listed["authorities"]] == [fingerprint]
    assert fingerprint in inferd("trust", "--list", "--file", str(file)).out
    assert inferd("trust", "--remove-ca", "00" * 32, "--file", str(file)).exit_code == 1
    assert inferd("trust", "--remove-ca", fingerprint.upper(), "--file", str(file)).exit_code == 0
    assert "Nothing is trusted" in inferd("trust", "--list", "--file", str(file)).out


def test_only_a_cas_certificate_is_taken_for_one(inferd: Run, tmp_path: Path, file: Path) -> None:
    """A device's certificate, a key or nonsense: refused with the reason, and nothing is written."""
    out = tmp_path / "one"
    assert inferd("tls", "ca", "issue", "one", "--state", str(tmp_path / "office"), "--out", str(out)).exit_code == 0
    (tmp_path / "nonsense").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for path, reason in (
        (out / "tls.crt", "not a CA's"),
        (out / "tls.key", "not one PEM"),
        (tmp_path / "nonsense", "PEM"),
    ):
        done = inferd("trust", "--ca", str(path), "--file", str(file))
        assert (done.exit_code, reason in done.err) == (1, True), done.err
    assert not file.exists()


def test_a_pin_is_removed_by_name_or_id(inferd: Run, file: Path) -> None:
    """And one that is not there is an error."""
    for name in ("camera", "0123456789abcdef"):
        pin = Pin(name="camera", instance_id="0123456789abcdef", fingerprint="ff", certificates="")
        _change(TrustStore(file), lambda old, pin=pin: old.plus(pin))
        assert inferd("trust", name, "--remove", "--file", str(file)).exit_code == 0
        assert TrustStore(file).read() == Trusted()
    assert "is not pinned" in inferd("trust", "camera", "--remove", "--file", str(file)).err


@pytest.mark.parametrize(
    "args",
    [(), ("camera", "--list"), ("--list", "--remove-ca", "ff"), ("--list", "--yes"), ("--replace", "--list")],
)
def test_contradictions_are_wrong_usage(inferd: Run, file: Path, args: tuple[str, ...]) -> None:
    """No option is silently without effect."""
    assert inferd("trust", *args, "--file", str(file)).exit_code == 2


def test_a_damaged_file_is_told(inferd: Run, file: Path) -> None:
    """With its path, and without a trace."""
    file.parent.mkdir()
    file.write_text("{")
    done = inferd("trust", "--list", "--file", str(file))
    assert (done.exit_code, str(file) in done.err) == (3, True)


def test_without_certificates_there_is_nothing_to_show(inferd: Run, tmp_path: Path) -> None:
    """A daemon that never ran has no fingerprint, and showing makes none."""
    done = inferd("tls", "show", "--state", str(tmp_path / "none"))
    assert (done.exit_code, "cannot be read" in done.err) == (1, True)
    assert not (tmp_path / "none").exists()
