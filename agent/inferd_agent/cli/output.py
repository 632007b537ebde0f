"""How the commands talk: tables and labelled lines for people, JSON for machines, progress on standard error.

Names and messages from elsewhere are printed as they are, never as markup. Without a terminal nothing is folded and
nothing is coloured, so that `grep` and `awk` get whole lines.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import RenderableType

UNFOLDED_COLUMNS = 100_000
STATE_STYLES = {"READY": "green", "FAILED": "red", "LOADING": "yellow", "DRAINING": "yellow", "UNLOADED": "dim"}

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def client_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--url, --token and --ca, which every command that calls a daemon takes."""
    for option in (
        click.option("--ca", metavar="FILE", help="CA certificate to trust.  [env: INFERD_CA]"),
        click.option(
            "--token", metavar="TOKEN", help="Bearer token; the variable keeps it out of `ps`.  [env: INFERD_TOKEN]"
        ),
        click.option(
            "--url",
            metavar="URL",
            help="unix:/path, https://host:port or http://127.0.0.1:port.  [env: INFERD_URL; default: the local one]",
        ),
    ):
        command = option(command)
    return command


def print_json(value: Any) -> None:
    """Print any of our structs, dataclasses or plain values as indented JSON; what is no number becomes null."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """A plain table; the columns named in `right` are right-aligned. States have their colours."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, STATE_STYLES.get(cell, "")) for cell in row))
    _print(table)


def print_labelled(pairs: Iterable[tuple[str, str]], *, indent: int = 0) -> None:
    """A label and a text on each line, the texts aligned and folded under themselves; empty texts are left out."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in pairs:
        if text:
            grid.add_row(Text(label), Text(text))
    _print(Padding.indent(grid, indent))


def print_heading(name: str, rest: str) -> None:
    """A bold name and what there is to say about it."""
    from rich.text import Text

    _print(Text.assemble((name, "bold"), "  ", rest))


@contextlib.contextmanager
def progress(what: str, *, show: bool) -> Iterator[Callable[..., None]]:
    """A bar on standard error where that is a terminal; what is yielded takes the share that is done, and a note."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    is_shown = show and sys.stderr is not None and sys.stderr.isatty()
    columns = (TextColumn(what), BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not is_shown) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda share, note="": bar.update(task, completed=share, description=note)


def _print(what: RenderableType) -> None:
    from rich.console import Console

    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    console = Console(highlight=False, width=None if is_terminal else UNFOLDED_COLUMNS)
    with console.capture() as captured:
        console.print(what)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def human_bytes(count: float) -> str:
    """1536 -> "1.5 KiB"."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def human_us(us: float) -> str:
    """12.3 -> "12 us", 4321 -> "4.32 ms"."""
    if us < 1000:
        return f"{us:.0f} us"
    return f"{us / 1000:.2f} ms" if us < 1e6 else f"{us / 1e6:.2f} s"


def one_line(text: str) -> str:
    """A message on one line, however its author broke it."""
    return " ".join(text.split())


def describe_tensors(specs: Sequence[Mapping[str, Any]], most: int = 8) -> str:
    """`x FP32 [-1,64], y INT64 []`, cut after `most`."""
    texts = [f"{s['name']} {s['datatype']} [{','.join(map(str, s['shape']))}]" for s in specs[:most]]
    return ", ".join(texts) + (f" and {len(specs) - most} more" if len(specs) > most else "")
