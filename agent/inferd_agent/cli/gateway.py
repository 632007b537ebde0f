"""`inferd gateway`: Envoy in front of the fleet, with its configuration written and kept current."""

from __future__ import annotations

import os
from pathlib import Path

import click

from inferd_agent.cli.output import print_json

DEFAULT_LISTEN = "tcp:127.0.0.1:8471?tls=off&insecure=on"


@click.command("gateway")
@click.option(
    "--listen", default=DEFAULT_LISTEN, metavar="URL", show_default=True,
    help="tcp:HOST:PORT with --cert and --key; tcp:127.0.0.1:PORT?tls=off&insecure=on; unix:/path?tls=off.",
)  # fmt: skip
@click.option("--cert", default="", metavar="FILE", help="The gateway's own certificate chain (PEM).")
@click.option("--key", default="", metavar="FILE", help="Its private key (PEM).")
@click.option("--interface", "interfaces", multiple=True, metavar="NAME", help="Look for devices here only; repeat.")
@click.option(
    "--trust", type=click.Path(path_type=Path), metavar="FILE", help="Whom to trust.  [default: as inferd trust has it]"
)
@click.option("--token", metavar="TOKEN", help="To ask devices for their models (scope read).  [env: INFERD_TOKEN]")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0.1, 86_400), default=60.0, show_default=True,
              metavar="S", help="The longest that a call may take, repeats and all.")  # fmt: skip
@click.option("--patience", "patience_s", type=click.FloatRange(0.05, 86_400), default=5.0, show_default=True,
              metavar="S", help="Without an answer for so long, another device is asked as well.")  # fmt: skip
@click.option("--drain", "drain_s", type=click.FloatRange(0, 3600), default=30.0, show_default=True, metavar="S",
              help="How long a stop waits for calls under way.")  # fmt: skip
@click.option("--folder", type=click.Path(path_type=Path), metavar="DIR", help="For the files that Envoy follows.")
@click.option("--print", "prints", is_flag=True, help="Print one configuration with the devices of now, and end.")
@click.option("--wait", "wait_s", type=click.FloatRange(0.1, 600), default=3.0, show_default=True, metavar="S",
              help="How long --print looks for devices.")  # fmt: skip
@click.option("--no-envoy", is_flag=True, help="Keep the files current, for an Envoy that somebody else runs.")
def command(
    listen: str,
    cert: str,
    key: str,
    interfaces: tuple[str, ...],
    trust: Path | None,
    token: str | None,
    timeout_s: float,
    patience_s: float,
    drain_s: float,
    folder: Path | None,
    prints: bool,
    wait_s: float,
    no_envoy: bool,
) -> int:
    """Balance calls over all trusted devices of the LAN with Envoy.

    \b
    inferd gateway
    inferd gateway --listen tcp:0.0.0.0:8471 --cert gw.pem --key gw.key
    inferd gateway --print > envoy.json

    Callers use the gateway as if it were one daemon; their tokens pass through to the devices. A call goes to a device
    that serves its model and has the fewest calls under way; what a device did not answer is repeated on another. Exit
    code 1 when Envoy ends by itself.
    """
    from inferd.address import find_token
    from inferd_agent.config import Paths
    from inferd_agent.gateway.gateway import Sources, look_once, serve
    from inferd_agent.gateway.settings import read_settings

    settings = read_settings(listen, timeout_s=timeout_s, patience_s=patience_s, cert=cert, key=key)
    sources = Sources(interfaces, trust, find_token(token))
    if prints:
        print_json(look_once(settings, sources, wait_s))
        return 0
    paths = Paths.of(os.environ, os.geteuid())
    folder = folder or (paths.runtime_dir or paths.state_dir) / "gateway"
    return serve(settings, sources, folder.absolute(), runs_envoy=not no_envoy, drain_s=drain_s)
