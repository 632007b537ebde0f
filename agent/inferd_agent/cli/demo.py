"""`inferd demo`: the whole path in some seconds, with nothing left behind.

A daemon of its own in a temporary folder: TLS on a Unix socket, a fresh token, the bundled INT8 model, and the 360
handwritten digits that its training never saw. Neither the user's configuration nor a running daemon plays a part.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from inferd_agent.cli.models import quantisation
from inferd_agent.cli.output import human_bytes, human_us, json_option, one_line, print_json, print_labelled

if TYPE_CHECKING:
    from inferd import Client
    from inferd_agent.demo import Digits

LEAST_ACCURACY = 0.97
START_S = 60.0
POLL_S = 0.01
STOP_S = 30.0
BATCH_ROWS = 60
BATCHES_S = 1.0
Array = np.ndarray[Any, Any]


@click.command("demo")
@click.option(
    "--requests", default=2000, show_default=True, type=click.IntRange(100, 1_000_000), metavar="N",
    help="Requests for the latency figures.",
)  # fmt: skip
@json_option
def command(requests: int, as_json: bool) -> int:
    """Serve the bundled INT8 model, send it real handwritten digits, show what came back.

    Starts a daemon of its own in a temporary folder, and ends it. Exit code 0 only if at least 97 % of the 360 held-out
    digits are recognised.
    """
    from inferd import Client
    from inferd_agent.demo import accuracy, held_out

    digits, begin = held_out(), time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="inferd-demo-") as folder,
        daemon(Path(folder)) as served,
        Client(served.url, token=served.token) as client,
    ):
        description = wait_ready(client, served)
        ready_s = time.perf_counter() - begin
        if not as_json:
            introduce(served, ready_s, description)
        probabilities = ask_each(client, digits)
        figures = measure(client, digits, requests)
    outcome = {"digits": len(digits), "accuracy": accuracy(probabilities, digits.labels), **figures}
    if as_json:
        print_json({**outcome, "ready_s": round(ready_s, 3), "plan": description["plan"]})
    else:
        report(outcome, digits, probabilities)
    return 0 if outcome["accuracy"] >= LEAST_ACCURACY else 1


@dataclass(frozen=True, slots=True)
class Served:
    """The demo's daemon: a child process, where it listens, who may call, and what it says."""

    process: subprocess.Popen[bytes]
    url: str
    token: str
    log: Path


