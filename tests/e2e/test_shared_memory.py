"""tritonclient's system shared memory against the real daemon, by HTTP and gRPC, sync and asyncio; and objects that are
cut, swapped and named with tricks: each ends in a refusal, and the daemon serves on with what it had."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio
from tritonclient.utils import InferenceServerException, serialize_byte_tensor, shared_memory

from inferd.protocol import DATATYPES
from tests import onnx_models
from tests.e2e.daemon import Daemon, until
from tests.e2e.raw import free_port

pytestmark = pytest.mark.filterwarnings("default")

SHM = Path("/dev/shm")
CLIENTS: dict[str, ModuleType] = {"http": http_client, "http.aio": http_aio, "grpc": grpc_client, "grpc.aio": grpc_aio}
SENT = ("BOOL", "INT64", "FP16")
MB = 1 << 20
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Site:
    """A daemon that takes keys, where its clients find it, and a token's header."""

    daemon: Daemon
    urls: dict[str, str]
    headers: dict[str, str]

    def ask(self, kind: str, act: str, *given: Any, **more: Any) -> Any:
        """One call of one client."""
        if kind.endswith(".aio"):
            return asyncio.run(self.ask_async(kind, act, *given, **more))
        with CLIENTS[kind].InferenceServerClient(self.urls[kind]) as client:
            return getattr(client, act)(*given, headers=dict(self.headers), **more)

    async def ask_async(self, kind: str, act: str, *given: Any, **more: Any) -> Any:
        """The same, of an asyncio client."""
        async with CLIENTS[kind].InferenceServerClient(self.urls[kind.removesuffix(".aio")]) as client:
            return await getattr(client, act)(*given, headers=dict(self.headers), **more)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Identities, wide (any float row plus one), slow."""
    folder = tmp_path_factory.mktemp("m")
    models = folder / "models"
    for datatype in (*SENT, "BYTES"):
        onnx_models.identity(models / f"same_{datatype}.onnx", datatype, ("N", "W"))
    (models / "same_INT64.toml").write_text('engine = "onnxruntime"\n')  # OpenVINO has no 64 bits
    onnx_models.dynamic_width(models / "wide.onnx")
    onnx_models.slow(models / "slow" / "1" / "model.onnx", layers=512)
    ports = free_port(), free_port()
    listen = (
        f"tcp:127.0.0.1:{ports[0]}?tls=off&insecure=on",
        f"grpc+tcp:127.0.0.1:{ports[1]}?tls=off&insecure=on",
    )
    env = {"INFERD_SHARED_MEMORY_SYSTEM": "true", "INFERD_SHARED_MEMORY_MAX_REGIONS": "16"}
    with Daemon(folder, models=models, listen=listen, env=env) as daemon:
        urls = {"http": f"127.0.0.1:{ports[0]}", "grpc": f"127.0.0.1:{ports[1]}"}
        yield Site(daemon, urls, {"authorization": f"Bearer {daemon.token()}"})


@pytest.fixture
def key() -> Iterator[str]:
    """The name of an object that is there no more after the test."""
    name = f"inferd-test-{os.getpid()}-{next(_numbers)}"
    yield name
    (SHM / name).unlink(missing_ok=True)


@pytest.fixture
def share(site: Site) -> Iterator[Callable[[str, int], Any]]:
    """Makes a region `r` of tritonclient's own making, registered over HTTP; all are gone after the test."""
    made = []

    def make(key: str, nbytes: int) -> Any:
        made.append(shared_memory.create_shared_memory_region("r", key, nbytes, create_only=True))
        site.ask("http", "register_system_shared_memory", "r", key, nbytes)
        return made[-1]

    yield make
    site.ask("http", "unregister_system_shared_memory")
    for each in made:
        with contextlib.suppress(FileNotFoundError):
            shared_memory.destroy_shared_memory_region(each)
    assert not held(site)


