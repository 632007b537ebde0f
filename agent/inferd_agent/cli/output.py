"""How the commands talk: tables for people, JSON for machines, one line and an exit code for errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inferd import errors as sdk
from inferd_runtime import errors as domain

EXIT_FAILED, EXIT_UNREACHABLE, EXIT_DENIED, EXIT_NO_MODEL = 1, 3, 4, 5

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def client_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--url, --token and --ca, which every command that calls a daemon takes."""
    for option in (
        click.option("--ca", metavar="FILE", help="CA certificate to trust.  [env: INFERD_CA]"),
        click.option("--token", metavar="TOKEN", help="Bearer token.  [env: INFERD_TOKEN]"),
        click.option(
            "--url",
            metavar="URL",
            help="unix:/path, https://host:port or http://127.0.0.1:port.  [env: INFERD_URL; default: the local one]",
        ),
    ):
        command = option(command)
    return command


def console() -> Console:
    """A console on standard output; without a terminal its width is fixed, so that tables do not fold at 80 columns."""
    return Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else 140)


def print_json(value: Any) -> None:
    """Print any of our structs, dataclasses or plain values as indented JSON."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.write(text.decode() + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: str = "") -> None:
    """A plain table; columns named in `right` (separated by spaces) are right-aligned."""
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right.split() else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def human_bytes(count: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def human_us(us: float) -> str:
    """12.3 -> "12 us", 4321 -> "4.32 ms"."""
    if us < 1000:
        return f"{us:.0f} us"
    return f"{us / 1000:.2f} ms" if us < 1e6 else f"{us / 1e6:.2f} s"


def printable_errors() -> tuple[type[Exception], ...]:
    """Errors whose message is meant for the caller; anything else is a bug and shows its trace."""
    return (sdk.InferdError, domain.InferdError, OSError)


def explain(error: BaseException) -> int:
    """Print an error as one line on standard error and give the exit code for it."""
    click.echo(f"inferd: {error}", err=True)
    if isinstance(error, sdk.ConnectionFailed):
        click.echo("Is the daemon running? Start it with: inferd serve --models DIR", err=True)
        return EXIT_UNREACHABLE
    if isinstance(error, (sdk.Unauthenticated, sdk.Forbidden)):
        click.echo("A token with the right scope: inferd token create NAME --scopes infer,read", err=True)
        return EXIT_DENIED
    if isinstance(error, (sdk.NotFound, sdk.NotReady)):
        return EXIT_NO_MODEL
    return EXIT_FAILED


def numbers(text: str, option: str) -> tuple[float, ...]:
    """ "0.5,0.5,0.5" -> (0.5, 0.5, 0.5). Raises UsageError naming the option."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.UsageError(f"{option}: expected numbers separated by commas, got {text!r}") from None
