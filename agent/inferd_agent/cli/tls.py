"""`inferd tls`: the fingerprints that others compare, and one CA for many devices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from inferd_agent.cli.output import json_option, print_json, print_labelled
from inferd_agent.cli.token import state_option

if TYPE_CHECKING:
    from inferd_agent.config import Config


@click.group("tls")
def command() -> None:
    """Show this daemon's certificates; make certificates for other devices.

    \b
    inferd tls show
    inferd tls ca export > fleet-ca.pem
    inferd tls ca issue camera-7 --address 10.0.0.7 --out camera-7/
    """


@command.command("show")
@state_option
@json_option
def show(state: str | None, as_json: bool) -> None:
    """Show the fingerprint that callers on the LAN see, for how long, and by which names."""
    from inferd_agent.tls.fleet import describe

    config = _config(state)
    found = describe(_folder(config), config.tls.cert)
    if as_json:
        print_json(found)
    else:
        print_labelled((label.replace("_", " "), text) for label, text in found.items())


@command.group("ca", short_help="One CA for many devices: its certificate, and theirs.")
def authority() -> None:
    """One CA for many devices: export its certificate to clients, issue certificates to devices.

    \b
    inferd tls ca export > fleet-ca.pem    # clients: inferd trust --ca fleet-ca.pem
    inferd tls ca issue camera-7 --address 10.0.0.7 --out camera-7/
    """


@authority.command("export", short_help="Print the CA's certificate (PEM).")
@state_option
def export(state: str | None) -> None:
    """Print the CA's certificate (PEM), which `inferd trust --ca FILE` takes. A CA is made where there is none."""
    from inferd_agent.tls.fleet import export_authority

    click.echo(export_authority(_folder(_config(state))), nl=False)


@authority.command("issue", short_help="Make a certificate and key for a device.")
@click.argument("name")
@click.option("--name", "names", multiple=True, metavar="NAME", help="A further DNS name; repeat.")
@click.option("--address", "addresses", multiple=True, metavar="ADDRESS", help="An address of the device; repeat.")
@click.option(
    "--days", default=365, show_default=True, type=click.IntRange(1, 3650), metavar="N",
    help="How long the certificate is good.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder to write to.  [default: ./NAME]")
@state_option
def issue(
    name: str, names: tuple[str, ...], addresses: tuple[str, ...], days: int, out: Path | None, state: str | None
) -> None:
    """Make a certificate and key for the device NAME: tls.crt and tls.key, which its `tls.cert` and `tls.key` name.

    The key of the CA stays here. Whoever trusts the CA trusts all that it issued, so issue to devices only.
    """
    from inferd_agent.tls import HostNames
    from inferd_agent.tls.fleet import issue_for

    folder = out or Path(name)
    host = HostNames.of(("localhost",), ("127.0.0.1", "::1")).plus((name, f"{name}.local", *names, *addresses))
    fingerprint = issue_for(_folder(_config(state)), folder, host, days)
    click.echo(f"{folder}: tls.crt, tls.key (keep it secret) and ca.pem, fingerprint {fingerprint}")


def _config(state: str | None) -> Config:
    from inferd_agent.config import load

    return load(flags={"state.dir": state}).config


def _folder(config: Config) -> Path:
    return Path(config.state.dir) / "tls"
