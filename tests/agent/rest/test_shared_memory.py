"""Shared memory over REST: registration, tensors in and out of regions, and what callers do to them meanwhile."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferd.protocol import OutputRequest, RegionRef, decode_response, encode_request
from inferd_agent.config import SharedMemory
from inferd_agent.memory import Region
from tests.agent.rest.serving import Reply, Serving, read_reply, request
from tests.agent.rest.test_connections import until

MB = 1 << 20
PORT = "/v2/systemsharedmemory"


@pytest.fixture(scope="module")
def sharing(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Serving]:
    """A front end that takes keys of a folder of its own."""
    shared_memory = SharedMemory(system=True, max_bytes=128 * MB, max_regions=16)
    bounds = {"max_body_bytes": 4 * MB, "max_inflight_bytes": 8 * MB}
    serving = Serving(tmp_path_factory.mktemp("r"), models, shared_memory=shared_memory, **bounds)
    serving.start()
    yield serving
    serving.stop()


@pytest.fixture(autouse=True)
def nothing_is_left(sharing: Serving) -> Iterator[None]:
    """No test leaves a region, a descriptor or held bytes behind."""
    yield
    assert sharing.post(f"{PORT}/unregister").status == 200
    until(lambda: sharing.app._bodies.held == 0 and sharing.bridge.pending == 0)
    assert len(sharing.regions) == 0
    until(lambda: not [link for link in links() if str(sharing.shm) in link])


def links() -> list[str]:
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one of the listing itself
            found.append(str(each.readlink()))
    return found


def make(serving: Serving, nbytes: int, name: str = "r", key: str = "k", **more: Any) -> Path:
    """An object, registered."""
    path = serving.shm / key
    path.write_bytes(bytes(nbytes))
    reply = serving.post(f"{PORT}/region/{name}/register", {"key": f"/{key}", "byte_size": nbytes}, **more)
    assert (reply.status, reply.body) == (200, b"{}")
    return path


def infer(serving: Serving, model: str, *given: Any, headers: dict[str, str] | None = None, **more: Any) -> Reply:
    length, buffers = encode_request(*given, **more)
    own = {"Inference-Header-Content-Length": str(length)} if length is not None else {}
    return serving.post(f"/v2/models/{model}/infer", b"".join(buffers), {**own, **(headers or {})})


def test_register_status_unregister(sharing: Serving) -> None:
    """As in the protocol, with names percent-decoded; unregistering the unknown is no error."""
    make(sharing, 4096, "a%20b")
    (sharing.shm / "k2").write_bytes(bytes(100))
    body = {"key": "k2", "offset": 10, "byte_size": 90}
    assert sharing.post(f"{PORT}/region/c/register", body).status == 200
    both = [
        {"name": "a b", "key": "/k", "offset": 0, "byte_size": 4096},
        {"name": "c", "key": "k2", "offset": 10, "byte_size": 90},
    ]
    assert sharing.get(f"{PORT}/status").json() == both
    assert sharing.get(f"{PORT}/region/c/status").json() == both[1:]
    twice = sharing.post(f"{PORT}/region/c/register", body)
    assert (twice.status, twice.error) == (400, "region 'c' is registered already; unregister it first")
    assert sharing.post(f"{PORT}/region/c/unregister").status == 200
    assert sharing.post(f"{PORT}/region/c/unregister").status == 200
    gone = sharing.get(f"{PORT}/region/c/status")
    assert (gone.status, gone.error) == (404, "there is no region 'c'; register it first")
    assert "system_shared_memory" in sharing.get("/v2").json()["extensions"]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("width", [64, 100_000])
def test_tensors_in_and_out_of_regions(sharing: Serving, binary: bool, width: int) -> None:
    """Small ones by the express way's door, large ones off the loop; other outputs are sent as asked."""
    x = np.random.default_rng(1).normal(size=(2, width)).astype(np.float32)
    path = make(sharing, 2 * x.nbytes + 64)
    with path.open("r+b") as file:
        file.seek(64)
        file.write(x.tobytes())
    places = {"x": RegionRef("r", 64, x.nbytes)}
    out = RegionRef("r", 64 + x.nbytes, x.nbytes)
    wanted = [OutputRequest("y", place=out), OutputRequest("mean", binary)]
    reply = infer(sharing, "wide", {"x": x}, wanted, binary=binary, places=places, id="7")
    assert reply.status == 200, reply.body
    length = reply.headers.get("inference-header-content-length")
    response = decode_response(reply.body, int(length) if length else None, places={"y": out})
    assert response.id == "7"
    assert [each.shape for each in response.references] == [x.shape]
    np.testing.assert_allclose(response.outputs["mean"], x.mean(1, keepdims=True), rtol=1e-3, atol=1e-5)
    y = np.frombuffer(path.read_bytes(), np.float32, offset=64 + x.nbytes).reshape(x.shape)
    np.testing.assert_array_equal(y, x + 1)


