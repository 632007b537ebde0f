"""`inferd bench`: load a model with requests and report throughput and latency percentiles."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from inferd_agent.cli.output import client_options, console, human_us, json_option, print_json
from inferd_agent.cli.tensors import Pixels, made_up, read_inputs


@click.command("bench")
@click.argument("model")
@click.option(
    "--concurrency", "-c", default=1, show_default=True, type=click.IntRange(1, 1024), help="Closed loop: callers."
)
@click.option(
    "--rate", type=click.FloatRange(min=0.01), metavar="R", help="Open loop: R requests a second, Poisson arrivals."
)
@click.option(
    "--duration", "-d", "duration_s", default=5.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Seconds."
)
@click.option(
    "--warmup",
    "warmup_s",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0, 60),
    help="Seconds before it counts.",
)
@click.option("--rows", default=1, show_default=True, type=click.IntRange(1, 4096), help="Rows in each request.")
@click.option(
    "--shape", "shapes", multiple=True, metavar="NAME:1x3x48x320", help="Whole shape of an input with free dimensions."
)
@click.option(
    "--input", "inputs", multiple=True, metavar="NAME=FILE", help="Input from a file instead of random values."
)
@click.option("--version", "version", metavar="N", help="Model version.")
@click.option("--timeout", "timeout_s", default=10.0, show_default=True, help="Deadline of each request in seconds.")
@json_option
@client_options
def command(
    model: str,
    concurrency: int,
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

    Closed loop by default (--concurrency callers, each waits for its answer). With --rate the loop is open: requests
    come at random times whatever the daemon does, and latency counts from when each was due.

    \b
    inferd bench digits --concurrency 8
    inferd bench digits --rate 500 --duration 20
    """
    from inferd import AsyncClient
    from inferd_agent.cli.loadtest import Outcome, closed_loop, open_loop

    async def run() -> tuple[Outcome, int]:
        async with AsyncClient(url, token=token, ca=ca, max_connections=max(concurrency, 64)) as client:
            specs = (await client.metadata(model, version=version))["inputs"]
            tensors = (
                read_inputs(inputs, specs, Pixels()) if inputs else made_up(specs, dict(map(parse_shape, shapes)), rows)
            )
            first = next(iter(tensors.values()))
            sent_rows = int(first.shape[0]) if first.ndim and specs[0]["shape"] and specs[0]["shape"][0] < 0 else 1

            async def send() -> object:
                return await client.infer(model, tensors, version=version, timeout_s=timeout_s)

            await send()  # a wrong input shows here, as one clear error
            if warmup_s:
                await closed_loop(send, concurrency, warmup_s, lambda _: None)
            with progress(show=not as_json) as tick:
                if rate:
                    return await open_loop(send, rate, duration_s, tick), sent_rows
                return await closed_loop(send, concurrency, duration_s, tick), sent_rows

    outcome, sent_rows = asyncio.run(run())
    load = {"rate": rate} if rate else {"concurrency": concurrency}
    summary = {
        "model": model,
        "loop": "open" if rate else "closed",
        **load,
        "rows": sent_rows,
        **outcome.summary(sent_rows),
    }
    if as_json:
        print_json(summary)
    else:
        show(summary)
    return 1 if outcome.errors or outcome.dropped else 0


def show(summary: dict[str, object]) -> None:
    """The figures as a person reads them."""
    latency = summary["latency_us"]
    assert isinstance(latency, dict)
    how = (
        f"open loop, {summary['rate']:g} a second"
        if "rate" in summary
        else f"closed loop, {summary['concurrency']} callers"
    )
    out = console()
    out.print(f"[bold]{summary['model']}[/]  {how}, {summary['duration_s']} s, {summary['rows']} row(s) a request")
    out.print(
        f"  {summary['requests']} answers, {summary['requests_per_s']} requests/s, {summary['rows_per_s']} rows/s"
    )
    marks = "  ".join(
        f"{name.replace('_', '.')} {human_us(value)}" for name, value in latency.items() if value is not None
    )
    out.print(f"  latency  {marks}")
    if summary["errors"] or summary["dropped"]:
        out.print(f"  [red]errors {summary['errors']}  dropped {summary['dropped']}[/]")


class progress:
    """A progress bar on standard error, or nothing."""

    def __init__(self, *, show: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("measuring"), BarColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True,
            disable=not show,
        )  # fmt: skip
        self._task = self._bar.add_task("measuring", total=1.0)

    def __enter__(self) -> progress:
        self._bar.start()
        return self

    def __call__(self, share: float) -> None:
        self._bar.update(self._task, completed=share)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def parse_shape(text: str) -> tuple[str, Sequence[int]]:
    """ "x:1x3x48x320" -> ("x", [1, 3, 48, 320])."""
    name, _, dims = text.rpartition(":")
    try:
        return name, [int(dim) for dim in dims.split("x")]
    except ValueError:
        raise click.UsageError(f"--shape: expected NAME:1x3x48x320, got {text!r}") from None