@contextlib.contextmanager
def daemon(folder: Path) -> Iterator[Served]:
    """A daemon that serves the demo models, just started; stopped on the way out."""
    from inferd_agent.demo import MODELS
    from inferd_agent.identity import TokenStore

    state, url, log = folder / "state", f"unix:{folder}/demo.sock", folder / "log"
    token, _ = TokenStore(state / "tokens.json").create("demo", ("infer", "read"))
    serve = [sys.executable, "-m", "inferd_agent", "serve", "--models", str(MODELS), "--state", str(state)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("INFERD_")}
    env["CONFIGURATION_DIRECTORY"] = str(folder)  # where there is none
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the daemon is ended, too
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            [*serve, "--listen", url], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env
        )
    try:
        yield Served(process, url, token, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_ready(client: Client, served: Served) -> dict[str, Any]:
    """The model's description once it serves; raises where the daemon or the model fails, or takes too long."""
    from inferd.errors import ConnectionFailed, NotFound
    from inferd_agent.demo import MODEL

    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if served.process.poll() is not None:
            raise failure(f"the daemon ended with exit code {served.process.returncode}", served.log)
        with contextlib.suppress(ConnectionFailed, NotFound):  # nobody listens yet, or has not found the model yet
            [description] = client.descriptions(MODEL)
            if description["state"] == "READY":
                return description
            if description["state"] == "FAILED":
                raise click.ClickException(f"the model does not load: {description['reason']}")
        time.sleep(POLL_S)
    raise failure(f"the daemon was not ready after {START_S:.0f} s", served.log)


def failure(what: str, log: Path) -> click.ClickException:
    """An error with what the daemon had to say."""
    return click.ClickException(f"{what}; its log:\n{log.read_text(errors='replace')}")


def ask_each(client: Client, digits: Digits) -> Array:
    """The probabilities [digits, 10] of all digits, each in a request of its own."""
    from inferd_agent.demo import INPUT, MODEL, OUTPUT

    images = digits.inputs()
    return np.concatenate([client.infer(MODEL, {INPUT: images[i : i + 1]})[OUTPUT] for i in range(len(images))])


def measure(client: Client, digits: Digits, requests: int) -> dict[str, Any]:
    """Latency with one digit a request, throughput with many; one request at a time."""
    from inferd_agent.demo import INPUT, MODEL, OUTPUT

    images = digits.inputs()
    latencies_s = np.empty(requests)
    for number in range(requests):
        at = number % len(images)
        begin = time.perf_counter()
        client.infer(MODEL, {INPUT: images[at : at + 1]})
        latencies_s[number] = time.perf_counter() - begin
    begin, done = time.perf_counter(), 0
    while (passed_s := time.perf_counter() - begin) < BATCHES_S:
        done += len(client.infer(MODEL, {INPUT: images[:BATCH_ROWS]})[OUTPUT])
    p50, p99 = np.percentile(latencies_s * 1e6, [50, 99])
    return {
        "latency_us": {"p50": round(float(p50), 1), "p99": round(float(p99), 1)},
        "requests_per_s": round(requests / float(latencies_s.sum()), 1),
        "rows_per_s_in_batches_of_60": round(done / passed_s, 1),
    }


def introduce(served: Served, ready_s: float, description: Mapping[str, Any]) -> None:
    """What serves, on what, and why."""
    plan, size = description["plan"], human_bytes(description["file_bytes"])
    print_labelled(
        [
            ("daemon", f"ready in {ready_s:.2f} s on {served.url} (TLS 1.3, token {served.token[:13]}...)"),
            ("model", f"{description['name']}, {quantisation(description['quantisation'])}, {size}"),
            ("engine", f"{plan['engine']} on {plan['device']}: {one_line(plan['reason'])}"),
            *((f"not {veto['candidate']}", one_line(veto["reason"])) for veto in plan["vetoes"]),
        ]
    )


def examples(digits: Digits, probabilities: Array) -> tuple[list[Array], list[str]]:
    """Five digits with what was seen in them; one that was misread comes last, if there is one."""
    seen = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(seen != digits.labels)[:1].tolist()
    right = np.random.default_rng(5).choice(np.flatnonzero(seen == digits.labels), 5 - len(wrong), replace=False)
    chosen = [*right.tolist(), *wrong]
    captions = [f"{seen[i]}  {probabilities[i].max():.0%}" for i in chosen]
    if wrong:
        captions[-1] += f" (is {digits.labels[wrong[0]]})"
    return [digits.images[i] for i in chosen], captions


def report(outcome: Mapping[str, Any], digits: Digits, probabilities: Array) -> None:
    """The digits and the figures."""
    from inferd_agent.demo import side_by_side

    right, latency = round(outcome["accuracy"] * len(digits)), outcome["latency_us"]
    per_s, rows_per_s = outcome["requests_per_s"], outcome["rows_per_s_in_batches_of_60"]
    click.echo("\n" + side_by_side(*examples(digits, probabilities)) + "\n")
    print_labelled(
        [
            ("accuracy", f"{outcome['accuracy']:.2%} ({right} of {len(digits)} held-out digits)"),
            ("latency", f"p50 {human_us(latency['p50'])}, p99 {human_us(latency['p99'])}, one request at a time"),
            ("throughput", f"{per_s:.0f} requests/s; {rows_per_s:.0f} digits/s with {BATCH_ROWS} in each request"),
        ]
    )
    click.echo("\nThe daemon is stopped and its folder is gone. Next: inferd serve --models DIR")