def test_answers_of_regions_are_compressed_as_others(sharing: Serving) -> None:
    """The ordinary way is taken then, whose answer is the same."""
    path = make(sharing, 512)
    place = RegionRef("r", 0, 256)
    x = np.zeros((1, 64), np.float32)
    reply = infer(
        sharing, "wide", {"x": x}, [OutputRequest("y", place=RegionRef("r", 256, 256))],
        places={"x": place}, headers={"Accept-Encoding": "gzip"},
    )  # fmt: skip
    assert reply.status == 200
    assert reply.headers["content-encoding"] == "gzip"
    assert path.read_bytes() == bytes(256) + np.ones(64, np.float32).tobytes()


def test_text_in_and_out_of_regions(sharing: Serving) -> None:
    """BYTES elements tell their sizes themselves."""
    path = make(sharing, 128)
    text = np.array([["añb".encode()], [b""]], object)
    data = b"\x04\0\0\0a\xc3\xb1b\0\0\0\0"
    path.write_bytes(data + bytes(128 - len(data)))
    wanted = [OutputRequest("y", place=RegionRef("r", 64, 64))]
    reply = infer(sharing, "strings", {"x": text}, wanted, places={"x": RegionRef("r", 0, len(data))})
    assert reply.json()["outputs"] == [{"name": "y", "datatype": "BYTES", "shape": [2, 1]}]
    assert path.read_bytes()[64 : 64 + len(data)] == data


X = np.zeros((1, 64), np.float32)
IN, OUT = RegionRef("r", 0, 256), RegionRef("r", 256, 256)


REFUSED: dict[str, tuple[RegionRef, RegionRef, int, str]] = {
    "unknown input": (RegionRef("q", 0, 256), OUT, 404, "no region 'q'"),
    "unknown output": (IN, RegionRef("q", 0, 256), 404, "no region 'q'"),
    "input past the end": (RegionRef("r", 512, 256), OUT, 400, "region 'r' has 512 bytes"),
    "output past the end": (IN, RegionRef("r", 512, 1), 400, "region 'r' has 512 bytes"),
    "overflow": (RegionRef("r", (1 << 63) - 256, 256), OUT, 400, "region 'r' has 512 bytes"),
    "wrap": (RegionRef("r", (1 << 64) - 256, 256), OUT, 400, "region 'r' has 512 bytes"),
    "no room": (IN, RegionRef("r", 256, 255), 400, "output 'y' takes 256 bytes, region 'r' was offered with 255"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_places_that_cannot_be(case: str, sharing: Serving) -> None:
    """Each is refused with the region named, and the connection serves on."""
    make(sharing, 512)
    before, after, status, reason = REFUSED[case]
    with sharing.connected() as connection:
        for place_in, place_out, expected in ((before, after, status), (IN, OUT, 200)):
            length, buffers = encode_request({"x": X}, [OutputRequest("y", place=place_out)], places={"x": place_in})
            head = {"Inference-Header-Content-Length": str(length)}
            connection.sendall(request("POST", "/v2/models/wide/infer", b"".join(buffers), head))
            reply = read_reply(connection)
            assert reply.status == expected, reply.body
            if expected != 200:
                assert reason in reply.error


def test_size_must_be_the_shapes(sharing: Serving) -> None:
    """Before anything is read."""
    make(sharing, 512)
    place = {"shared_memory_region": "r", "shared_memory_byte_size": 255}
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 64], "parameters": place}
    reply = sharing.post("/v2/models/wide/infer", {"inputs": [tensor]})
    assert (reply.status, "shared_memory_byte_size in region 'r' is 255" in reply.error) == (400, True)


