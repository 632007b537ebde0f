"""What a device announces of itself by DNS-SD, as a value and as a TXT record.

Pure: no sockets, no zeroconf. Everything in a record comes from whoever cares to send it: it is clamped or thrown away,
never believed. A record says where to knock; who opens is for `trust` to tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal, get_args

from msgspec import Struct

SERVICE = "_inferd._tcp.local."
# What any client of the protocol may browse for, whoever made the server.
SUBTYPE = f"_v2._sub.{SERVICE}"
PROTOCOL = "v2"

Load = Literal["idle", "light", "busy", "full"]
DeviceState = Literal["ready", "loading", "draining"]

MAX_NAME_BYTES = 63
MAX_ADDRESSES = 16
_MAX_VALUE_CHARS = 64
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_-]{1,63}){0,8}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_IDENTIFIER = re.compile(r"[0-9a-f]{8,32}")
_DIGEST = re.compile(r"[0-9a-f]{0,64}")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_BROADCAST = IPv4Address("255.255.255.255")
_LOADS: tuple[Load, ...] = get_args(Load)
_STATES: tuple[DeviceState, ...] = get_args(DeviceState)


class Device(Struct, frozen=True, kw_only=True):
    """One device as it announces itself.

    `name` is its DNS-SD name, free to choose and to imitate; `instance_id` stays over restarts. `host` is its name in
    `.local`. `fingerprint` is the SHA-256 of its certificate (DER) in hexadecimal. `models_digest` changes when what it
    serves changes, and tells nothing else.
    """

    name: str
    instance_id: str
    host: str
    addresses: tuple[str, ...]
    port: int
    protocol: str = PROTOCOL
    version: str = ""
    models_digest: str = ""
    load: Load = "idle"
    state: DeviceState = "ready"
    fingerprint: str = ""

    @property
    def urls(self) -> tuple[str, ...]:
        """Where to call it, the likeliest first."""
        return tuple(f"https://{f'[{each}]' if ':' in each else each}:{self.port}" for each in self.addresses)


def to_txt(device: Device) -> dict[str, str]:
    """The TXT record: about 200 bytes, each pair far below DNS-SD's 255."""
    return {
        "txtvers": "1",
        "proto": device.protocol,
        "id": device.instance_id,
        "ver": device.version[:_MAX_VALUE_CHARS],
        "models": device.models_digest,
        "load": device.load,
        "state": device.state,
        "fp": device.fingerprint,
    }


def from_txt(
    name: str, host: str, addresses: Iterable[str], port: int | None, txt: Mapping[bytes, bytes | None]
) -> Device | None:
    """The device of a record as it came; None where no device can be made of it. Never raises.

    An unknown load counts as busy and an unknown state as loading: who speaks a language of the future is used last.
    """
    # Link-local addresses of IPv6 lead nowhere without the interface on which they were heard.
    addresses = [each for each in addresses if "%" in each or not each.lower().startswith("fe80:")]
    values = {_text(key).lower(): _text(value) for key, value in txt.items() if value is not None}
    usable = usable_addresses(addresses)
    host = host.rstrip(".")
    fingerprint = values.get("fp", "").lower()
    is_whole = (
        usable
        and port is not None
        and 0 < port < 65536
        and _HOST.fullmatch(host)
        and _IDENTIFIER.fullmatch(values.get("id", ""))
        and _FINGERPRINT.fullmatch(fingerprint)
        and values.get("proto") == PROTOCOL
    )
    name = printable_name(name)
    if not is_whole or not name:
        return None
    assert port is not None
    return Device(
        name=name,
        instance_id=values["id"],
        host=host,
        addresses=usable,
        port=port,
        protocol=PROTOCOL,
        version=_matching(_WORD, values.get("ver", "")),
        models_digest=_matching(_DIGEST, values.get("models", "")),
        load=next((each for each in _LOADS if each == values.get("load")), "busy"),
        state=next((each for each in _STATES if each == values.get("state")), "loading"),
        fingerprint=fingerprint,
    )


def usable_addresses(addresses: Iterable[str]) -> tuple[str, ...]:
    """Those that a device of the LAN can have, each once: IPv4, then IPv6, then link-local. A record must not send
    anybody to loopback, to a group or to nowhere."""
    found: dict[str, IPv4Address | IPv6Address] = {}
    for text in addresses:
        try:
            address = ip_address(text)
        except ValueError:
            continue
        if not _is_nobody(address):
            found[str(address)] = address
    ordered = sorted(found, key=lambda text: (found[text].is_link_local, found[text].version))
    return tuple(ordered[:MAX_ADDRESSES])


def printable_name(name: str, max_bytes: int = MAX_NAME_BYTES) -> str:
    """A name that a terminal survives, in as many bytes of UTF-8 as a DNS label has; may be empty."""
    kept = "".join(letter for letter in name[: MAX_NAME_BYTES * 2] if letter.isprintable()).strip()
    return kept.encode("utf-8", "ignore")[:max_bytes].decode("utf-8", "ignore").strip()


def _is_nobody(address: IPv4Address | IPv6Address) -> bool:
    """No single device of the LAN; an IPv4 address in IPv6's clothes counts, there is no need for one."""
    is_broadcast = address == _BROADCAST or (isinstance(address, IPv6Address) and address.ipv4_mapped is not None)
    return address.is_loopback or address.is_multicast or address.is_unspecified or is_broadcast


def _text(value: bytes) -> str:
    return value[:255].decode("utf-8", "replace")


def _matching(pattern: re.Pattern[str], text: str) -> str:
    return text if pattern.fullmatch(text) else ""
