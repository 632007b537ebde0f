"""`inferd infer`: one inference from files, shown as a person reads it, as JSON, or saved as .npy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from inferd_agent.cli.output import client_options, describe_tensors, json_option, print_heading, print_json
from inferd_agent.cli.tensors import Array, Pixels, read_inputs


@click.command("infer")
@click.argument("model")
@click.option("--input", "inputs", multiple=True, metavar="NAME=FILE", help="From .npy, .json or an image; repeat.")
@click.option(
    "--output", "outputs", multiple=True, metavar="NAME[=FILE.npy]", help="Only this output; save it; repeat."
)
@click.option("--version", "version", metavar="N", help="Model version.  [default: the highest ready one]")
@click.option("--top", type=click.IntRange(1, 1000), metavar="K", help="Show the K highest classes of each output.")
@click.option("--scale", default=1.0, show_default=True, help="Images: multiply pixel values (0..255) by this.")
@click.option("--mean", default="0", show_default=True, help="Images: then subtract this, one number or one a channel.")
@click.option("--std", default="1", show_default=True, help="Images: then divide by this, one number or one a channel.")
@click.option(
    "--timeout", "timeout_s", default=30.0, show_default=True, type=click.FloatRange(0.001, 86400), metavar="S",
    help="Seconds to wait for the answer.",
)  # fmt: skip
@json_option
@client_options
def command(
    model: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    version: str | None,
    top: int | None,
    scale: float,
    mean: str,
    std: str,
    timeout_s: float,
    as_json: bool,
    url: str | None,
    token: str | None,
    ca: str | None,
) -> None:
    """Send one inference to MODEL and show the answer.

    A model with one input takes the bare file: --input seven.npy. A batch of one is made where the first dimension is
    missing. What MODEL takes: inferd models MODEL.

    \b
    inferd infer digits --input image=seven.npy
    inferd infer digits --input image=seven.png --scale 0.0627 --top 3
    inferd infer encoder --input ids=ids.json --output embedding=out.npy
    """
    from inferd import Client

    pixels, saves = Pixels.parse(scale, mean, std), dict(map(parse_output, outputs))
    with Client(url, token=token, ca=ca, timeout_s=timeout_s) as client:
        specs = client.metadata(model, version=version)["inputs"]
        if not inputs:
            raise click.UsageError(f"give --input NAME=FILE; {model!r} takes: {describe_tensors(specs)}")
        tensors = read_inputs(inputs, specs, pixels)
        result = client.infer(model, tensors, version=version, outputs=list(saves) or None, classification=top)
    for name, file in saves.items():
        if file:
            save(name, result[name], file)
    if as_json:
        print_json({
            "model_name": result.model_name,
            "model_version": result.model_version,
            "outputs": {name: plain(array) for name, array in result.items()},
        })  # fmt: skip
        return
    print_heading(result.model_name, f"version {result.model_version}")
    for name, array in result.items():
        click.echo(f"  {name}  {list(array.shape)}")
        for line in ranking(array) if top else readable(array):
            click.echo(f"    {line}")


def parse_output(text: str) -> tuple[str, Path | None]:
    """`NAME` or `NAME=FILE.npy`."""
    name, sign, file = text.partition("=")
    if sign and not file.endswith(".npy"):
        raise click.UsageError(f"--output: expected NAME or NAME=FILE.npy, got {text!r}")
    return name, Path(file) if sign else None


def save(name: str, array: Array, path: Path) -> None:
    """Write a .npy file. BF16, which the format does not know, becomes FP32."""
    if array.dtype == object:
        raise click.ClickException(f"output {name!r} is text, which .npy cannot hold; print it with --json")
    np.save(path, array.astype(np.float32) if array.dtype.kind == "V" else array, allow_pickle=False)


def plain(array: Array) -> Any:
    """An array as nested lists that JSON can carry."""
    if array.dtype == object:
        texts = [element.decode("utf-8", "replace") for element in array.reshape(-1)]
        return np.array(texts, dtype=object).reshape(array.shape).tolist()
    return array.astype(np.float32).tolist() if array.dtype.kind == "V" else array.tolist()


def readable(array: Array) -> list[str]:
    """A few lines a person can take in: as numpy shortens them."""
    shown = np.asarray(plain(array), dtype=object) if array.dtype == object else array
    return np.array2string(shown, threshold=64, precision=5, suppress_small=True, max_line_width=96).splitlines()


def ranking(array: Array) -> list[str]:
    """The classes of each row, best first: `label  score`."""
    rows = array.reshape(-1, array.shape[-1])
    lines = []
    for number, row in enumerate(rows):
        if len(rows) > 1:
            lines.append(f"row {number}")
        for element in row:
            score, index, *label = element.decode("utf-8", "replace").split(":", 2)
            lines.append(f"{label[0] if label else 'class ' + index}  {float(score):.4f}")
    return lines