def test_other_callers_have_regions_of_their_own(sharing: Serving) -> None:
    """A token's caller neither sees nor uses nor removes another's, and may take the same name; it takes `infer`."""
    make(sharing, 512)
    token, _ = sharing.tokens.create("other", ("infer",))
    reader, _ = sharing.tokens.create("reader", ("read",))
    sharing.identity.reload()
    bearer = {"Authorization": f"Bearer {token}"}
    assert sharing.get(f"{PORT}/status", bearer).json() == []
    assert infer(sharing, "wide", {"x": X}, places={"x": IN}, headers=bearer).status == 404
    assert sharing.post(f"{PORT}/region/r/unregister", b"", bearer).status == 200
    assert sharing.post(f"{PORT}/unregister", b"", bearer).status == 200
    assert sharing.get(f"{PORT}/region/r/status").status == 200
    make(sharing, 256, headers=bearer)
    assert [each["byte_size"] for each in sharing.get(f"{PORT}/status", bearer).json()] == [256]
    sharing.post(f"{PORT}/unregister", b"", bearer)
    denied = sharing.get(f"{PORT}/status", {"Authorization": f"Bearer {reader}"})
    assert (denied.status, "infer" in denied.error) == (403, True)
    assert sharing.get(f"{PORT}/status", tcp=True).status == 401


def test_callers_over_loopback_share_too(sharing: Serving) -> None:
    """With a token; from other machines none could."""
    token, _ = sharing.tokens.create("tcp", ("infer",))
    sharing.identity.reload()
    bearer = {"Authorization": f"Bearer {token}"}
    make(sharing, 512, headers=bearer, tcp=True)
    assert sharing.post(f"{PORT}/unregister", b"", bearer, tcp=True).status == 200


