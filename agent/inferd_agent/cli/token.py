"""`inferd token`: make, list, rotate and revoke the tokens of one state folder; the daemon notices by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from inferd_agent.cli.output import json_option, print_json, print_table


def state_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--state, for commands that work on the state folder itself."""
    return click.option(
        "--state", metavar="DIR", help="State folder of the daemon.  [default: as `inferd serve` has it]"
    )(command)


@click.group("token")
def command() -> None:
    """Create, list, rotate and revoke the tokens that clients call with.

    Over a Unix socket the daemon's own user and root need none. A token is shown once, when it is made; only a digest
    is stored. Changes take effect within a second, without a restart.

    \b
    inferd token create camera-7 --scopes infer --models 'ocr-*' --expires 90d
    inferd token rotate camera-7 --overlap 1d
    """


@command.command("create")
@click.argument("name")
@click.option(
    "--scopes", default="infer", show_default=True, metavar="LIST", help="Some of infer, read, admin, by commas."
)
@click.option("--models", "models", multiple=True, metavar="GLOB", help="Models it may use; repeat.  [default: *]")
@click.option("--expires", metavar="WHEN", help="A duration (12h, 30d) or a date (2031-01-31).  [default: never]")
@click.option("--rate", "rate_per_s", default=0.0, metavar="N", help="Requests a second.  [default: no limit]")
@click.option("--burst", default=0, metavar="N", help="Requests at once above the rate.  [default: one second's worth]")
@click.option(
    "--priority", default=0, show_default=True, metavar="N", help="0 (none given) to 9; 1 is the most urgent."
)
@state_option
@json_option
def create(
    name: str,
    scopes: str,
    models: tuple[str, ...],
    expires: str | None,
    rate_per_s: float,
    burst: int,
    priority: int,
    state: str | None,
    as_json: bool,
) -> None:
    """Make a token called NAME and print it, this once."""
    from inferd_agent.identity import parse_expiry_s

    token, record = _store(state).create(
        name,
        [scope.strip() for scope in scopes.split(",") if scope.strip()],
        models=models or ("*",),
        expires_s=parse_expiry_s(expires, time.time()) if expires else None,
        rate_per_s=rate_per_s,
        burst=burst,
        priority=priority,
    )
    _show_secret(token, record, as_json)


@command.command("list")
@state_option
@json_option
def list_tokens(state: str | None, as_json: bool) -> None:
    """Show the tokens, never their secrets."""
    records = _store(state).read()
    if as_json:
        print_json([_public(record) for record in records])
        return
    if not records:
        click.echo("No tokens yet. Make one: inferd token create NAME --scopes infer,read")
        return
    rows = [
        (
            r.name,
            r.id,
            ",".join(r.scopes),
            ",".join(r.models),
            _expiry(r),
            f"{r.rate_per_s:g}/s" if r.rate_per_s else "",
        )
        for r in records
    ]
    print_table("", ("name", "id", "scopes", "models", "expires", "rate"), rows)


@command.command("rotate")
@click.argument("name")
@click.option("--overlap", default="0s", show_default=True, metavar="TIME", help="How long the old secret stays valid.")
@click.option("--expires", metavar="WHEN", help="A new expiry.  [default: as it was]")
@state_option
@json_option
def rotate(name: str, overlap: str, expires: str | None, state: str | None, as_json: bool) -> None:
    """Give the token NAME (or its id) a new secret and print it, this once."""
    from inferd_agent.identity import parse_duration_s, parse_expiry_s

    expires_s = parse_expiry_s(expires, time.time()) if expires else None
    token, record = _store(state).rotate(name, overlap_s=parse_duration_s(overlap), expires_s=expires_s)
    _show_secret(token, record, as_json)


@command.command("revoke")
@click.argument("name")
@state_option
def revoke(name: str, state: str | None) -> None:
    """Make the token NAME (or its id) worth nothing, at once."""
    record = _store(state).revoke(name)
    click.echo(f"revoked {record.name} ({record.id})")


def _store(state: str | None) -> Any:
    from inferd_agent.config import load
    from inferd_agent.identity import TokenStore

    config = load(flags={"state.dir": state}).config
    return TokenStore(Path(config.state.dir) / "tokens.json")


def _show_secret(token: str, record: Any, as_json: bool) -> None:
    if as_json:
        print_json({"token": token, **_public(record)})
        return
    click.echo(token)
    click.echo(f"{record.name} ({record.id}): {', '.join(record.scopes)} on {', '.join(record.models)}, "
               f"expires {_expiry(record)}. It is not shown again.", err=True)  # fmt: skip


def _expiry(record: Any) -> str:
    return (
        "never" if record.expires_s is None else f"{datetime.fromtimestamp(record.expires_s, UTC):%Y-%m-%d %H:%M} UTC"
    )


def _public(record: Any) -> dict[str, Any]:
    """A record without its digests."""
    return {
        "id": record.id, "name": record.name, "scopes": list(record.scopes), "models": list(record.models),
        "created_s": record.created_s, "expires_s": record.expires_s, "rate_per_s": record.rate_per_s,
        "burst": record.burst, "priority": record.priority,
        "overlaps_until_s": max((s.until_s for s in record.secrets if s.until_s), default=None),
    }  # fmt: skip
