"""What a device announces, there and back, and what is left of a record that somebody hostile sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.fleet.record import MAX_ADDRESSES, Device, from_txt, printable_name, to_txt, usable_addresses

FINGERPRINT = "ab" * 32
GOOD = {
    b"txtvers": b"1", b"proto": b"v2", b"id": b"0123456789abcdef", b"ver": b"0.1.0", b"models": b"00ff",
    b"load": b"light", b"state": b"ready", b"fp": FINGERPRINT.encode(),
}  # fmt: skip
DEVICE = Device(
    name="camera 7", instance_id="0123456789abcdef", host="inferd-0123.local", addresses=("10.0.0.7", "fd00::7"),
    port=8470, version="0.1.0", models_digest="00ff", load="light", state="ready", fingerprint=FINGERPRINT,
)  # fmt: skip


def read(**changes: bytes | None) -> Device | None:
    """The device of the good record with some values changed."""
    txt = GOOD | {key.encode(): value for key, value in changes.items()}
    return from_txt("camera 7", "inferd-0123.local.", ["fd00::7", "10.0.0.7"], 8470, txt)


def test_a_device_survives_its_own_record() -> None:
    """What was announced is what is read, and it fits into a few hundred bytes."""
    txt = {key.encode(): value.encode() for key, value in to_txt(DEVICE).items()}
    assert from_txt(DEVICE.name, DEVICE.host + ".", DEVICE.addresses, DEVICE.port, txt) == DEVICE
    assert sum(len(key) + len(value) + 2 for key, value in txt.items()) < 400


def test_urls_are_ready_to_call() -> None:
    """IPv4 first, IPv6 in brackets."""
    assert DEVICE.urls == ("https://10.0.0.7:8470", "https://[fd00::7]:8470")


@pytest.mark.parametrize("key", ["id", "fp", "proto"])
def test_a_record_without_identity_is_no_device(key: str) -> None:
    """Missing, empty or malformed: nobody."""
    for value in (None, b"", b"\xff\xfe", b"x" * 255, b"0123456789abcdef\n"):
        assert read(**{key: value}) is None


def test_words_of_the_future_count_as_the_worst() -> None:
    """An unknown load is busy, an unknown state is not ready; a strange version is left out."""
    found = read(load=b"sleepy", state=b"dreaming", ver=b"\x1b[31m1", models=b"not hex")
    assert found is not None
    assert (found.load, found.state, found.version, found.models_digest) == ("busy", "loading", "", "")


def test_only_addresses_of_a_lan_are_kept() -> None:
    """Loopback, groups, nowhere and broadcast are dropped, doubles too, link-local comes last, and few are enough."""
    nobody = [
        "127.0.0.1",
        "::1",
        "224.0.0.251",
        "ff02::fb",
        "0.0.0.0",
        "::",
        "255.255.255.255",
        "::ffff:127.0.0.1",
        "x",
    ]
    assert usable_addresses(nobody) == ()
    assert usable_addresses(["fe80::1%2", "fd00::1", "10.0.0.1", "10.0.0.1"]) == ("10.0.0.1", "fd00::1", "fe80::1%2")
    assert len(usable_addresses(f"10.0.{high}.{low}" for high in range(9) for low in range(9))) == MAX_ADDRESSES
    assert from_txt("n", "h.local.", nobody, 8470, GOOD) is None


def test_a_name_cannot_paint_the_terminal() -> None:
    """Control characters and direction marks are dropped, and a name ends after 63 bytes."""
    assert printable_name(" a\x1b[2Jb\u202e\n ") == "a[2Jb"
    assert len(printable_name("ä" * 100).encode()) <= 63
    assert from_txt("\x00\n", "h.local.", ["10.0.0.1"], 8470, GOOD) is None


@given(
    name=st.text(max_size=300),
    host=st.text(max_size=300),
    addresses=st.lists(st.one_of(st.text(max_size=50), st.ip_addresses().map(str)), max_size=40),
    port=st.one_of(st.none(), st.integers()),
    txt=st.dictionaries(
        st.one_of(st.sampled_from(sorted(GOOD)), st.binary(max_size=300)),
        st.one_of(st.none(), st.binary(max_size=300), st.sampled_from(sorted(GOOD.values()))),
        max_size=20,
    ),
)
def test_no_record_raises(
    name: str, host: str, addresses: list[str], port: int | None, txt: dict[bytes, bytes | None]
) -> None:
    """Whatever comes, there is a device within its bounds or there is none."""
    found = from_txt(name, host, addresses, port, GOOD | txt)
    if found is not None:
        assert found.name.isprintable()
        assert 0 < len(found.addresses) <= MAX_ADDRESSES
        assert 0 < found.port < 65536
        assert len(found.host) <= 600