def test_object_that_is_cut_while_the_request_runs(sharing: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the inputs were read: the output is refused and nothing is made larger. Before: the input is."""
    path = make(sharing, 512)
    read = Region.read

    def cut(self: Region, *given: Any) -> None:
        read(self, *given)
        os.truncate(path, 256)

    monkeypatch.setattr(Region, "read", cut)
    for _ in range(2):  # the second time it is cut already
        reply = infer(sharing, "wide", {"x": X}, [OutputRequest("y", place=OUT)], places={"x": IN})
        assert (reply.status, "region 'r': its object was cut" in reply.error) == (400, True)
    assert path.stat().st_size == 256
    os.truncate(path, 10)
    reply = infer(sharing, "wide", {"x": X}, places={"x": IN})
    assert (reply.status, "region 'r': its object was cut" in reply.error) == (400, True)


def test_region_is_unregistered_while_a_request_uses_it(sharing: Serving) -> None:
    """The request writes its output and is answered."""
    x = np.zeros((1, 512), np.float32)
    path = make(sharing, 2 * x.nbytes)
    wanted = [OutputRequest("y", place=RegionRef("r", x.nbytes, x.nbytes))]
    length, buffers = encode_request({"x": x + 1}, wanted, places={"x": RegionRef("r", 0, x.nbytes)})
    path.write_bytes((x + 1).tobytes() + bytes(x.nbytes))
    with sharing.connected() as connection:
        head = {"Inference-Header-Content-Length": str(length)}
        with sharing.holding() as jobs:
            connection.sendall(request("POST", "/v2/models/slow/infer", b"".join(buffers), head))
            until(lambda: bool(jobs))
            assert sharing.post(f"{PORT}/unregister").status == 200
        assert read_reply(connection).status == 200
    assert np.frombuffer(path.read_bytes(), np.float32, offset=x.nbytes).any()


def test_caller_who_leaves_gives_all_back(sharing: Serving) -> None:
    """The job is dropped and the region let go; see `nothing_is_left`."""
    x = np.zeros((1, 512), np.float32)
    make(sharing, x.nbytes)
    length, buffers = encode_request({"x": x}, places={"x": RegionRef("r", 0, x.nbytes)})
    with sharing.holding() as jobs:
        with sharing.connected() as connection:
            head = {"Inference-Header-Content-Length": str(length)}
            connection.sendall(request("POST", "/v2/models/slow/infer", b"".join(buffers), head))
            until(lambda: bool(jobs))
        until(lambda: jobs[0].is_cancelled)
    sharing.post(f"{PORT}/unregister")


def test_what_is_copied_in_is_held(sharing: Serving) -> None:
    """It counts with the bodies, so a region of many bytes cannot be used to pass their limit."""
    x = np.zeros((1, 9 * MB // 4), np.float32)
    make(sharing, x.nbytes)
    reply = infer(sharing, "wide", {"x": x}, places={"x": RegionRef("r", 0, x.nbytes)})
    assert (reply.status, "bytes of request bodies are held" in reply.error) == (429, True)
    assert "retry-after" in reply.headers


def test_bodies_that_are_no_registrations(sharing: Serving) -> None:
    """Each is refused with the region named."""
    path = f"{PORT}/region/r/register"
    wrong = (b'{"key":"k"}', b'{"byte_size":8}', b'{"key":7,"byte_size":8}', b'{"key":"k","byte_size":"8"}')
    for body in (b"", b"{}", b"[]", *wrong):
        reply = sharing.post(path, body)
        assert (reply.status, "region 'r'" in reply.error) == (400, True)
    reply = sharing.post(path, {"key": "../x", "byte_size": 8})
    assert (reply.status, "'../x'" in reply.error) == (400, True)
    assert sharing.get(path).status == 405
    assert sharing.post(f"{PORT}/region/r/status").status == 405
    assert sharing.post(f"{PORT}/region//register", {}).status == 404


def test_the_limits_are_told(sharing: Serving) -> None:
    """Too many regions or bytes are a matter of waiting or of the configuration."""
    (sharing.shm / "k").write_bytes(bytes(8))
    os.truncate(sharing.shm / "k", 65 * MB)
    reply = sharing.post(f"{PORT}/region/r/register", {"key": "k", "byte_size": 65 * MB})
    assert (reply.status, "one caller's regions together at most" in reply.error) == (400, True)
    assert sharing.post(f"{PORT}/region/r/register", {"key": "k", "byte_size": 60 * MB}).status == 200
    reply = sharing.post(f"{PORT}/region/s/register", {"key": "k", "byte_size": 5 * MB})
    assert (reply.status, "would pass" in reply.error) == (429, True)
    sharing.post(f"{PORT}/unregister")
    for number in range(8):
        assert sharing.post(f"{PORT}/region/{number}/register", {"key": "k", "byte_size": 8}).status == 200
    reply = sharing.post(f"{PORT}/region/r/register", {"key": "k", "byte_size": 8})
    assert (reply.status, "your 8 regions are registered" in reply.error) == (429, True)


def test_cudas_memory_is_there_in_name_only(sharing: Serving) -> None:
    """Load generators ask for it and unregister it, whatever they use."""
    for path in ("", "/region/r"):
        assert sharing.get(f"/v2/cudasharedmemory{path}/status").json() == []
        assert sharing.post(f"/v2/cudasharedmemory{path}/unregister").status == 200
    refused = sharing.post("/v2/cudasharedmemory/region/r/register", {"raw_handle": {"b64": ""}, "byte_size": 1})
    assert (refused.status, "region 'r': memory of a GPU" in refused.error) == (501, True)


def test_off_by_default(served: Serving) -> None:
    """Registering says what to set; asking and unregistering are no errors; the extension is not listed."""
    refused = served.post(f"{PORT}/region/r/register", {"key": "k", "byte_size": 8})
    assert (refused.status, "shared_memory.system = true" in refused.error) == (501, True)
    assert served.get(f"{PORT}/status").json() == []
    assert served.post(f"{PORT}/unregister").status == 200
    assert "system_shared_memory" not in served.get("/v2").json()["extensions"]
