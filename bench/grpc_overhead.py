"""What gRPC costs over the least that could be done: `python -m bench.grpc_overhead`.

The demo model over a plain gRPC Unix socket with a token, against a bare grpc.aio server that answers with the bytes of
the request, over the same kind of socket, server and client on a core each. inferd lets gRPC poll without threads of
its own, which a bare server does not; an echo that does so too is shown beside. Rounds are interleaved and ratios are
medians of rounds. Thresholds print PASS or FAIL; the exit code is 0 either way, for a slow neighbour is no defect.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop

from bench import servers
from inferd_agent import demo
from inferd_agent.grpc.messages import ModelInferRequest

METHOD = "/inference.GRPCInferenceService/ModelInfer"
CONNECTIONS = (1, 8, 64)
LEAST_RATIO = 0.7
POLLING = "-event_engine_listener"  # as inferd_agent/grpc has it
WARM_UP_S = 0.4
_SELF = [sys.executable, "-m", "bench.grpc_overhead"]


def request() -> bytes:
    """One digit, as clients send it."""
    image = demo.held_out().inputs()[:1]
    message = ModelInferRequest(model_name=demo.MODEL, raw_input_contents=[image.tobytes()])
    message.inputs.add(name=demo.INPUT, datatype="FP32", shape=image.shape)
    data: bytes = message.SerializeToString()
    return data


class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]  # gRPC has no types
    """Every message back."""

    def __init__(self) -> None:
        async def echo(message: bytes, _: Any) -> bytes:
            return message

        self._handler = grpc.unary_unary_rpc_method_handler(echo)

    def service(self, handler_call_details: Any) -> Any:
        """Asked by gRPC for each call."""
        return self._handler


async def serve_echo(socket: str) -> None:
    """The yardstick, until SIGTERM."""
    server = grpc.aio.server(handlers=(Echo(),))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    await server.wait_for_termination()


async def generate(socket: str, token: str, connections: int, seconds: float) -> dict[str, float]:
    """Closed loop on so many connections; an answer that is none ends the run with its error."""
    data, metadata = request(), (("authorization", f"Bearer {token}"),)
    begin_s = time.perf_counter() + WARM_UP_S
    end_s = begin_s + seconds
    latencies_us: list[float] = []

    async def call() -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.insecure_channel(f"unix:{socket}", options=options) as channel:
            infer = channel.unary_unary(METHOD)
            while (sent_s := time.perf_counter()) < end_s:
                await infer(data, metadata=metadata)
                if sent_s >= begin_s:
                    latencies_us.append((time.perf_counter() - sent_s) * 1e6)

    await asyncio.gather(*(call() for _ in range(connections)))
    return {"per_s": len(latencies_us) / seconds, "p50_us": statistics.median(latencies_us)}


def measure(socket: Path, token: str, connections: int, seconds: float) -> dict[str, float]:
    """One run of the load generator in a process of its own, on the second core."""
    command = [*_SELF, "--generate", str(socket), "--token", token]
    found: dict[str, float] = servers.output_of(
        [*command, "--connections", str(connections), "--seconds", str(seconds)]
    )
    return found


def compare(folder: Path, rounds: int, seconds: float) -> None:
    """The table."""
    state, socket = folder / "state", folder / "g.sock"
    bare, polled = folder / "echo.sock", folder / "polled.sock"
    made = servers.output_of(
        [*servers.INFERD, "token", "create", "bench", "--scopes", "infer", "--state", str(state), "--json"]
    )
    serve = [*servers.INFERD, "serve", "--models", str(demo.MODELS), "--state", str(state)]
    serve += ["--listen", f"unix:{folder / 's.sock'}", "--listen", f"grpc+unix:{socket}?tls=off"]
    log = folder / "log"
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(log.open("ab"))
        running = stack.enter_context(servers.ended(serve, out, 0))
        for path, polling in ((bare, ""), (polled, POLLING)):
            command = [*_SELF, "--echo", str(path)]
            echo = stack.enter_context(servers.ended(command, out, 0, {"GRPC_EXPERIMENTS": polling}))
            servers.wait_for(path.exists, echo)
        servers.wait_for(lambda: b"inferd is up" in log.read_bytes(), running)
        print(
            f"{'':>5}{'echo/s':>10}{'polled/s':>10}{'inferd/s':>10}{'ratio':>8}{'to polled':>11}{'echo p50':>11}",
            end="",
        )
        print(f"{'inferd p50':>12}  (us)")
        for connections in CONNECTIONS:
            found = [
                [measure(each, made["token"], connections, seconds) for each in (bare, polled, socket)]
                for _ in range(rounds)
            ]
            per_s, p50_us = (
                [statistics.median(each[side][key] for each in found) for side in range(3)]
                for key in ("per_s", "p50_us")
            )
            ratio, to_polled = (
                statistics.median(each[2]["per_s"] / each[side]["per_s"] for each in found) for side in (0, 1)
            )
            verdict = "PASS" if ratio >= LEAST_RATIO else "FAIL"
            print(
                f"{connections:>5}{per_s[0]:>10.0f}{per_s[1]:>10.0f}{per_s[2]:>10.0f}{ratio:>8.2f}{to_polled:>11.2f}"
                f"{p50_us[0]:>11.0f}{p50_us[2]:>12.0f}  {verdict}"
            )


def main() -> None:
    """Compare; or be the yardstick, or the load."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=1.0, help="of each run of the load generator")
    arguments.add_argument("--echo", metavar="SOCKET", help="serve the echo")
    arguments.add_argument("--generate", metavar="SOCKET", help="load a server, print JSON")
    arguments.add_argument("--token", default="")
    arguments.add_argument("--connections", type=int, default=1)
    given = arguments.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if given.echo:
            runner.run(serve_echo(given.echo))
        elif given.generate:
            os.sched_setaffinity(0, {1})
            print(json.dumps(runner.run(generate(given.generate, given.token, given.connections, given.seconds))))
        else:
            with tempfile.TemporaryDirectory(prefix="inferd-bench-") as name:
                compare(Path(name), given.rounds, given.seconds)


if __name__ == "__main__":
    main()
