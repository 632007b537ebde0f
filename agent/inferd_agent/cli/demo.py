"""`inferd demo`: the whole path in half a minute, with nothing left behind.

A daemon of its own in a temporary folder: TLS on a Unix socket, a fresh token, the bundled INT8 model, and the 360
handwritten digits that its training never saw.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from inferd_agent.cli.output import console, human_bytes, human_us, json_option, print_json

LEAST_ACCURACY = 0.97
START_S = 60.0


@click.command("demo")
@click.option(
    "--requests", default=2000, show_default=True, type=click.IntRange(100, 1_000_000), help="For the latency figures."
)
@json_option
def command(requests: int, as_json: bool) -> int:
    """Serve the bundled INT8 model, send it real handwritten digits, show what came back.

    Exit code 0 only if at least 97 % of the 360 held-out digits are recognised.
    """
    from inferd import Client
    from inferd_agent.demo import MODEL, held_out

    digits = held_out()
    with tempfile.TemporaryDirectory(prefix="inferd-demo-") as folder:
        say = _silent if as_json else click.echo
        with daemon(Path(folder)) as (url, token, ready_s):
            say(f"daemon   ready in {ready_s:.2f} s on {url} (TLS 1.3, token {token[:13]}...)")
            with Client(url, token=token) as client:
                [description] = client.descriptions(MODEL)
                say(f"model    {headline(description)}")
                plan = description["plan"]
                say(f"engine   {plan['engine']} on {plan['device']}: {plan['reason']}")
                for veto in plan["vetoes"]:
                    say(f"         not {veto['candidate']}: {veto['reason']}")
                outcome = measure(client, digits, requests)
    shown = outcome.pop("shown")
    if as_json:
        print_json({**outcome, "ready_s": round(ready_s, 3), "plan": plan})
    else:
        report(outcome, shown)
    return 0 if outcome["accuracy"] >= LEAST_ACCURACY else 1


@contextlib.contextmanager
def daemon(folder: Path) -> Iterator[tuple[str, str, float]]:
    """A daemon serving the demo models, as (url, token, seconds until it was ready); stopped on the way out."""
    from inferd import Client
    from inferd_agent.demo import MODELS

    state, socket, log = folder / "state", folder / "demo.sock", folder / "log"
    inferd = [sys.executable, "-m", "inferd_agent"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("INFERD_")}
    made = subprocess.run(  # noqa: S603
        [*inferd, "token", "create", "demo", "--scopes", "infer,read", "--state", str(state)],
        check=True, capture_output=True, text=True, env=env, timeout=START_S,
    )  # fmt: skip
    token, begin = made.stdout.strip(), time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            [*inferd, "serve", "--models", str(MODELS), "--state", str(state), "--listen", f"unix:{socket}"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env,
        )  # fmt: skip
    try:
        while time.perf_counter() - begin < START_S:
            if process.poll() is not None:
                raise click.ClickException(f"the daemon ended at once:\n{log.read_text(errors='replace')}")
            with contextlib.suppress(OSError, Exception), Client(f"unix:{socket}", token=token) as client:
                if client.is_ready():
                    break
            time.sleep(0.02)
        else:
            raise click.ClickException(f"not ready after {START_S:.0f} s:\n{log.read_text(errors='replace')}")
        yield f"unix:{socket}", token, time.perf_counter() - begin
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure(client: Any, digits: Any, requests: int) -> dict[str, Any]:
    """Accuracy over all digits one by one, latency one at a time, throughput with whole batches in each request."""
    from inferd_agent.demo import INPUT, MODEL, OUTPUT, accuracy

    images = digits.inputs()
    probabilities = np.concatenate(
        [client.infer(MODEL, {INPUT: images[i : i + 1]})[OUTPUT] for i in range(len(digits))]
    )
    latencies_s = []
    for i in range(requests):
        row = images[i % len(digits)][np.newaxis]
        begin = time.perf_counter()
        client.infer(MODEL, {INPUT: row})
        latencies_s.append(time.perf_counter() - begin)
    batch = images[:60]
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < 1.0:
        done += len(client.infer(MODEL, {INPUT: batch})[OUTPUT])
    batched_s = time.perf_counter() - begin
    p50, p99 = np.percentile(latencies_s, [50, 99])
    return {
        "digits": len(digits),
        "accuracy": accuracy(probabilities, digits.labels),
        "latency_us": {"p50": round(float(p50) * 1e6, 1), "p99": round(float(p99) * 1e6, 1)},
        "requests_per_s": round(requests / sum(latencies_s), 1),
        "rows_per_s_in_batches_of_60": round(done / batched_s, 1),
        "shown": examples(digits, probabilities),
    }


def examples(digits: Any, probabilities: np.ndarray[Any, Any]) -> tuple[list[Any], list[str]]:
    """Five digits with what was seen in them; one that was misread comes last, if there is one."""
    seen = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(seen != digits.labels)
    chosen = [
        *np.random.default_rng(5).choice(np.flatnonzero(seen == digits.labels), 5 - min(1, len(wrong)), replace=False)
    ]
    chosen += wrong[:1].tolist()
    captions = [
        f"{seen[i]}  {probabilities[i].max():.0%}"
        + ("" if seen[i] == digits.labels[i] else f" (is {digits.labels[i]})")
        for i in chosen
    ]
    return [digits.images[i] for i in chosen], captions


def headline(d: dict[str, Any]) -> str:
    """The model in one line."""
    found = d["quantisation"] or {}
    words = " ".join(part for part in (found.get("kind"), found.get("layout"), found.get("granularity")) if part)
    return f"{d['name']} version {d['version']}, {words}, {human_bytes(d['file_bytes'])}"


def report(outcome: dict[str, Any], shown: tuple[list[Any], list[str]]) -> None:
    """The digits and the figures."""
    from inferd_agent.demo import side_by_side

    click.echo("\n" + side_by_side(*shown) + "\n")
    right = round(outcome["accuracy"] * outcome["digits"])
    latency, out = outcome["latency_us"], console()
    out.print(f"accuracy   {outcome['accuracy']:.2%} ({right} of {outcome['digits']} held-out digits)")
    out.print(f"latency    p50 {human_us(latency['p50'])}, p99 {human_us(latency['p99'])}, one request at a time")
    out.print(
        f"throughput {outcome['requests_per_s']:.0f} requests/s one at a time;"
        f" {outcome['rows_per_s_in_batches_of_60']:.0f} digits/s with 60 digits a request"
    )
    out.print("\nThe daemon is stopped and its folder is gone. Next: inferd serve --models DIR")


def _silent(_: str) -> None:
    """--json prints nothing but JSON."""
