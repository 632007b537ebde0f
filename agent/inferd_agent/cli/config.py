"""`inferd config`: every setting, its value and where it came from."""

from __future__ import annotations

from pathlib import Path

import click

from inferd_agent.cli.output import json_option, print_json, print_table


@click.command("config")
@click.option("--config", "file", type=click.Path(path_type=Path), metavar="FILE", help="Configuration file (TOML).")
@click.option("--state", metavar="DIR", help="State folder, as given to `inferd serve`.")
@click.option("--changed", is_flag=True, help="Only what differs from the defaults.")
@click.option("--docs", is_flag=True, help="Print docs/configuration.md, made from the schema.")
@json_option
def command(file: Path | None, state: str | None, changed: bool, docs: bool, as_json: bool) -> None:
    """Show every setting, its value and where it came from: default, file, environment or flag.

    Also the way to check a file before the daemon reads it: a mistake is shown with its line, exit code 1.

    \b
    inferd config --changed
    inferd config --config ./inferd.toml
    """
    import msgspec

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
    print_table(("key", "value", "from"), [(key, msgspec.json.encode(v).decode(), origin) for key, v, origin in rows])
    click.echo(f"\nfile: {loaded.file or f'{loaded.paths.config_file} (not there)'}")
