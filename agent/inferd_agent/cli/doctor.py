"""`inferd doctor`: look at everything an installation stands on, and say what is wrong and how to mend it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from inferd_agent.cli.output import json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inferd_agent.doctor import Finding

_STYLES = {"ok": "green", "warning": "yellow", "error": "red"}


@click.command("doctor")
@click.option("--config", "file", type=click.Path(path_type=Path), metavar="FILE", help="As given to `inferd serve`.")
@click.option("--models", multiple=True, metavar="DIR", help="Folder of models, as given to `inferd serve`; repeat.")
@click.option("--state", metavar="DIR", help="State folder, as given to `inferd serve`.")
@click.option("--listen", multiple=True, metavar="URL", help="Listener, as given to `inferd serve`; repeat.")
@json_option
def command(
    file: Path | None, models: tuple[str, ...], state: str | None, listen: tuple[str, ...], as_json: bool
) -> int:
    """Check configuration, permissions, sockets, certificates, clock, disks, cores, engines, GPUs, network and unit.

    Root is told about the system's daemon, everybody else about their own. Nothing is changed. Exit code 0 all is
    well, 1 with warnings, 2 with errors.

    \b
    sudo inferd doctor
    inferd doctor --json | jq '.findings[] | select(.level == "error")'
    """
    from inferd_agent.config import load
    from inferd_agent.doctor import examine, exit_code
    from inferd_agent.errors import ConfigError

    flags = {"models.path": models, "state.dir": state, "server.listen": listen}
    try:
        findings = list(examine(load(file=file, flags=flags)))
    except ConfigError as problem:
        findings = list(examine(problem))
    code = exit_code(findings)
    if as_json:
        print_json({"findings": findings, "exit_code": code})
    else:
        show(findings)
    return code


def show(findings: Iterable[Finding]) -> None:
    """A line for each finding, its fix below, and how many are bad."""
    counts = {"warning": 0, "error": 0}
    for finding in findings:
        level = finding.level.value
        click.echo(f"{click.style(f'{level:8}', fg=_STYLES[level])} {finding.check:13} {finding.text}")
        if finding.fix:
            click.echo(f"{'':22} fix: {finding.fix}")
            counts[level] += 1
    click.echo(f"\n{counts['error']} errors, {counts['warning']} warnings")
