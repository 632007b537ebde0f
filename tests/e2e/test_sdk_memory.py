"""Memory that the SDK shares with the real daemon: in and out, every transport, whose it is, and how it ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from inferd import AsyncClient, Client, errors
from inferd_agent.grpc.messages import ModelInferRequest, ModelInferResponse
from tests import onnx_models
from tests.e2e.daemon import Daemon, until
from tests.e2e.raw import free_port
from tests.inferd.client.both import KINDS, Both

MIB = 1 << 20
both_kinds = pytest.mark.parametrize("kind", KINDS)

# Shares all that there is, says so, and stays.
HOG = f"""
import sys
from inferd import Client
client = Client(sys.argv[1])
memory = client.share({32 * MIB})
print("shared", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Takes 32 MiB; `wide` adds one to floats, and tells the mean of each row; `same` and `words` are identities."""
    folder = tmp_path_factory.mktemp("m")
    models = folder / "models"
    onnx_models.dynamic_width(models / "wide.onnx")
    onnx_models.identity(models / "same.onnx", "INT64")
    onnx_models.string_identity(models / "words.onnx")
    listen = (
        f"memory+unix:{folder}/m.sock",
        f"tcp:127.0.0.1:{free_port()}?tls=off&insecure=on",
        f"grpc+unix:{folder}/g.sock?tls=off",
    )
    env = {"INFERD_SHARED_MEMORY_MAX_BYTES": str(64 * MIB)}
    with Daemon(folder, models=models, listen=listen, env=env) as running:
        yield running


def http(daemon: Daemon) -> str:
    """The URL of the plain TCP listener."""
    return "http://" + daemon._listen[2].removeprefix("tcp:").partition("?")[0]


@both_kinds
async def test_tensors_in_and_out(kind: str, daemon: Daemon) -> None:
    """Small and large, whole and in part, beside tensors that are sent: the answers are what they always are."""
    async with Both(kind, daemon.url) as client:
        with await client.call("share", 16 * MIB) as memory:
            for width in (3, 1 << 20):
                x, y = memory.empty((1, width), np.float32), memory.empty((1, width), np.float32)
                x[:] = np.arange(width)
                result = await client.call("infer", "wide", {"x": x}, outputs={"y": y, "mean": None})
                np.testing.assert_array_equal(y, np.arange(width, dtype=np.float32)[None] + 1)
                assert result["y"].ctypes.data == y.ctypes.data
                assert result["mean"].item() == pytest.approx((width - 1) / 2, rel=1e-4)
                assert (await client.call("infer", "wide", {"x": x}))["y"].tobytes() == y.tobytes()
            ids, room = memory.empty((4, 4), np.int64), memory.empty(64, np.int64)
            ids[:] = np.arange(16).reshape(4, 4) - (1 << 62)
            result = await client.call("infer", "same", {"x": ids[1:3]}, outputs={"y": room})
            np.testing.assert_array_equal(result["y"], ids[1:3])
            np.testing.assert_array_equal(room[:8], ids[1:3].ravel())
            words = await client.call("infer", "words", {"x": [["a"], ["b"]]})
            assert next(iter(words.values())).tolist() == [[b"a"], [b"b"]]


@both_kinds
async def test_the_token_decides_over_every_transport(kind: str, daemon: Daemon) -> None:
    """Memory brought with a token is used with that token, by TCP on loopback too; with no other is it there at all."""
    token, other = [await asyncio.to_thread(daemon.token, f"{name}-{kind}") for name in ("app", "other")]
    for url in (daemon.url, http(daemon)):
        async with Both(kind, url, token=token) as client, Both(kind, url, token=other) as stranger:
            with await client.call("share", 4096) as memory:
                x = memory.empty((1, 4), np.float32)
                x[:] = 1
                assert (await client.call("infer", "wide", {"x": x}))["y"].tolist() == [[2, 2, 2, 2]]
                stranger.client._memories = client.client._memories
                with pytest.raises(errors.NotFound, match="there is no region"):
                    await stranger.call("infer", "wide", {"x": x})


def test_what_does_not_fit_is_refused_and_harms_nothing(daemon: Daemon) -> None:
    """An output that is larger than its array, or of another dtype, or classes; the array next to it is untouched."""
    with daemon.client() as client, client.share(MIB) as memory:
        x, small, beside = (memory.empty((1, width), np.float32) for width in (64, 8, 8))
        beside[:] = x[:] = 7
        with pytest.raises(errors.InvalidRequest, match="output 'y' takes 256 bytes"):
            client.infer("wide", {"x": x}, outputs={"y": small})
        with pytest.raises(errors.InvalidRequest, match="output 'y' is float32, the array given for it int64"):
            client.infer("wide", {"x": x}, outputs={"y": memory.empty(64, np.int64)})
        with pytest.raises(errors.InvalidRequest, match="classification"):
            client.infer("wide", {"x": x}, outputs={"y": memory.empty(64, np.float32)}, classification=2)
        assert beside.tolist() == [[7] * 8]
        assert client.infer("wide", {"x": x}, outputs={"y": x})["y"].tolist() == [[8] * 64]


def test_regions_are_the_same_to_grpc(daemon: Daemon) -> None:
    """What was handed over by its socket can be named in a call of gRPC by the same caller, and by no other."""
    own, other = ([("authorization", f"Bearer {daemon.token(f'grpc-{name}')}")] for name in ("own", "other"))
    channel = grpc.insecure_channel(f"unix:{daemon.folder}/g.sock")
    token = own[0][1].removeprefix("Bearer ")
    with channel, daemon.client(token=token) as client, client.share(4096) as memory:
        x, y = memory.empty((1, 4), np.float32), memory.empty((1, 4), np.float32)
        x[:] = 3
        asked = ModelInferRequest(model_name="wide")
        sent, wanted = asked.inputs.add(name="x", datatype="FP32", shape=[1, 4]), asked.outputs.add(name="y")
        for tensor, array in ((sent, x), (wanted, y)):
            place = client._memories.place(array)
            assert place is not None
            tensor.parameters["shared_memory_region"].string_param = place.region
            tensor.parameters["shared_memory_offset"].int64_param = place.offset
            tensor.parameters["shared_memory_byte_size"].int64_param = place.nbytes
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        answer = ModelInferResponse.FromString(infer(asked.SerializeToString(), timeout=30, metadata=own))
        assert list(answer.raw_output_contents) == [b""]
        assert y.tolist() == [[4] * 4]
        with pytest.raises(grpc.RpcError, match="there is no region"):
            infer(asked.SerializeToString(), timeout=30, metadata=other)


def test_many_threads_share_one_memory(daemon: Daemon) -> None:
    """Each with arrays of its own, all at once; no answer lands in another's array."""

    def work(number: int) -> None:
        x, y = memory.empty((1, 1000), np.float32), memory.empty((1, 1000), np.float32)
        for turn in range(20):
            x[:] = number * 100 + turn
            client.infer("wide", {"x": x}, outputs={"y": y})
            assert (y == number * 100 + turn + 1).all()

    with daemon.client() as client, client.share(MIB) as memory, ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


async def test_many_tasks_share_one_memory(daemon: Daemon) -> None:
    """As with threads, on one loop."""
    async with AsyncClient(daemon.url) as client:
        with await client.share(MIB) as memory:
            x = memory.empty((64, 100), np.float32)
            x[:] = np.arange(64)[:, None]
            rooms = [memory.empty((1, 100), np.float32) for _ in range(64)]
            await asyncio.gather(
                *(client.infer("wide", {"x": x[row : row + 1]}, outputs={"y": rooms[row]}) for row in range(64))
            )
            for row in range(64):
                assert (rooms[row] == row + 1).all()


def test_there_is_an_end_to_memory_and_it_comes_back(daemon: Daemon) -> None:
    """Over the limit it is refused with the figures; what is closed, and what a killed process held, is free again."""
    with daemon.client() as client:
        settle(client)
        before = daemon.open_files()
        with client.share(20 * MIB), pytest.raises(errors.Overloaded, match=f"{20 * MIB} more would pass"):
            client.share(20 * MIB)
        settle(client)
        command = [sys.executable, "-c", HOG, daemon.url]
        hog = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert hog.stdin is not None
        assert hog.stdout is not None
        with hog.stdin, hog.stdout:
            assert hog.stdout.readline() == "shared\n"
            with pytest.raises(errors.Overloaded):
                client.share(1)
            hog.kill()
            hog.wait()
        settle(client)
        for _ in range(50):
            client.share(MIB).close()
        settle(client)
        until(lambda: daemon.open_files() <= before)


def settle(client: Client) -> None:
    """Until all memory is free, which the daemon hears of a moment after it is."""

    def is_free() -> bool:
        try:
            client.share(32 * MIB).close()
        except errors.Overloaded:
            return False
        return True

    until(is_free)


def test_a_daemon_that_restarts_has_forgotten(tmp_path: Path) -> None:
    """Then a region is unknown, in words; arrays are arrays still, and memory shared anew works. A stop with memory in
    use is a clean one."""
    onnx_models.dynamic_width(tmp_path / "models" / "wide.onnx")
    daemon = Daemon(tmp_path, listen=(f"memory+unix:{tmp_path}/m.sock",), tls=False)
    with daemon, daemon.client() as client:
        memory = client.share(4096)
        x = memory.empty((1, 4), np.float32)
        x[:] = 1
        assert client.infer("wide", {"x": x})["y"].tolist() == [[2] * 4]
        assert daemon.stop() == 0
        assert not Path(f"{tmp_path}/m.sock").exists()
        daemon.start()
        with pytest.raises(errors.NotFound, match="there is no region"):
            client.infer("wide", {"x": x})
        with client.share(4096) as anew:
            again: Any = anew.empty(x.shape, x.dtype)
            again[:] = x
            assert client.infer("wide", {"x": again})["y"].tolist() == [[2] * 4]
        memory.close()
        assert x.tolist() == [[1] * 4]
