"""What tensors in shared memory save: `python -m bench.shared_memory [--rounds 5]`.

One caller and two models that do next to nothing: `peak` takes a tensor and answers with one number, `same` answers
with what it takes. Each is called with tensors of 1, 16 and 64 MB: sent through a TLS Unix socket and a plain one, and
told by their place in an object under /dev/shm and in a memfd that was handed over. The caller's arrays are filled
already, as by a camera's driver; an answer that is sent has to be received, one in memory is there. The caller is the
daemon's own user, whose large inputs are seen in place in a memfd; those of others are copied, as from /dev/shm. Rounds
are interleaved, figures are medians over all calls, daemon and caller have a core each.
"""

from __future__ import annotations

import argparse
import mmap
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from onnx import TensorProto, helper

from bench import servers
from inferd import Client
from inferd.calls import Call
from inferd.memory import _Region
from tests import onnx_models

MIB = 1 << 20
SIZES = (1 * MIB, 16 * MIB, 64 * MIB)
WAYS = ("TLS", "plain", "system", "memfd")
KEY = "inferd-bench"
Array = np.ndarray[Any, Any]


def write_models(root: Path) -> Path:
    """`peak` and `same`, without a batch dimension."""
    nodes = {
        "peak": (helper.make_node("ReduceMax", ["x"], ["y"], axes=[1], keepdims=0), [1]),
        "same": (helper.make_node("Identity", ["x"], ["y"]), [1, "n"]),
    }
    for name, (node, shape) in nodes.items():
        x = onnx_models.value("x", TensorProto.FLOAT, [1, "n"])
        y = onnx_models.value("y", TensorProto.FLOAT, shape)
        onnx_models.save(root / name / "1" / "model.onnx", [node], [x], [y])
        (root / name / "model.toml").write_text('engine = "onnxruntime"\n')
    return root


@contextmanager
def daemon(folder: Path) -> Iterator[Path]:
    """A daemon on one core, with all the doors; the folder of its sockets."""
    log = folder / "log"
    command = [*servers.INFERD, "serve", "--models", str(write_models(folder / "models"))]
    command += ["--state", str(folder / "state")]
    for url in (f"unix:{folder}/tls", f"unix:{folder}/plain?tls=off", f"memory+unix:{folder}/memory"):
        command += ["--listen", url]
    settings = {"INFERD_SHARED_MEMORY_SYSTEM": "true"}
    with log.open("wb") as out, servers.ended(command, out, 0, settings) as running:
        servers.wait_for(lambda: b"inferd is up" in log.read_bytes(), running)
        yield folder


class Way:
    """One way to bring tensors to the daemon: arrays made by `empty`, and a client that brings them."""

    def __init__(self, client: Client, empty: Callable[[int], Array], *, is_shared: bool) -> None:
        self._client = client
        self._is_shared = is_shared
        self._x: dict[int, Array] = {}
        self._y: dict[int, Array] = {}
        for size in SIZES:
            self._x[size] = empty(size)
            self._x[size][:] = np.linspace(0, 1, size // 4, dtype=np.float32)
            if is_shared:
                self._y[size] = empty(size)

    def call(self, model: str, size: int) -> float:
        """Milliseconds that an inference takes; the answer is looked at."""
        given = {"y": self._y[size]} if self._is_shared and model == "same" else None
        began_s = time.perf_counter()
        y = self._client.infer(model, {"x": self._x[size]}, outputs=given)["y"]
        took_ms = (time.perf_counter() - began_s) * 1e3
        assert y.ravel()[-1] == 1.0
        return took_ms


def system_memory(client: Client, stack: ExitStack) -> Callable[[int], Array]:
    """Arrays in an object under /dev/shm, which the client knows as if it had shared it."""
    nbytes = 2 * sum(SIZES)
    path = Path("/dev/shm") / f"{KEY}-{os.getpid()}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    stack.callback(path.unlink)
    stack.callback(os.close, fd)
    os.ftruncate(fd, nbytes)
    mapping = mmap.mmap(fd, nbytes)
    body = msgspec.json.encode({"key": f"/{path.name}", "byte_size": nbytes})
    register = f"/v2/systemsharedmemory/region/{KEY}/register"
    status = client._run(Call("POST", register, lambda reply: reply.status, lambda _: (None, [body])), None)
    assert status == 200, status
    whole = np.frombuffer(mapping, np.uint8)
    client._memories.add(_Region(KEY, whole.ctypes.data, nbytes), mapping)
    ends = iter(np.cumsum([size for size in SIZES for _ in range(2)]).tolist())

    def empty(size: int) -> Array:
        return whole[(end := next(ends)) - size : end].view(np.float32).reshape(1, -1)

    return empty


def open_ways(folder: Path, stack: ExitStack) -> dict[str, Way]:
    """All of them, by name. Places are told over the plain socket."""

    def private(size: int) -> Array:
        return np.empty((1, size // 4), np.float32)

    clients = {
        name: stack.enter_context(Client(f"unix:{folder}/{'tls' if name == 'TLS' else 'plain?tls=off'}"))
        for name in WAYS
    }
    memory = stack.enter_context(clients["memfd"].share(2 * sum(SIZES)))
    return {
        "TLS": Way(clients["TLS"], private, is_shared=False),
        "plain": Way(clients["plain"], private, is_shared=False),
        "system": Way(clients["system"], system_memory(clients["system"], stack), is_shared=True),
        "memfd": Way(clients["memfd"], lambda size: memory.empty((1, size // 4), np.float32), is_shared=True),
    }


def measure(ways: dict[str, Way], model: str, size: int, rounds: int, seconds: float) -> dict[str, float]:
    """Median milliseconds of each way."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            way.call(model, size)
            end_s = time.perf_counter() + seconds
            while time.perf_counter() < end_s:
                took[name].append(way.call(model, size))
    return {name: statistics.median(each) for name, each in took.items()}


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=0.5, help="of each way in each round")
    given = arguments.parse_args()
    os.sched_setaffinity(0, {1})
    with (
        tempfile.TemporaryDirectory(prefix="inferd-bench-") as name,
        daemon(Path(name)) as folder,
        ExitStack() as stack,
    ):
        ways = open_ways(folder, stack)
        print(" " * 14 + "".join(f"{way:>9}" for way in WAYS) + f"{'plain/memfd':>14}   (ms a call)")
        for model in ("peak", "same"):
            for size in SIZES:
                took = measure(ways, model, size, given.rounds, given.seconds)
                cells = "".join(f"{took[way]:>9.2f}" for way in WAYS)
                print(f"{model}{size // MIB:>7} MB{cells}{took['plain'] / took['memfd']:>14.1f}")


if __name__ == "__main__":
    main()
