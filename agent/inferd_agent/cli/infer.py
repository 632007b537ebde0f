"""`inferd infer`: one inference from files, shown as a person reads it, as JSON, or saved as .npy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from inferd_agent.cli.output import client_options, console, json_option, print_json
from inferd_agent.cli.tensors import Pixels, describe, read_inputs


@click.command("infer")
@click.argument("model")
@click.option(
    "--input", "inputs", multiple=True, metavar="NAME=FILE", help="Input from .npy, .json or an image; repeat."
)
@click.option(
    "--output", "outputs", multiple=True, metavar="NAME[=FILE.npy]", help="Only this output; save it; repeat."
)
@click.option("--version", "version", metavar="N", help="Model version.  [default: the highest ready one]")
@click.option("--top", type=click.IntRange(1, 1000), metavar="K", help="Show the K highest classes of each output.")
@click.option("--scale", default=1.0, show_default=True, help="Images: multiply pixel values (0..255) by this.")
@click.option("--mean", default="0", show_default=True, help="Images: subtract this, one number or one a channel.")
@click.option("--std", default="1", show_default=True, help="Images: divide by this, one number or one a channel.")
@click.option("--timeout", "timeout_s", default=30.0, show_default=True, help="Seconds to wait for the answer.")
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

    \b
    inferd infer digits --input image=seven.npy
    inferd infer digits --input image=seven.png --scale 0.0627 --top 3
    inferd infer encoder --input ids=ids.json --output embedding=out.npy
    """
    from inferd import Client

    saves = dict(pair.partition("=")[::2] for pair in outputs)
    with Client(url, token=token, ca=ca) as client:
        specs = client.metadata(model, version=version)["inputs"]
        if not inputs:
            raise click.UsageError(f"give --input NAME=FILE; {model!r} takes: {describe(specs)}")
        tensors = read_inputs(inputs, specs, Pixels.parse(scale, mean, std))
        result = client.infer(
            model, tensors, version=version, outputs=list(saves) or None, classification=top, timeout_s=timeout_s
        )
    for name, file in saves.items():
        if file:
            np.save(Path(file), result[name], allow_pickle=False)
    if as_json:
        print_json({
            "model_name": result.model_name,
            "model_version": result.model_version,
            "outputs": {name: plain(array) for name, array in result.items()},
        })  # fmt: skip
        return
    out = console()
    out.print(f"[bold]{result.model_name}[/] version {result.model_version}")
    for name, array in result.items():
        out.print(f"  {name}  {list(array.shape)}")
        for line in readable(array, is_ranking=top is not None):
            out.print(f"    {line}", markup=False)


def plain(array: np.ndarray[Any, Any]) -> Any:
    """An array as nested lists that JSON can carry."""
    if array.dtype == object:
        return (
            np.vectorize(lambda b: b.decode("utf-8", "replace"), otypes=[object])(array).tolist() if array.size else []
        )
    return array.astype(np.float32).tolist() if array.dtype.kind == "V" else array.tolist()


def readable(array: np.ndarray[Any, Any], *, is_ranking: bool) -> list[str]:
    """A few lines a person can take in: rankings as `label  share`, other tensors as numpy shortens them."""
    if not is_ranking or array.dtype != object:
        shown = plain(array) if array.dtype == object else array
        return np.array2string(np.asarray(shown), threshold=64, precision=5, suppress_small=True).splitlines()
    lines = []
    for element in array.reshape(-1):
        value, index, *label = element.decode("utf-8", "replace").split(":", 2)
        lines.append(f"{label[0] if label else 'class ' + index}  {float(value):.4f}")
    return lines
