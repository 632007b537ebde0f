"""Who is believed, proven by real handshakes: a pin, a renewed certificate, the fleet's CA, and everybody else."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import create_server
from typing import NamedTuple

import msgspec
import pytest

from inferd.address import parse_url
from inferd.connection import connect
from inferd.errors import TLSError, Untrusted
from inferd.fleet import trust
from inferd.fleet.record import Device
from inferd.fleet.trust import Authority, Pin, Trusted, TrustStore, fingerprint_of, first_contact
from inferd.retry import Deadline
from inferd_agent.tls.host import HostNames
from inferd_agent.tls.issue import Pair, issue, new_authority

NOW = datetime.now(UTC)
HOST = HostNames(("camera.local",), ())


class Door(NamedTuple):
    """A TLS server: where, what it announces, and how many bytes of requests came in."""

    device: Device
    received: list[bytes]


@contextmanager
def door(
    folder: Path, leaf: Pair, *chain: Pair, name: str = "camera", instance_id: str = "00" * 8, announced: str = ""
) -> Iterator[Door]:
    """Serve handshakes with a certificate until the end, and keep what is sent after them."""
    (folder / "key.pem").write_bytes(leaf.key_pem)
    (folder / "cert.pem").write_bytes(b"".join(each.certificate_pem for each in (leaf, *chain)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    listening = create_server(("127.0.0.1", 0))
    received: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            plain.settimeout(10)
            try:
                with context.wrap_socket(plain, server_side=True) as sock:
                    received.append(sock.recv(1))
            except OSError:
                plain.close()

    thread = threading.Thread(target=serve)
    thread.start()
    shown = fingerprint_of(ssl.PEM_cert_to_DER_cert(leaf.certificate_pem.decode()))
    device = Device(
        name=name, instance_id=instance_id, host="inferd-0.local", addresses=("127.0.0.1",),
        port=listening.getsockname()[1], fingerprint=announced or shown,
    )  # fmt: skip
    try:
        yield Door(device, received)
    finally:
        listening.shutdown(2)
        listening.close()
        thread.join(10)


def call(store: TrustStore, device: Device) -> None:
    """Connect as a client does, and close."""
    verifier = store.trust_for(device)
    connect(parse_url(device.urls[0]), verifier, Deadline(10)).close()


def store_of(folder: Path, trusted: Trusted) -> TrustStore:
    """A store with a file."""
    path = folder / "trust.json"
    path.write_bytes(msgspec.json.encode(trusted))
    return TrustStore(path)


def authority(pair: Pair) -> Authority:
    """A CA as the store has it."""
    pem = pair.certificate_pem.decode()
    return Authority(fingerprint=fingerprint_of(ssl.PEM_cert_to_DER_cert(pem)), certificate=pem)


@pytest.fixture(scope="module")
def own() -> Pair:
    """The device's local CA."""
    return new_authority("camera", NOW)


@pytest.fixture(scope="module")
def stranger() -> Pair:
    """Somebody else's CA, with the same name."""
    return new_authority("camera", NOW)


def test_nobody_is_trusted_at_first(tmp_path: Path, own: Pair) -> None:
    """Without a file there is no trust, and the message says how to get it."""
    store = TrustStore(tmp_path / "none" / "trust.json")
    with door(tmp_path, issue(own, HOST, NOW)) as camera:
        assert not store.is_trusted(camera.device)
        with pytest.raises(Untrusted, match="inferd trust 'camera'"):
            store.trust_for(camera.device)
    assert camera.received == []


def test_a_pinned_device_is_believed_also_with_its_next_certificate(tmp_path: Path, own: Pair) -> None:
    """A renewal by the device's own CA changes the certificate, not the trust."""
    with door(tmp_path, issue(own, HOST, NOW), own) as camera:
        store = store_of(tmp_path, Trusted(pins=(first_contact(camera.device, 10),)))
        call(store, camera.device)
    with door(tmp_path, issue(own, HOST, NOW), own) as renewed:
        assert renewed.device.fingerprint != camera.device.fingerprint
        call(store, renewed.device)


