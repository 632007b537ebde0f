"""`inferd bench`: load a model with requests and report throughput and latency percentiles."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from inferd_agent.cli import EXIT_INTERRUPTED
from inferd_agent.cli.output import client_options, human_us, json_option, print_heading, print_json, progress
from inferd_agent.cli.tensors import Array, Pixels, Spec, made_up, read_inputs

if TYPE_CHECKING:
    from inferd_agent.cli.loadtest import Outcome


@click.command("bench")
@click.argument("model")
@click.option(
    "--concurrency", "-c", type=click.IntRange(1, 1024), metavar="C",
    help="Closed loop: C callers, each waits for its answer.  [default: 1]",
)  # fmt: skip
@click.option(
    "--rate", type=click.FloatRange(0.01, 100_000), metavar="R", help="Open loop: R requests a second, at random times."
)
@click.option(
    "--duration", "-d", "duration_s", default=5.0, show_default=True, type=click.FloatRange(0.1, 3600), metavar="S",
    help="Seconds to measure.",
)  # fmt: skip
@click.option(
    "--warmup", "warmup_s", default=0.5, show_default=True, type=click.FloatRange(0, 60), metavar="S",
    help="Seconds before, which do not count.",
)  # fmt: skip
@click.option(
    "--rows", default=1, show_default=True, type=click.IntRange(1, 4096), metavar="N", help="Rows in each request."
)
@click.option("--shape", "shapes", multiple=True, metavar="NAME:1x3x48x320", help="Whole shape of an input; repeat.")
@click.option("--input", "inputs", multiple=True, metavar="NAME=FILE", help="A file, not random values; repeat.")
@click.option("--version", "version", metavar="N", help="Model version.  [default: the highest ready one]")
@click.option(
    "--timeout", "timeout_s", default=10.0, show_default=True, type=click.FloatRange(0.001, 3600), metavar="S",
    help="Seconds that each request may take.",
)  # fmt: skip
@json_option
@client_options
def command(
    model: str,
    concurrency: int | None,
    rate: float | None,
    duration_s: float,
    warmup_s: float,
    rows: int,
    shapes: tuple[str, ...],
    inputs: tuple[str, ...],
    version: str | None,
    timeout_s: float,
    as_json: bool,
    url: str | None,
    token: str | None,
    ca: str | None,
) -> int:
    """Load MODEL and report what came of it.

    Closed loop by default: --concurrency callers, each waits for its answer, which shows the most that gets through.
    With --rate the loop is open: requests come at random (Poisson) times whatever the daemon does, and latency counts
    from when each was due, which shows what users of a busy daemon see. Ctrl-C reports what was measured so far. Exit
    code 1 if any request failed.

    \b
    inferd bench digits --concurrency 8
    inferd bench digits --rate 500 --duration 20
    """
    from inferd import AsyncClient, Client

    if rate and concurrency:
        raise click.UsageError("--rate is an open loop and --concurrency a closed one; give one of them")
    callers = concurrency or 1
    with Client(url, token=token, ca=ca, timeout_s=timeout_s) as client:
        specs = client.metadata(model, version=version)["inputs"]
        tensors = choose_inputs(specs, inputs, shapes, rows)
        client.infer(model, tensors, version=version)  # what is wrong with the request shows here, as one clear error

    async def run() -> Outcome:
        connections = 64 if rate else callers
        async with AsyncClient(url, token=token, ca=ca, timeout_s=timeout_s, max_connections=connections) as client:
            return await measure(
                lambda: client.infer(model, tensors, version=version),
                callers, rate, duration_s, warmup_s, is_quiet=as_json,
            )  # fmt: skip

    outcome = asyncio.run(run())
    summary = {
        "model": model,
        "loop": "open" if rate else "closed",
        "concurrency": None if rate else callers,
        "rate": rate,
        "rows": rows_of(specs, tensors),
        **outcome.summary(rows_of(specs, tensors)),
    }
    print_json(summary) if as_json else show(summary)
    if outcome.is_interrupted:
        return EXIT_INTERRUPTED
    return 1 if outcome.errors or outcome.dropped else 0


def choose_inputs(specs: Sequence[Spec], inputs: Sequence[str], shapes: Sequence[str], rows: int) -> dict[str, Array]:
    """The tensors of every request: from files, or made up. Raises UsageError where options contradict each other."""
    if inputs and (shapes or rows > 1):
        raise click.UsageError("--input files have their own shapes; leave --shape and --rows out")
    if inputs:
        return read_inputs(inputs, specs, Pixels())
    if rows > 1 and not any(spec["shape"] and spec["shape"][0] < 0 for spec in specs):
        raise click.UsageError("--rows: no input of this model has a free first dimension")
    return made_up(specs, dict(map(parse_shape, shapes)), rows)


def rows_of(specs: Sequence[Spec], tensors: Mapping[str, Array]) -> int:
    """Rows in a request: the first dimension where the model leaves it free."""
    return next((len(tensors[s["name"]]) for s in specs if s["shape"] and s["shape"][0] < 0), 1)


async def measure(
    send: Callable[[], Awaitable[object]],
    callers: int,
    rate: float | None,
    duration_s: float,
    warmup_s: float,
    *,
    is_quiet: bool,
) -> Outcome:
    """Warm up, then measure; from then on Ctrl-C ends the measurement and not the program."""
    from inferd_agent.cli.loadtest import closed_loop, open_loop

    if warmup_s:
        await closed_loop(send, callers, warmup_s)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    with progress("measuring", show=not is_quiet) as tick:
        if rate:
            return await open_loop(send, rate, duration_s, tick=tick, stop=stop)
        return await closed_loop(send, callers, duration_s, tick=tick, stop=stop)


def show(summary: Mapping[str, Any]) -> None:
    """The figures as a person reads them."""
    how = (
        f"open loop, {summary['rate']:g} a second"
        if summary["rate"]
        else f"closed loop, {summary['concurrency']} at a time"
    )
    cut = ", interrupted" if summary["interrupted"] else ""
    print_heading(summary["model"], f"{how}, {summary['rows']} row(s) each, {summary['duration_s']} s{cut}")
    click.echo(
        f"  answered  {summary['requests']}: {summary['requests_per_s']} requests/s, {summary['rows_per_s']} rows/s"
    )
    marks = [f"{name.replace('_', '.')} {human_us(us)}" for name, us in summary["latency_us"].items() if us is not None]
    if marks:
        click.echo(f"  latency   {'  '.join(marks)}")
    if summary["errors"]:
        click.echo(f"  failed    {', '.join(f'{count} {kind}' for kind, count in summary['errors'].items())}")
    if summary["dropped"]:
        click.echo(f"  dropped   {summary['dropped']}: too many were under way already")


def parse_shape(text: str) -> tuple[str, Sequence[int]]:
    """`x:1x3x48x320` as ("x", [1, 3, 48, 320])."""
    name, sign, dims = text.rpartition(":")
    try:
        shape = [int(dim) for dim in dims.split("x")]
    except ValueError:
        shape = []
    if not sign or not shape or min(shape) < 0:
        raise click.UsageError(f"--shape: expected NAME:1x3x48x320, got {text!r}")
    return name, shape
