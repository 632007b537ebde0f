"""`inferd discover`: the devices of the LAN, whether they answer, whether they are trusted, and what they serve.

A device that is not trusted is only asked for its certificate; nothing else is sent to it, and no token ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from inferd_agent.cli.output import json_option, one_line, print_json, print_table

if TYPE_CHECKING:
    from inferd.fleet.record import Device
    from inferd.fleet.trust import TrustStore

EXIT_NONE_FOUND = 3
_AT_ONCE = 16
_ANSWER_S = 3.0
_SHOWN_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Finding:
    """A device and what asking it brought. `models` is None where it was not asked, or did not say."""

    device: Device
    is_trusted: bool
    is_reachable: bool
    models: tuple[str, ...] | None
    problem: str

    @property
    def row(self) -> tuple[str, ...]:
        """For the table."""
        device = self.device
        models = "?" if self.models is None else ", ".join(self.models) or "none"
        return (
            device.name, device.urls[0], device.state.upper(), device.load, "yes" if self.is_reachable else "no",
            "yes" if self.is_trusted else "no", device.version, models, device.fingerprint[:_SHOWN_DIGITS],
        )  # fmt: skip

    @property
    def facts(self) -> dict[str, Any]:
        """For machines."""
        import msgspec

        told = msgspec.structs.asdict(self.device)
        return told | {
            "urls": self.device.urls, "trusted": self.is_trusted, "reachable": self.is_reachable,
            "models": self.models, "problem": self.problem,
        }  # fmt: skip


COLUMNS = ("name", "url", "state", "load", "reachable", "trusted", "version", "models", "fingerprint")


@click.command("discover")
@click.option("--watch", is_flag=True, help="Go on, and print every change, until Ctrl-C.")
@click.option(
    "--timeout", "timeout_s", default=2.0, show_default=True, type=click.FloatRange(0.1, 600), metavar="SECONDS",
    help="How long to listen.",
)  # fmt: skip
@click.option("--interface", "interfaces", multiple=True, metavar="NAME", help="Listen on this one, with *; repeat.")
@click.option(
    "--token", metavar="TOKEN", help="To ask trusted devices for their models (scope read).  [env: INFERD_TOKEN]"
)
@json_option
def command(watch: bool, timeout_s: float, interfaces: tuple[str, ...], token: str | None, as_json: bool) -> int:
    """Find the inferd devices of this LAN.

    \b
    inferd discover
    inferd discover --watch --json | jq -r 'select(.event == "gone") | .name'

    A device that is not trusted can have any name; `inferd trust NAME` compares its fingerprint and pins it. Exit code
    3 if there is none.
    """
    from inferd.address import find_token

    logging.getLogger("zeroconf").setLevel(logging.ERROR)
    if watch:
        asyncio.run(_watch(interfaces, as_json))
        return 0
    findings = asyncio.run(_find(interfaces, timeout_s, find_token(token)))
    if as_json:
        print_json([finding.facts for finding in findings])
    elif findings:
        print_table(COLUMNS, [finding.row for finding in findings])
        for finding in findings:
            if finding.problem:
                click.echo(f"{finding.device.name}: {finding.problem}", err=True)
    else:
        click.echo(
            f"No devices within {timeout_s:g} s. Start one with: inferd serve --lan\n"
            "A firewall must let UDP port 5353 and the device's TCP port (8470) through.",
            err=True,
        )
    return 0 if findings else EXIT_NONE_FOUND


async def _find(interfaces: Sequence[str], timeout_s: float, token: str | None) -> list[Finding]:
    from inferd.fleet.browse import AsyncBrowser
    from inferd.fleet.trust import TrustStore

    async with AsyncBrowser(interfaces=interfaces) as browser:
        await asyncio.sleep(timeout_s)
        devices = browser.devices()
    store, slots = TrustStore(), asyncio.Semaphore(_AT_ONCE)

    async def ask(device: Device) -> Finding:
        async with slots:
            return await asyncio.to_thread(examine, device, store, token)

    return await asyncio.gather(*map(ask, devices))


def examine(device: Device, store: TrustStore, token: str | None) -> Finding:
    """Ask one device, within a few seconds."""
    from inferd import errors
    from inferd.fleet.trust import first_contact

    try:
        if not store.is_trusted(device):
            first_contact(device, _ANSWER_S)
            return Finding(device, False, True, None, "")
        models = _ask_models(device, store, token)
    except errors.Untrusted as error:
        return Finding(device, False, True, None, str(error))
    except (errors.Unauthenticated, errors.Forbidden) as error:
        problem = "" if token is None else one_line(str(error))
        return Finding(device, True, True, None, problem)
    except errors.InferdError as error:
        return Finding(device, store.is_trusted(device), False, None, one_line(str(error)))
    return Finding(device, True, True, models, "")


def _ask_models(device: Device, store: TrustStore, token: str | None) -> tuple[str, ...]:
    """The models that serve, from the first address that answers."""
    from inferd import calls, errors
    from inferd.address import parse_url
    from inferd.connection import connect
    from inferd.retry import Deadline
    from inferd.wire import fixed_headers, spell, write_head

    index = calls.index(ready=True)
    failure: errors.InferdError = errors.ConnectionFailed(f"{device.name} has no address")
    for url in device.urls:
        address, deadline = parse_url(url), Deadline(_ANSWER_S)
        try:
            connection = connect(address, store.trust_for(device), deadline)
        except errors.Untrusted:
            raise
        except (errors.ConnectionFailed, errors.DeadlineExceeded) as error:
            failure = error
            continue
        try:
            head, buffers = write_head(index, spell(fixed_headers(address.authority, token)), deadline)
            entries = index.read(connection.exchange(head, buffers, deadline))
            return tuple(sorted({str(entry.get("name")) for entry in entries}))
        finally:
            connection.close()
    raise failure


async def _watch(interfaces: Sequence[str], as_json: bool) -> None:
    """Print a line for every change until cancelled."""
    import msgspec

    from inferd.fleet.browse import AsyncBrowser

    known: set[str] = set()

    def tell(device: Device | None, name: str) -> None:
        event = "gone" if device is None else "changed" if name in known else "found"
        known.discard(name) if device is None else known.add(name)
        if as_json:
            facts = {} if device is None else msgspec.structs.asdict(device)
            click.echo(msgspec.json.encode({"event": event, "name": name} | facts).decode())
        else:
            rest = "" if device is None else f"  {device.urls[0]}  {device.state}, {device.load}, {device.version}"
            click.echo(f"{event:8}{name}{rest}")

    async with AsyncBrowser(interfaces=interfaces, on_change=tell):
        await asyncio.Event().wait()
