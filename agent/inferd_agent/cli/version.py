"""`inferd version`: versions of inferd, Python and the engines."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from inferd_agent.cli.output import json_option, print_json

PARTS = ("inferd", "onnxruntime", "onnxruntime-gpu", "openvino", "numpy", "aiohttp")


@click.command("version")
@json_option
def command(as_json: bool) -> None:
    """Show versions of inferd, Python and the engines, without loading any."""
    found = {}
    for part in PARTS:
        try:
            found[part] = metadata.version(part)
        except metadata.PackageNotFoundError:
            continue
    found["python"] = platform.python_version()
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(f"{name} {version}" for name, version in found.items()))