def held(site: Site) -> list[str]:
    """The objects under /dev/shm that the daemon has open."""
    assert site.daemon.process is not None
    found = []
    for each in Path(f"/proc/{site.daemon.process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(each.readlink()).startswith("/dev/shm/inferd-test"):
                found.append(str(each.readlink()))
    return found


def tensors(kind: str, shape: tuple[int, ...], datatype: str, nbytes: int, out_bytes: int, at: int) -> tuple[Any, Any]:
    """An input at the start of region `r`, and an output behind it."""
    module = CLIENTS[kind.partition(".")[0]]
    given = module.InferInput("x", list(shape), datatype)
    given.set_shared_memory("r", nbytes)
    wanted = module.InferRequestedOutput("y")
    wanted.set_shared_memory("r", out_bytes, at)
    return given, wanted


@pytest.mark.parametrize("kind", CLIENTS)
def test_each_client_sends_and_takes_by_regions(site: Site, key: str, kind: str) -> None:
    """Register, status, infer in and out, unregister; numbers and text; as each client has it."""
    x = np.linspace(-1, 1, 3000, dtype=np.float32).reshape(2, 1500)
    region = shared_memory.create_shared_memory_region("r", key, 3 * x.nbytes, create_only=True)
    shared_memory.set_shared_memory_region(region, [x])
    try:
        site.ask(kind, "register_system_shared_memory", "r", key, 3 * x.nbytes)
        told = site.ask(kind, "get_system_shared_memory_status")
        if kind.startswith("http"):
            assert told == [{"name": "r", "key": key, "offset": 0, "byte_size": 3 * x.nbytes}]
        else:
            assert [(each.key, each.byte_size) for each in told.regions.values()] == [(key, 3 * x.nbytes)]
        given, wanted = tensors(kind, x.shape, "FP32", x.nbytes, x.nbytes, x.nbytes)
        answer = site.ask(kind, "infer", "wide", [given], outputs=[wanted])
        output = answer.get_output("y")
        shape = output["shape"] if isinstance(output, dict) else list(output.shape)
        assert shape == [2, 1500]
        np.testing.assert_array_equal(
            shared_memory.get_contents_as_numpy(region, np.float32, [2, 1500], x.nbytes), x + 1
        )
        text = np.array([["añb".encode(), b""]], object)
        packed = serialize_byte_tensor(text)
        shared_memory.set_shared_memory_region(region, [packed])
        nbytes = len(packed.item())
        given, wanted = tensors(kind, (1, 2), "BYTES", nbytes, 64, 128)
        site.ask(kind, "infer", "same_BYTES", [given], outputs=[wanted])
        assert shared_memory.get_contents_as_numpy(region, np.object_, [1, 2], 128).tolist() == text.tolist()
        site.ask(kind, "unregister_system_shared_memory", "r")
        assert not held(site)
    finally:
        site.ask(kind, "unregister_system_shared_memory")
        shared_memory.destroy_shared_memory_region(region)


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_every_datatype(site: Site, key: str, share: Any, kind: str) -> None:
    """Bit for bit; by gRPC, too, though the region was registered by HTTP."""
    region = share(key, 4096)
    for datatype in SENT:
        sent = np.array([[0, 1, 1, 0]], DATATYPES[datatype])
        shared_memory.set_shared_memory_region(region, [sent])
        given, wanted = tensors(kind, sent.shape, datatype, sent.nbytes, 1000, 2048)
        site.ask(kind, "infer", f"same_{datatype}", [given], outputs=[wanted])
        found = shared_memory.get_contents_as_numpy(region, sent.dtype, [1, 4], 2048)
        assert found.tobytes() == sent.tobytes(), datatype


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_large_tensors(site: Site, key: str, share: Any, kind: str) -> None:
    """16 MiB in and as many out."""
    region = share(key, 32 * MB)
    x = np.arange(4 * MB, dtype=np.float32).reshape(1, -1)
    shared_memory.set_shared_memory_region(region, [x])
    given, wanted = tensors(kind, x.shape, "FP32", x.nbytes, x.nbytes, x.nbytes)
    site.ask(kind, "infer", "wide", [given], outputs=[wanted])
    found = shared_memory.get_contents_as_numpy(region, np.float32, x.shape, x.nbytes)
    assert np.array_equal(found, x + 1)


NUMBERS = {"NOT_FOUND": "404", "INVALID_ARGUMENT": "400", "ALREADY_EXISTS": "400", "UNIMPLEMENTED": "501",
           "PERMISSION_DENIED": "403", "RESOURCE_EXHAUSTED": "429"}  # fmt: skip


def refused(error: InferenceServerException, kind: str, code: str) -> bool:
    wanted = NUMBERS[code] if kind.startswith("http") else f"StatusCode.{code}"
    return str(error.status()) == wanted and "'" in error.message()


KEYS = {
    "path": "../etc/passwd",
    "absolute path": "/etc/passwd",
    "parent": "..",
    "empty": "",
    "NUL": "x\0y",
    "link": "{key}-link",
    "pipe": "{key}-pipe",
    "folder": "{key}-folder",
    "missing": "{key}-missing",
}


@pytest.fixture
def oddities(key: str) -> Iterator[None]:
    """A link, a pipe and a folder beside an object, all under /dev/shm."""
    odd = [SHM / f"{key}-{each}" for each in ("link", "pipe", "folder")]
    (SHM / key).write_bytes(bytes(64))
    odd[0].symlink_to(SHM / key)
    os.mkfifo(odd[1])
    odd[2].mkdir()
    yield
    odd[0].unlink()
    odd[1].unlink()
    odd[2].rmdir()


@pytest.mark.usefixtures("oddities")
@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_keys_with_tricks(site: Site, key: str, kind: str) -> None:
    """None opens anything; each is told to be the caller's fault."""
    for case, text in KEYS.items():
        with pytest.raises(InferenceServerException) as refusal:
            site.ask(kind, "register_system_shared_memory", "r", text.format(key=key), 8)
        assert refused(refusal.value, kind, "INVALID_ARGUMENT"), (case, refusal.value)
    assert not held(site)


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_refusals_have_the_right_code(site: Site, key: str, share: Any, kind: str) -> None:
    """Unknown, twice, out of bounds by size, by offset and by overflow, too many."""
    share(key, 4096)
    register = ("register_system_shared_memory", "r", key)
    for code, *call in (
        ("ALREADY_EXISTS", *register, 4096),
        ("NOT_FOUND", "get_system_shared_memory_status", "q"),
        ("INVALID_ARGUMENT", "register_system_shared_memory", "q", key, 4097),
        ("INVALID_ARGUMENT", "register_system_shared_memory", "q", key, (1 << 63) - 1),
        ("INVALID_ARGUMENT", "register_system_shared_memory", "q", key, 0),
        ("UNIMPLEMENTED", "register_cuda_shared_memory", "q", b"", 0, 8),
    ):
        with pytest.raises(InferenceServerException) as refusal:
            site.ask(kind, *call)
        assert refused(refusal.value, kind, str(code)), (call, refusal.value)
    with pytest.raises(InferenceServerException) as refusal:
        site.ask(kind, "register_system_shared_memory", "q", key, 8, offset=(1 << 63) - 4)
    assert refused(refusal.value, kind, "INVALID_ARGUMENT")
    module = CLIENTS[kind]
    for region, offset, code in (
        ("r", 4092, "INVALID_ARGUMENT"),
        ("r", (1 << 63) - 8, "INVALID_ARGUMENT"),
        ("q", 0, "NOT_FOUND"),
    ):
        given = module.InferInput("x", [1, 2], "FP32")
        given.set_shared_memory(region, 8, offset)
        with pytest.raises(InferenceServerException, match=f"region '{region}'") as refusal:
            site.ask(kind, "infer", "wide", [given])
        assert refused(refusal.value, kind, code), refusal.value
    given, wanted = tensors(kind, (1, 2), "FP32", 8, 7, 8)
    with pytest.raises(InferenceServerException, match="output 'y' takes 8 bytes") as refusal:
        site.ask(kind, "infer", "wide", [given], outputs=[wanted])
    assert refused(refusal.value, kind, "INVALID_ARGUMENT")
    if kind == "http":  # its client lets both be asked for
        wanted = module.InferRequestedOutput("y", class_count=1)
        wanted._parameters["shared_memory_region"] = "r"
        wanted._parameters["shared_memory_byte_size"] = 64
        with pytest.raises(InferenceServerException, match="classification goes with no shared_memory_region"):
            site.ask(kind, "infer", "wide", [given], outputs=[wanted])
    site.ask(kind, "unregister_cuda_shared_memory")
    assert not (site.ask(kind, "get_cuda_shared_memory_status", as_json=True) if kind == "grpc" else
                site.ask(kind, "get_cuda_shared_memory_status"))  # fmt: skip


def test_too_many_regions(site: Site, key: str, share: Any) -> None:
    """One caller's ninth of sixteen is refused, over either protocol; one that is given back makes room."""
    share(key, 4096)
    for number in range(7):
        site.ask("grpc", "register_system_shared_memory", str(number), key, 8)
    for kind in ("http", "grpc"):
        with pytest.raises(InferenceServerException) as refusal:
            site.ask(kind, "register_system_shared_memory", "more", key, 8)
        assert refused(refusal.value, kind, "RESOURCE_EXHAUSTED"), refusal.value
    site.ask("http", "unregister_system_shared_memory", "3")
    site.ask("grpc", "register_system_shared_memory", "more", key, 8)


def test_regions_are_nobody_elses(site: Site, key: str, share: Any) -> None:
    """Another token's caller finds, uses and removes nothing of it."""
    share(key, 4096)
    other = Site(site.daemon, site.urls, {"authorization": f"Bearer {site.daemon.token('other', 'infer')}"})
    for kind in ("http", "grpc"):
        given, wanted = tensors(kind, (1, 2), "FP32", 8, 8, 8)
        with pytest.raises(InferenceServerException) as refusal:
            other.ask(kind, "infer", "wide", [given], outputs=[wanted])
        assert refused(refusal.value, kind, "NOT_FOUND")
        other.ask(kind, "unregister_system_shared_memory")
        other.ask(kind, "unregister_system_shared_memory", "r")
    assert other.ask("http", "get_system_shared_memory_status") == []
    assert len(site.ask("http", "get_system_shared_memory_status")) == 1


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_object_that_is_cut_after_it_was_registered(site: Site, key: str, share: Any, kind: str) -> None:
    """Where mapped memory would end the daemon by SIGBUS, the request is refused, and the object is not made larger."""
    region = share(key, 2 * MB)
    x = np.ones((1, MB // 4), np.float32)
    shared_memory.set_shared_memory_region(region, [x])
    given, wanted = tensors(kind, x.shape, "FP32", x.nbytes, x.nbytes, x.nbytes)
    for size in (MB, 4096, 0):
        os.truncate(SHM / key, size)
        with pytest.raises(InferenceServerException, match="region 'r': its object was cut") as refusal:
            site.ask(kind, "infer", "wide", [given], outputs=[wanted])
        assert refused(refusal.value, kind, "INVALID_ARGUMENT")
        assert (SHM / key).stat().st_size == size
    os.truncate(SHM / key, 2 * MB)
    site.ask(kind, "infer", "wide", [given], outputs=[wanted])
    (SHM / key).unlink()  # the object lives on as long as it is registered
    site.ask(kind, "infer", "wide", [given], outputs=[wanted])


@pytest.mark.parametrize("kind", ["http.aio", "grpc.aio"])
async def test_object_that_is_cut_all_the_time(site: Site, key: str, share: Any, kind: str) -> None:
    """While requests run: each is answered or refused, and afterwards the daemon serves as before."""
    await asyncio.to_thread(share, key, 2 * MB)
    over = threading.Event()

    def cut() -> None:
        while not over.wait(0.0005):
            os.truncate(SHM / key, 100)
            os.truncate(SHM / key, 2 * MB)

    cutting = threading.Thread(target=cut)
    cutting.start()
    given, wanted = tensors(kind, (1, MB // 4), "FP32", MB, MB, MB)
    try:
        async with CLIENTS[kind].InferenceServerClient(site.urls[kind.removesuffix(".aio")]) as client:
            calls = [client.infer("wide", [given], outputs=[wanted], headers=dict(site.headers)) for _ in range(40)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
    finally:
        over.set()
        await asyncio.to_thread(cutting.join, 10)
    told = {str(each.status()) for each in answers if isinstance(each, InferenceServerException)}
    assert told <= {"400", "StatusCode.INVALID_ARGUMENT"}
    assert not [each for each in answers if isinstance(each, BaseException) and not hasattr(each, "status")]
    await site.ask_async(kind, "infer", "wide", [given], outputs=[wanted])


async def test_callers_who_leave_give_all_back(site: Site, key: str, share: Any) -> None:
    """Requests cancelled over either protocol while their regions are in use and then unregistered: the descriptors
    are closed, see `share`."""
    await asyncio.to_thread(share, key, 4096)
    files = await asyncio.to_thread(site.daemon.open_files)
    for kind in ("http.aio", "grpc.aio"):
        given, wanted = tensors(kind, (1, 512), "FP32", 2048, 2048, 2048)
        calls = [
            asyncio.create_task(site.ask_async(kind, "infer", "slow", [given], outputs=[wanted])) for _ in range(4)
        ]
        await asyncio.wait(calls, timeout=0.05)  # some are on their way then, some are answered
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    await site.ask_async("http.aio", "unregister_system_shared_memory")
    await asyncio.to_thread(until, lambda: not held(site))
    await asyncio.to_thread(until, lambda: site.daemon.open_files() <= files)
