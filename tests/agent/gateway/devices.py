"""Devices and members as tests need them."""

from __future__ import annotations

from typing import Any

from inferd.fleet.record import Device
from inferd_agent.gateway.upstream import Member


def device(name: str = "one", **fields: Any) -> Device:
    """A device with an instance id made from its name."""
    usual: dict[str, Any] = {
        "instance_id": name.encode().hex().ljust(16, "0")[:16], "host": f"{name}.local", "addresses": ("192.0.2.1",),
        "port": 8470, "fingerprint": "a" * 64,
    }  # fmt: skip
    return Device(name=name, **{**usual, **fields})


def member(name: str = "one", *, anchors: str = "PEM", models: tuple[str, ...] | None = (), **fields: Any) -> Member:
    """A member; `models` None: not known."""
    return Member(device(name, **fields), anchors, None if models is None else frozenset(models))
