"""`inferd trust`: believe a device by its fingerprint, or all that a fleet's CA vouches for; show it, take it back."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from inferd_agent.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from inferd.fleet.record import Device
    from inferd.fleet.trust import Authority, Trusted, TrustStore

_ANSWER_S = 5.0


@click.command("trust")
@click.argument("name", required=False)
@click.option("--fingerprint", metavar="HEX", help="Trust NAME only if it shows this one; asks nothing.")
@click.option("--yes", is_flag=True, help="Trust what NAME shows without asking: only on a network that you trust.")
@click.option("--replace", is_flag=True, help="Take NAME's new certificate in place of the one trusted before.")
@click.option("--remove", is_flag=True, help="Trust NAME no longer.")
@click.option(
    "--ca", type=click.Path(path_type=Path), metavar="FILE", help="Trust every device of this fleet's CA (PEM)."
)
@click.option("--remove-ca", metavar="HEX", help="Trust the CA with this fingerprint no longer.")
@click.option("--list", "is_list", is_flag=True, help="Show what is trusted.")
@click.option(
    "--timeout", "timeout_s", default=5.0, show_default=True, type=click.FloatRange(0.1, 600), metavar="SECONDS",
    help="How long to look for NAME.",
)  # fmt: skip
@click.option("--interface", "interfaces", multiple=True, metavar="IFACE", help="Look on this one, with *; repeat.")
@click.option(
    "--file", type=click.Path(path_type=Path), metavar="FILE",
    help="Where it is kept.  [default: $XDG_CONFIG_HOME/inferd/trust.json]",
)  # fmt: skip
@json_option
def command(
    name: str | None,
    fingerprint: str | None,
    yes: bool,
    replace: bool,
    remove: bool,
    ca: Path | None,
    remove_ca: str | None,
    is_list: bool,
    timeout_s: float,
    interfaces: tuple[str, ...],
    file: Path | None,
    as_json: bool,
) -> int:
    """Trust the device NAME (or its instance id) from now on, by the certificate that it shows now.

    \b
    inferd trust camera-7                        # compare with `inferd tls show` on camera-7
    inferd trust camera-7 --fingerprint 9f86...  # the same for scripts
    inferd trust --ca fleet-ca.pem
    inferd trust --list

    The pin outlives the certificates that the device renews by itself. A device that shows any other certificate later
    gets no request, until --replace says that this is right.
    """
    from inferd.fleet.trust import TrustStore

    store = TrustStore(file)
    if sum((name is not None, ca is not None, remove_ca is not None, is_list)) != 1:
        raise click.UsageError("give one of NAME, --ca FILE, --remove-ca HEX and --list")
    if name is None and (fingerprint or yes or replace or remove):
        raise click.UsageError("--fingerprint, --yes, --replace and --remove are about a NAME")
    if is_list:
        _list(store, as_json)
    elif ca is not None:
        added = _read_authority(ca)
        _change(store, lambda old: _with_authority(old, added))
        click.echo(f"trusted: every device of the CA {added.fingerprint}")
    elif remove_ca is not None:
        _remove_authority(store, remove_ca)
    elif name is not None and remove:
        _remove(store, name)
    elif name is not None:
        logging.getLogger("zeroconf").setLevel(logging.ERROR)
        device = asyncio.run(_look_for(name, interfaces, timeout_s))
        _trust(store, device, fingerprint, yes=yes, replace=replace)
    return 0


async def _look_for(name: str, interfaces: tuple[str, ...], timeout_s: float) -> Device:
    """The device with this name or instance id, as soon as it is heard of."""
    from inferd.errors import ConnectionFailed
    from inferd.fleet.browse import AsyncBrowser

    heard: asyncio.Future[Device] = asyncio.get_running_loop().create_future()

    def note(device: Device | None, _: str) -> None:
        if device is not None and name in (device.name, device.instance_id) and not heard.done():
            heard.set_result(device)

    async with AsyncBrowser(interfaces=interfaces, on_change=note) as browser:
        try:
            async with asyncio.timeout(timeout_s):
                return await heard
        except TimeoutError:
            there = ", ".join(each.name for each in browser.devices()) or "none"
            raise ConnectionFailed(f"no device '{name}' within {timeout_s:g} s; there are: {there}") from None


def _trust(store: TrustStore, device: Device, fingerprint: str | None, *, yes: bool, replace: bool) -> None:
    from inferd.errors import Untrusted
    from inferd.fleet.trust import first_contact, proves

    pin = first_contact(device, _ANSWER_S)
    old = store.read().pin_for(device)
    if old is not None and proves(device, old.certificates, _ANSWER_S):
        click.echo(f"{device.name} is trusted already")
        return
    if old is not None and not replace:
        raise Untrusted(
            f"{device.name} was trusted with the fingerprint {old.fingerprint} and now shows {pin.fingerprint}: it was"
            " reinstalled, or somebody answers in its place"
        )
    if fingerprint is not None:
        _compare(fingerprint, pin.fingerprint)
    elif not yes:
        click.echo(f"{device.name} at {device.urls[0]} shows the fingerprint\n  {pin.fingerprint}", err=True)
        click.confirm("The same as `inferd tls show` prints on that device?", abort=True, err=True)
    _change(store, lambda trusted: trusted.plus(pin))
    click.echo(f"trusted: {device.name} ({device.instance_id}), fingerprint {pin.fingerprint}")


def _compare(expected: str, shown: str) -> None:
    from inferd.errors import Untrusted

    if expected.replace(":", "").lower() != shown:
        raise Untrusted(f"it shows the fingerprint {shown}, not {expected}; nothing was trusted")


def _remove(store: TrustStore, name: str) -> None:
    def without(trusted: Trusted) -> Trusted:
        pin = next((each for each in trusted.pins if name in (each.name, each.instance_id)), None)
        if pin is None:
            raise click.ClickException(f"'{name}' is not pinned; see inferd trust --list")
        return trusted.without(pin)

    _change(store, without)
    click.echo(f"no longer trusted: {name}")


def _read_authority(path: Path) -> Authority:
    from inferd.errors import TLSError
    from inferd.fleet.trust import Authority, fingerprint_of, pinned_context

    text = path.read_text("ascii", "replace")
    try:
        pem = ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(text.strip()))
        is_authority = bool(pinned_context(pem).get_ca_certs())
    except (ValueError, TLSError):
        raise click.ClickException(f"{path}: is not one PEM certificate") from None
    if not is_authority:
        raise click.ClickException(f"{path}: is a certificate, but not a CA's; `inferd tls ca export` prints one")
    return Authority(fingerprint=fingerprint_of(ssl.PEM_cert_to_DER_cert(pem)), certificate=pem)


def _with_authority(trusted: Trusted, added: Authority) -> Trusted:
    import msgspec

    rest = tuple(each for each in trusted.authorities if each.fingerprint != added.fingerprint)
    return msgspec.structs.replace(trusted, authorities=(*rest, added))


def _remove_authority(store: TrustStore, fingerprint: str) -> None:
    import msgspec

    wanted = fingerprint.replace(":", "").lower()

    def without(trusted: Trusted) -> Trusted:
        rest = tuple(each for each in trusted.authorities if each.fingerprint != wanted)
        if rest == trusted.authorities:
            raise click.ClickException(f"no CA {fingerprint} is trusted; see inferd trust --list")
        return msgspec.structs.replace(trusted, authorities=rest)

    _change(store, without)
    click.echo(f"no longer trusted: the CA {wanted}")


def _list(store: TrustStore, as_json: bool) -> None:
    trusted = store.read()
    if as_json:
        print_json(trusted)
        return
    rows = [("device", pin.name, pin.instance_id, pin.fingerprint) for pin in trusted.pins]
    rows += [("CA", "", "", each.fingerprint) for each in trusted.authorities]
    if rows:
        print_table(("kind", "name", "instance", "fingerprint"), rows)
    else:
        click.echo(f"Nothing is trusted in {store.path}. Trust a device with: inferd trust NAME")


def _change(store: TrustStore, change: Callable[[Trusted], Trusted]) -> None:
    """Change the file as one step, also beside others that do."""
    import msgspec

    from inferd_agent.files import write_atomically

    with _locked(store.path):
        changed = change(store.read())
        write_atomically(store.path, msgspec.json.format(msgspec.json.encode(changed), indent=2) + b"\n", mode=0o644)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
