"""`inferd serve`: run the daemon in the foreground, as systemd or a person at a terminal wants it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command("serve")
@click.option("--config", "file", type=click.Path(path_type=Path), metavar="FILE", help="Configuration file (TOML).")
@click.option("--models", multiple=True, metavar="DIR", help="Folder of models; repeat.")
@click.option("--state", metavar="DIR", help="Folder for tokens, certificates and caches.")
@click.option("--listen", multiple=True, metavar="URL", help="unix:/path, tcp:HOST:PORT or one of those above; repeat.")
@click.option(
    "--lan", is_flag=True, default=None, help="Listen on the LAN and be found there by mDNS; callers need tokens."
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Least severity logged.")
def command(
    file: Path | None,
    models: tuple[str, ...],
    state: str | None,
    listen: tuple[str, ...],
    lan: bool | None,
    log_level: str | None,
) -> int:
    """Load the models of a folder and answer requests until SIGTERM or Ctrl-C.

    \b
    inferd serve --models ./models
    inferd serve --models ./models --listen unix:/tmp/i.sock --listen tcp:0.0.0.0:8470

    Listeners speak REST with TLS 1.3. `unix:/path?tls=off` is allowed; `tcp:127.0.0.1:PORT?tls=off&insecure=on` works
    on loopback only. `grpc+unix:` and `grpc+tcp:` speak gRPC, `memory+unix:/path` takes shared memory. Without --listen
    there is one Unix socket for your own user. --lan listens on TCP port 8470 of all addresses, with TLS, and announces
    the daemon to `inferd discover`. Models copied in later are served as they land. SIGHUP reloads the configuration,
    tokens and certificates; SIGTERM finishes what was accepted, then stops. Every setting: inferd config.
    """
    from inferd_agent.config import Loaded, load
    from inferd_agent.daemon import serve

    flags: dict[str, Any] = {
        "models.path": models,
        "state.dir": state,
        "server.listen": listen,
        "lan.enabled": lan,
        "log.level": log_level,
    }

    def configuration() -> Loaded:
        return load(file=file, flags=flags)

    return serve(configuration)
