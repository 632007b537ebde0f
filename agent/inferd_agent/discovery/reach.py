"""Which listener is for the LAN, and which of the host's addresses lead to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from inferd.fleet.interfaces import Interface
from inferd.fleet.record import usable_addresses
from inferd_agent.config import is_lan_listener
from inferd_agent.sockets import Bound

_ALL_IPV4, _ALL = "0.0.0.0", "::"  # noqa: S104  compared with, not listened on


def find_lan(bound: Iterable[Bound]) -> Bound | None:
    """The first listener that other machines can call."""
    return next((each for each in bound if is_lan_listener(each.listener)), None)


def port_of(bound: Bound) -> int:
    """The port, also where the kernel chose it."""
    return int(bound.sockets[0].getsockname()[1])


def reached(bound: Bound, interfaces: Sequence[Interface]) -> tuple[str, ...]:
    """The addresses of these interfaces at which the listener answers; link-local ones where there are no others."""
    listening = {str(sock.getsockname()[0]) for sock in bound.sockets}
    addresses = (address for interface in interfaces for address in interface.addresses)
    found = usable_addresses(address for address in addresses if _answers(listening, address))
    return tuple(each for each in found if not ip_address(each).is_link_local) or found


def _answers(listening: set[str], address: str) -> bool:
    if _ALL in listening:
        return True
    return address in listening or (_ALL_IPV4 in listening and ":" not in address)