def test_another_certificate_is_refused_before_a_byte_is_sent(tmp_path: Path, own: Pair, stranger: Pair) -> None:
    """Under the same instance id, or under the same name with another id: refused, loudly, with nothing sent."""
    with door(tmp_path, issue(own, HOST, NOW), own) as camera:
        store = store_of(tmp_path, Trusted(pins=(first_contact(camera.device, 10),)))
    fake = issue(stranger, HOST, NOW)
    for instance_id in (camera.device.instance_id, "ff" * 8):
        with door(tmp_path, fake, stranger, instance_id=instance_id) as imitator:
            assert store.is_trusted(imitator.device)  # so it is called, and proves to be another one
            with pytest.raises(Untrusted, match="shows another certificate"):
                call(store, imitator.device)
        assert b"".join(imitator.received) == b""


def test_the_fleets_authority_vouches_for_its_devices_but_not_against_a_pin(
    tmp_path: Path, own: Pair, stranger: Pair
) -> None:
    """Any certificate of the fleet's CA will do, unless the device was pinned with another one."""
    with door(tmp_path, issue(own, HOST, NOW)) as camera:
        call(store_of(tmp_path, Trusted(authorities=(authority(own),))), camera.device)
        with pytest.raises(Untrusted):
            call(store_of(tmp_path, Trusted(authorities=(authority(stranger),))), camera.device)
        pin = Pin(
            name="camera", instance_id="00" * 8, fingerprint="", certificates=stranger.certificate_pem.decode()
        )  # fmt: skip
        with pytest.raises(Untrusted):
            call(store_of(tmp_path, Trusted(pins=(pin,), authorities=(authority(own),))), camera.device)


def test_a_foreign_authority_is_never_pinned(tmp_path: Path, own: Pair, stranger: Pair) -> None:
    """Only a CA that issued the certificate and is inferd's local kind becomes part of a pin."""
    leaf = issue(own, HOST, NOW)
    for chain in ((), (stranger,)):
        with door(tmp_path, leaf, *chain) as camera:
            pin = first_contact(camera.device, 10)
        assert pin.certificates.count("BEGIN CERTIFICATE") == 1
    with door(tmp_path, leaf, own) as camera, pytest.MonkeyPatch.context() as patch:
        patch.setattr(trust, "LOCAL_AUTHORITY", "Some Company Root ")
        assert first_contact(camera.device, 10).certificates.count("BEGIN CERTIFICATE") == 1
    with door(tmp_path, leaf, own) as camera:
        assert first_contact(camera.device, 10).certificates.count("BEGIN CERTIFICATE") == 2


def test_first_contact_compares_with_what_was_announced(tmp_path: Path, own: Pair) -> None:
    """Another certificate than announced is not offered for trust."""
    with (
        door(tmp_path, issue(own, HOST, NOW), announced="ab" * 32) as camera,
        pytest.raises(Untrusted, match="announces the fingerprint abab"),
    ):
        first_contact(camera.device, 10)


def test_an_expired_certificate_is_told_apart(tmp_path: Path, own: Pair) -> None:
    """The clock is blamed, not an impostor."""
    old = issue(own, HOST, NOW - timedelta(days=200))
    with door(tmp_path, old) as camera:
        store = store_of(tmp_path, Trusted(authorities=(authority(own),)))
        with pytest.raises(Untrusted, match="expired; is its clock"):
            call(store, camera.device)


def test_changes_of_the_file_count_at_once(tmp_path: Path, own: Pair) -> None:
    """Trust given or withdrawn needs no restart, and a context is made once for the same trust."""
    device = Device(name="a", instance_id="00" * 8, host="h", addresses=("10.0.0.1",), port=1)
    store = store_of(tmp_path, Trusted(authorities=(authority(own),)))
    assert store.trust_for(device) is store.trust_for(device)
    store_of(tmp_path, Trusted())
    assert not store.is_trusted(device)


def test_a_damaged_file_is_an_error_not_an_open_door(tmp_path: Path) -> None:
    """Nothing is believed on the word of a file that cannot be read."""
    (tmp_path / "trust.json").write_text('{"pins": [{"name": 3}]}')
    with pytest.raises(TLSError, match="is damaged"):
        TrustStore(tmp_path / "trust.json").read()


def test_a_new_pin_takes_the_place_of_the_old_one() -> None:
    """By name or by instance id; others stay."""

    def pin(name: str, instance_id: str) -> Pin:
        return Pin(name=name, instance_id=instance_id, fingerprint="", certificates="")

    trusted = Trusted(pins=(pin("a", "1"), pin("b", "2"), pin("c", "3")))
    assert [each.instance_id for each in trusted.plus(pin("a", "2")).pins] == ["3", "2"]
