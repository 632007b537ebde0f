"""`inferd plan`: have a model measured on the daemon's machine now, follow it, and show what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from inferd_agent.cli import EXIT_INTERRUPTED
from inferd_agent.cli.explain import Facts, show
from inferd_agent.cli.output import client_options, json_option, print_json, progress

ASK_EVERY_S = 0.25


@click.command("plan")
@click.argument("model")
@click.option(
    "--budget", "budget_s", type=click.FloatRange(1, 86_400), metavar="S",
    help="Seconds to spend.  [default: the daemon's planning.budget_s]",
)  # fmt: skip
@click.option("--thorough", is_flag=True, help="Also try what holds little promise; worth a larger --budget.")
@json_option
@client_options
def command(
    model: str,
    budget_s: float | None,
    thorough: bool,
    as_json: bool,
    url: str | None,
    token: str | None,
    ca: str | None,
) -> int:
    """Measure MODEL now: try engines, precisions, variants and threads, and serve with what is best.

    MODEL goes on serving meanwhile. Needs the scope admin. Ctrl-C stops watching, not the measuring. Exit code 1 if
    nothing came of it.

    \b
    inferd plan digits
    inferd plan digits --budget 120 --thorough
    """
    from inferd import Client

    with Client(url, token=token, ca=ca) as client:
        before = client.measure(model, budget_s=budget_s, thorough=thorough)
        try:
            with progress("measuring", show=not as_json) as tick:
                found = follow(lambda: client.evidence(model), tick)
        except KeyboardInterrupt:
            click.echo(f"inferd: the daemon goes on measuring; what comes of it: inferd explain {model}", err=True)
            return EXIT_INTERRUPTED
    print_json(found) if as_json else show(found, time.time())
    if made_at_s(found) == made_at_s(before):
        click.echo("inferd: nothing came of the measuring; the daemon's log says why", err=True)
        return 1
    return 0


def follow(ask: Callable[[], Facts], tick: Callable[..., None], sleep: Callable[[float], None] = time.sleep) -> Facts:
    """Ask until the measuring is over; what was told last."""
    while (found := ask())["state"] in ("queued", "measuring"):
        tick(found["done"] / max(found["total"], 1), found["now"])
        sleep(ASK_EVERY_S)
    return found


def made_at_s(found: Facts) -> Any:
    """When the evidence was gathered, None where there is none."""
    return (found["evidence"] or {}).get("made_at_s")
