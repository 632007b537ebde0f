"""`inferd config`: every setting, its value and where it came from."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from inferd_agent.cli.output import json_option, print_json, print_table


@click.command("config")
@click.option("--config", "file", type=click.Path(path_type=Path), metavar="FILE", help="Configuration file.")
@click.option("--state", metavar="DIR", help="State folder, as given to `inferd serve`.")
@click.option("--changed", is_flag=True, help="Only what differs from the defaults.")
@click.option("--docs", is_flag=True, help="Print docs/configuration.md, made from the schema.")
@json_option
def command(file: Path | None, state: str | None, changed: bool, docs: bool, as_json: bool) -> None:
    """Show every setting, its value and where it came from: default, file, environment or flag."""
    from inferd_agent.config import load, render_docs

    if docs:
        click.echo(render_docs(), nl=False)
        return
    loaded = load(file=file, flags={"state.dir": state})
    rows = []
    for dotted, origin in loaded.origins.items():
        section, _, name = dotted.partition(".")
        value = getattr(getattr(loaded.config, section), name)
        if not changed or origin.kind != "default":
            rows.append((dotted, value, str(origin)))
    if as_json:
        print_json({dotted: {"value": value, "from": origin} for dotted, value, origin in rows})
        return
    print_table("", ("key", "value", "from"), [(k, msgspec.json.encode(v).decode(), o) for k, v, o in rows])
    click.echo(f"\nfile: {loaded.file or f'{loaded.paths.config_file} (not there)'}")
