"""`inferd token`: make, list, rotate and revoke the tokens of one state folder; the daemon notices by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inferd_agent.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from inferd_agent.identity import TokenRecord, TokenStore

state_option = click.option(
    "--state", metavar="DIR", help="State folder of the daemon.  [default: as `inferd serve` has it]"
)


def parsed(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """A click callback that makes wrong text a usage error."""

    def callback(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
        from inferd_agent.errors import ConfigError

        try:
            return None if text is None else parse(text)
        except ConfigError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return callback


def parse_scopes(text: str) -> list[str]:
    """`infer,read` as a list; each must be a scope that there is."""
    from inferd_agent.config import SCOPES
    from inferd_agent.errors import ConfigError

    scopes = [scope.strip() for scope in text.split(",") if scope.strip()]
    wrong = [scope for scope in scopes if scope not in SCOPES]
    if wrong or not scopes:
        raise ConfigError(f"scopes are some of {', '.join(SCOPES)}, not {', '.join(wrong) or 'none'}")
    return scopes


def parse_expiry(text: str) -> float:
    """A duration from now or a date, as Unix seconds."""
    from inferd_agent.identity import parse_expiry_s

    return parse_expiry_s(text, time.time())


def parse_duration(text: str) -> float:
    """`12h` in seconds."""
    from inferd_agent.identity import parse_duration_s

    return parse_duration_s(text)


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
    "--scopes", default="infer", show_default=True, metavar="LIST", callback=parsed(parse_scopes),
    help="Some of infer, read, admin, by commas.",
)  # fmt: skip
@click.option("--models", "models", multiple=True, metavar="GLOB", help="Models it may use; repeat.  [default: *]")
@click.option(
    "--expires", "expires_s", metavar="WHEN", callback=parsed(parse_expiry),
    help="A duration (12h, 30d) or a date (2031-01-31).  [default: never]",
)  # fmt: skip
@click.option(
    "--rate", "rate_per_s", default=0.0, type=click.FloatRange(0, 1e9), metavar="N",
    help="Requests a second.  [default: no limit]",
)  # fmt: skip
@click.option(
    "--burst", default=0, type=click.IntRange(0), metavar="N",
    help="Requests at once above the rate.  [default: one second's worth]",
)  # fmt: skip
@click.option(
    "--priority", default=0, show_default=True, type=click.IntRange(0, 9), metavar="N",
    help="0 to 9; a greater one goes first among the requests that wait for a model.",
)  # fmt: skip
@state_option
@json_option
def create(
    name: str,
    scopes: list[str],
    models: tuple[str, ...],
    expires_s: float | None,
    rate_per_s: float,
    burst: int,
    priority: int,
    state: str | None,
    as_json: bool,
) -> None:
    """Make a token called NAME and print it, this once.

    \b
    TOKEN=$(inferd token create camera-7 --scopes infer,read --models 'dig*' --expires 90d)
    """
    token, record = store_of(state).create(
        name, scopes, models=models or ("*",), expires_s=expires_s, rate_per_s=rate_per_s, burst=burst,
        priority=priority,
    )  # fmt: skip
    show_secret(token, record, as_json)


@command.command("list")
@state_option
@json_option
def list_tokens(state: str | None, as_json: bool) -> None:
    """Show the tokens, never their secrets."""
    records = store_of(state).read()
    if as_json:
        print_json([public(record) for record in records])
        return
    if not records:
        click.echo("No tokens yet. Make one: inferd token create NAME --scopes infer,read")
        return
    rows = [
        (r.name, r.id, ",".join(r.scopes), ",".join(r.models), expiry(r), f"{r.rate_per_s:g}/s" if r.rate_per_s else "")
        for r in records
    ]
    print_table(("name", "id", "scopes", "models", "expires", "rate"), rows)


@command.command("rotate")
@click.argument("name")
@click.option(
    "--overlap", "overlap_s", default="0s", show_default=True, metavar="TIME", callback=parsed(parse_duration),
    help="How long the old secret stays valid, such as 12h.",
)  # fmt: skip
@click.option(
    "--expires", "expires_s", metavar="WHEN", callback=parsed(parse_expiry), help="A new expiry.  [default: as it was]"
)
@state_option
@json_option
def rotate(name: str, overlap_s: float, expires_s: float | None, state: str | None, as_json: bool) -> None:
    """Give the token NAME (or its id) a new secret and print it, this once."""
    token, record = store_of(state).rotate(name, overlap_s=overlap_s, expires_s=expires_s)
    show_secret(token, record, as_json)


@command.command("revoke")
@click.argument("name")
@state_option
@json_option
def revoke(name: str, state: str | None, as_json: bool) -> None:
    """Make the token NAME (or its id) worth nothing, at once."""
    record = store_of(state).revoke(name)
    if as_json:
        print_json(public(record))
    else:
        click.echo(f"revoked {record.name} ({record.id})")


def store_of(state: str | None) -> TokenStore:
    """The tokens of the folder given, else of the one that the configuration names."""
    from inferd_agent.config import load
    from inferd_agent.identity import TokenStore

    return TokenStore(Path(load(flags={"state.dir": state}).config.state.dir) / "tokens.json")


def show_secret(token: str, record: TokenRecord, as_json: bool) -> None:
    """The token alone on standard output, so that a script can take it; what it may do on standard error."""
    if as_json:
        print_json({"token": token, **public(record)})
        return
    click.echo(token)
    what = f"{', '.join(record.scopes)} on {', '.join(record.models)}, expires {expiry(record)}"
    click.echo(f"{record.name} ({record.id}): {what}. It is not shown again.", err=True)


def expiry(record: TokenRecord) -> str:
    """`2031-01-31 12:00 UTC`, `never`, or that it is over."""
    if record.expires_s is None:
        return "never"
    over = " (over)" if record.is_expired(time.time()) else ""
    return f"{datetime.fromtimestamp(record.expires_s, UTC):%Y-%m-%d %H:%M} UTC{over}"


def public(record: TokenRecord) -> dict[str, Any]:
    """A record without its digests."""
    return {
        "id": record.id, "name": record.name, "scopes": list(record.scopes), "models": list(record.models),
        "created_s": record.created_s, "expires_s": record.expires_s, "rate_per_s": record.rate_per_s,
        "burst": record.burst, "priority": record.priority,
        "overlaps_until_s": max((s.until_s for s in record.secrets if s.until_s), default=None),
    }  # fmt: skip
