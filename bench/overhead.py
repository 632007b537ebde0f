"""What inferd costs over the least that could be done, in one run: `python -m bench.overhead`.

Three questions. Front end: the demo model over a TLS Unix socket with a token, against a bare aiohttp and uvloop echo
of the same bytes over the same kind of socket, server and client on a core each. Engine: the INT8 recogniser at
saturation, against its engine called directly. Footprint: idle CPU and memory, and the time from start to first answer.
Rounds are interleaved and ratios are medians of rounds, since a shared machine drifts. Thresholds print PASS or FAIL;
the exit code is 0 either way, for a slow neighbour is no defect. Results go to bench/results/.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench import footprint, load, servers
from inferd_agent import demo

RESULTS = Path(__file__).parent / "results"
RECOGNISER = "ppocr-recogniser"
LINE = (1, 3, 48, 320)
CONNECTIONS = (1, 8, 64)
FRESH_AT = (1, 8)
ENGINE_CONNECTIONS = 8
# The polite governor gave cores back to the engine that ran alone just before, and takes them again within this time.
REGROWN_S = 3.0
FRESH_ID = "0" * 10  # the load generator puts a new one in every request
Rows = list[dict[str, Any]]


def front_end(folder: Path, rounds: int, seconds: float) -> Rows:
    """Echo and daemon in turns, at each number of connections."""
    image = demo.held_out().inputs()[:1]
    with servers.daemon(folder / "front", demo.MODELS, core=0) as running:
        request = folder / "digit.http"
        request.write_bytes(servers.infer_request(demo.MODEL, demo.INPUT, image, running.token))
        servers.wait_for(
            lambda: running.ca.exists() and footprint.answers(running, request.read_bytes()), running.process
        )
        tls = running.state / "tls"
        with servers.echo(folder, tls / "cert.pem", tls / "key.pem", core=0) as bare:
            rows = [front_end_at(connections, request, bare, running, rounds, seconds) for connections in CONNECTIONS]
            request.write_bytes(servers.infer_request(demo.MODEL, demo.INPUT, image, running.token, FRESH_ID))
            fresh = [front_end_at(connections, request, bare, running, rounds, seconds) for connections in FRESH_AT]
            return rows + [row | {"fresh_ids": True} for row in fresh]


def front_end_at(
    connections: int, request: Path, bare: Path, running: servers.Daemon, rounds: int, seconds: float
) -> dict[str, Any]:
    """One row of the table."""
    sockets = (bare, running.socket)
    pairs = [
        [servers.generate(socket, running.ca, request, connections, seconds, core=1) for socket in sockets]
        for _ in range(rounds)
    ]
    row: dict[str, Any] = {"connections": connections}
    for key in ("per_s", "p50_us", "p99_us", "client_cpu"):
        row[f"echo_{key}"] = statistics.median(pair[0][key] for pair in pairs)
        row[f"inferd_{key}"] = statistics.median(pair[1][key] for pair in pairs)
    row["throughput_ratio"] = round(statistics.median(pair[1]["per_s"] / pair[0]["per_s"] for pair in pairs), 3)
    row["p50_ratio"] = round(statistics.median(pair[1]["p50_us"] / pair[0]["p50_us"] for pair in pairs), 3)
    return row


def engine(folder: Path, fetched: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """The daemon and its engine alone in turns, with the engine, threads and streams that the daemon chose."""
    models = servers.only(fetched, (RECOGNISER,), folder / "engine-models")
    line = np.random.default_rng(1).uniform(-1, 1, LINE).astype(np.float32)
    with servers.daemon(folder / "engine", models) as running:
        request = folder / "line.http"
        request.write_bytes(servers.infer_request(RECOGNISER, "x", line, running.token))
        servers.wait_for(
            lambda: running.ca.exists() and footprint.answers(running, request.read_bytes()), running.process
        )
        plan = running.models()[0]["plan"]
        model = models / RECOGNISER / "1" / "model.int8.onnx"
        found: dict[str, Rows] = {"raw": [], "plain": [], "tls": []}
        for _ in range(rounds):
            found["raw"].append(raw_engine(model, plan, seconds))
            for name, socket, ca in (("plain", running.plain, None), ("tls", running.socket, running.ca)):
                warm_up_s = REGROWN_S if name == "plain" else load.WARM_UP_S
                found[name].append(
                    servers.generate(socket, ca, request, ENGINE_CONNECTIONS, seconds, warm_up_s=warm_up_s)
                )
    rates = {name: [run["per_s"] for run in runs] for name, runs in found.items()}
    ratios = {
        f"{name}_ratio": round(statistics.median(a / b for a, b in zip(rates[name], rates["raw"], strict=True)), 3)
        for name in ("plain", "tls")
    }
    kept = {key: plan[key] for key in ("engine", "variant", "streams", "threads", "batch")}
    return {"plan": kept, **{f"{name}_per_s": statistics.median(values) for name, values in rates.items()}, **ratios}


def raw_engine(model: Path, plan: dict[str, Any], seconds: float) -> dict[str, Any]:
    """One run of the engine alone, in a process of its own."""
    command = [sys.executable, "-m", "bench.engine", "--model", str(model), "--engine", plan["engine"]]
    command += ["--streams", str(plan["streams"]), "--threads", str(plan["threads"]), "--seconds", str(seconds)]
    found: dict[str, Any] = servers.output_of(command)
    return found


def footprints(folder: Path, fetched: Path, seconds: float) -> dict[str, Any]:
    """Idle, and start to first answer for the demo model and for the recogniser."""
    models = servers.only(fetched, (RECOGNISER,), folder / "start-models")
    digit, line = demo.held_out().inputs()[:1], np.zeros(LINE, np.float32)
    return {
        "idle": footprint.idle(folder, seconds),
        "start": {
            demo.MODEL: footprint.start_to_answer(folder / "start-a", demo.MODELS, demo.MODEL, demo.INPUT, digit),
            RECOGNISER: footprint.start_to_answer(folder / "start-b", models, RECOGNISER, "x", line),
        },
    }


def machine() -> dict[str, Any]:
    """What a reader needs to compare, and nothing that names this host."""
    text = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    names = ("inferd", "aiohttp", "uvloop", "onnxruntime", "openvino", "numpy")
    return {
        "cpu": model.group(1).strip() if model else platform.machine(),
        "cores": psutil.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in names},
    }


def checks(found: dict[str, Any]) -> list[tuple[str, float, str, float]]:
    """What is measured, its value, and the bound it must keep."""
    rows: list[tuple[str, float, str, float]] = []
    for row in found.get("front_end", ()):
        count = row["connections"]
        ids = ", fresh ids" if "fresh_ids" in row else ""
        rows.append((f"throughput of echo, {count} connections{ids}", row["throughput_ratio"], ">=", 0.6))
        if count == 1:
            rows.append((f"p50 of echo, 1 connection{ids}", row["p50_ratio"], "<=", 1.8))
    if "engine" in found:
        rows.append(("recogniser of raw engine, Unix socket", found["engine"]["plain_ratio"], ">=", 0.95))
        rows.append(("recogniser of raw engine, with TLS", found["engine"]["tls_ratio"], ">=", 0.95))
    if "footprint" in found:
        idle = found["footprint"]["idle"]
        rows.append(("idle CPU, percent of a core", idle["cpu_percent"], "<=", 0.5))
        rows.append(("resident without a model, MB", idle["rss_mb"], "<=", 90.0))
        for name, times in found["footprint"]["start"].items():
            rows.append((f"start to first answer, {name}, s", times["warm_s"], "<=", 1.5))
    return rows


def report(found: dict[str, Any]) -> None:
    """The tables."""
    if "front_end" in found:
        print(f"\n{'':>5}{'echo/s':>10}{'inferd/s':>10}{'ratio':>8}{'echo p50':>11}{'inferd p50':>12}{'p99':>10}  (us)")
        for row in found["front_end"]:
            print(
                f"{row['connections']:>5}{row['echo_per_s']:>10.0f}{row['inferd_per_s']:>10.0f}"
                f"{row['throughput_ratio']:>8.2f}{row['echo_p50_us']:>11.0f}{row['inferd_p50_us']:>12.0f}"
                f"{row['inferd_p99_us']:>10.0f}"
            )
    if "engine" in found:
        kept = found["engine"]
        print(f"\n{RECOGNISER} {kept['plan']}")
        print(f"raw {kept['raw_per_s']:.1f}/s, inferd {kept['plain_per_s']:.1f}/s, with TLS {kept['tls_per_s']:.1f}/s")
    print()
    for name, value, sign, bound in checks(found):
        is_kept = value >= bound if sign == ">=" else value <= bound
        print(f"{'PASS' if is_kept else 'FAIL'}  {name:<48}{value:>9.3f}  {sign} {bound}")


def main() -> None:
    """Measure, print, keep."""
    from tests.models.fetch import cache_root, fetch

    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=2.0, help="of each run of the load generator")
    arguments.add_argument("--idle-seconds", type=float, default=20.0)
    arguments.add_argument(
        "--only", choices=["front_end", "engine", "footprint"], help="measure one part, keep nothing"
    )
    given = arguments.parse_args()
    found: dict[str, Any] = {"machine": machine(), "rounds": given.rounds, "seconds": given.seconds}
    fetched = fetch(cache_root())
    with tempfile.TemporaryDirectory(prefix="inferd-bench-") as name:
        folder = Path(name)
        parts: dict[str, Callable[[], Any]] = {
            "front_end": lambda: front_end(folder, given.rounds, given.seconds),
            "engine": lambda: engine(folder, fetched, given.rounds, given.seconds),
            "footprint": lambda: footprints(folder, fetched, given.idle_seconds),
        }
        for part in [given.only] if given.only else parts:
            found[part] = parts[part]()
    report(found)
    if not given.only:
        keep(found)


def keep(found: dict[str, Any]) -> None:
    """One file a kind of machine; a later run replaces it."""
    facts = found["machine"]
    name = re.sub(r"[^a-z0-9]+", "-", f"{facts['cpu']} {facts['cores']} cores".lower()).strip("-")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    print(f"\nkept in bench/results/{path.name}")


if __name__ == "__main__":
    main()
