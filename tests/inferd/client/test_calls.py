"""Every call of both clients against a real server on real sockets."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from inferd import AsyncClient, Client, errors
from tests.inferd.client.both import KINDS, Both
from tests.inferd.client.conftest import Site
from tests.inferd.client.server import TOKEN

X = np.arange(8, dtype=np.float32).reshape(2, 4)
both_kinds = pytest.mark.parametrize("kind", KINDS)


@both_kinds
@pytest.mark.parametrize("where", ["unix", "plain_unix", "https", "http"])
async def test_infer_over_every_kind_of_socket(kind: str, where: str, site: Site) -> None:
    """Arrays out as they went in, with the model's name and version and the ids."""
    ca = site.ca if where == "https" else None
    async with Both(kind, getattr(site, where), token=TOKEN, ca=ca) as client:
        result = await client.call("infer", "echo", {"x": X, "t": ["a", "é"], "s": 3}, request_id="q7")
        assert list(result) == ["x", "t", "s"]
        np.testing.assert_array_equal(result["x"], X)
        assert result["t"].tolist() == [b"a", "é".encode()]
        assert result["s"].shape == ()
        assert (result.model_name, result.model_version, result.id, result.request_id) == ("echo", "3", "q7", "r1")
        assert not result["x"].flags.writeable
        assert "echo 3" in repr(result)
        await client.call("infer", "echo", {"x": X})
    assert len(site.server.peers) == 1


@both_kinds
async def test_large_tensors_arrive_whole(kind: str, site: Site) -> None:
    """Megabytes in several buffers, both ways, over TLS."""
    x = np.random.default_rng(1).random((1024, 1024), np.float32)
    async with Both(kind, site.unix, token=TOKEN) as client:
        result = await client.call("infer", "echo", {"x": x, "y": x[:, ::2], "z": np.arange(3, dtype=np.int8)})
    np.testing.assert_array_equal(result["x"], x)
    np.testing.assert_array_equal(result["y"], x[:, ::2])


@both_kinds
async def test_options_reach_the_server(kind: str, site: Site) -> None:
    """Version, parameters, outputs and the time left, in microseconds."""
    async with Both(kind, site.unix, token=TOKEN) as client:
        result = await client.call(
            "infer", "echo", {"x": X, "y": X}, outputs=["y"], version=3, parameters={"k": "v"}, timeout_s=60
        )
        assert list(result) == ["y"]
        [parameters] = site.server.parameters
        assert parameters["k"] == "v"
        assert 20_000_000 < parameters["timeout"] <= 60_000_000
        assert site.server.requests == [("POST", "/v2/models/echo/versions/3/infer")]
        ranked = await client.call("infer", "echo", {"x": X}, classification=1)
        assert ranked["x"].tolist() == [[b"3.000000:3"], [b"7.000000:3"]]
        await client.call("infer", "echo", {"x": X}, parameters={"timeout": 77})
        assert site.server.parameters[-1]["timeout"] == 77


@both_kinds
async def test_a_result_tells_its_timing_if_asked(kind: str, site: Site) -> None:
    """Figures by name; words that a later server may add are left out, and who did not ask gets none."""
    async with Both(kind, site.unix, token=TOKEN) as client:
        assert (await client.call("infer", "echo", {"x": X}, timing=True)).timing == {
            "queue": 12.5,
            "run": 85,
            "rows": 2,
        }
        assert (await client.call("infer", "echo", {"x": X})).timing == {}


@both_kinds
async def test_every_other_call(kind: str, site: Site) -> None:
    """The answers come as plain data, over the paths of the protocol."""
    async with Both(kind, site.unix, token=TOKEN) as client:
        assert await client.call("is_live") is True
        assert await client.call("is_ready") is True
        assert await client.call("is_ready", "echo") is True
        assert await client.call("is_ready", "a b/c") is False
        assert site.server.requests[-1] == ("GET", "/v2/models/a%20b%2Fc/ready")
        assert (await client.call("server_metadata"))["name"] == "inferd"
        assert (await client.call("metadata", "echo"))["inputs"][0]["shape"] == [-1, 4]
        assert (await client.call("metadata", "echo", version="3"))["versions"] == ["3"]
        assert (await client.call("config", "echo"))["max_batch_size"] == 8
        assert await client.call("stats") == {"model_stats": []}
        assert (await client.call("stats", "echo"))["model_stats"][0]["name"] == "echo"
        assert (await client.call("index"))[0]["state"] == "READY"
        assert await client.call("models") == ["echo"]
        assert (await client.call("descriptions"))[0]["name"] == "echo"
        assert (await client.call("descriptions", "echo"))[0]["name"] == "echo"
        assert (await client.call("evidence", "echo"))["state"] == "static"
        assert (await client.call("evidence", "echo", version=3))["version"] == 3
        assert (await client.call("measure", "echo"))["ordered"] == '{"budget_s":null,"thorough":false}'
        ordered = (await client.call("measure", "echo", budget_s=60, thorough=True))["ordered"]
        assert ordered == '{"budget_s":60,"thorough":true}'
        assert await client.call("metrics") == "inferd_up 1\n"
        assert await client.call("load", "echo") is None
        assert await client.call("unload", "echo") is None


STATUSES = [
    (400, errors.InvalidRequest), (401, errors.Unauthenticated), (403, errors.Forbidden), (404, errors.NotFound),
    (413, errors.TooLarge), (415, errors.Unsupported), (418, errors.InferdError), (429, errors.Overloaded),
    (500, errors.EngineFault), (501, errors.Unsupported), (502, errors.EngineFault), (503, errors.NotReady),
    (504, errors.DeadlineExceeded),
]  # fmt: skip


@both_kinds
async def test_errors_mirror_the_servers(kind: str, site: Site) -> None:
    """Each status has its class, with the server's text, its request id and its Retry-After."""
    async with Both(kind, site.unix, token=TOKEN) as client:
        for status, expected in STATUSES:
            site.server.refusals.append((status, {"Retry-After": "1.5"}))
            with pytest.raises(errors.InferdError) as caught:
                await client.call("infer", "echo", {"x": X})
            error = caught.value
            assert type(error) is expected
            assert (error.status, error.request_id, error.retry_after_s) == (status, "r1", 1.5)
            assert str(error) == error.message == f"refused with {status}"
        with pytest.raises(errors.NotFound, match="no such model"):
            await client.call("infer", "nope", {"x": X})
        with pytest.raises(errors.BadResponse, match="not the JSON expected"):
            await client.call("metadata", "odd")
    assert len(site.server.peers) == 1


@both_kinds
async def test_tokens_are_sent_and_never_shown(
    kind: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """From the argument or INFERD_TOKEN; a token that is no header text is refused without its value."""
    async with Both(kind, site.unix) as client:
        with pytest.raises(errors.Unauthenticated, match="who are you"):
            await client.call("server_metadata")
        assert "authorization" not in site.server.headers[-1]
    monkeypatch.setenv("INFERD_TOKEN", TOKEN)
    async with Both(kind, site.unix) as client:
        await client.call("server_metadata")
    with pytest.raises(errors.Unauthenticated) as caught:
        Both(kind, site.unix, token="secret\r\nX: y")
    assert "secret" not in str(caught.value)


@both_kinds
async def test_inputs_that_cannot_be_sent_are_refused_here(kind: str, site: Site) -> None:
    """Nothing goes over the wire."""
    async with Both(kind, site.unix, token=TOKEN) as client:
        for value in (np.zeros(1, np.complex64), [object()], [[1, 2], [3]]):
            with pytest.raises(errors.InvalidRequest):
                await client.call("infer", "echo", {"x": value})
    assert not site.server.requests


def test_threads_share_a_bounded_pool(site: Site) -> None:
    """Twelve threads, three connections, and every answer is the caller's own."""
    with Client(site.unix, token=TOKEN, max_connections=3) as client, ThreadPoolExecutor(12) as pool:

        def ask(value: int) -> int:
            return int(client.infer("echo", {"x": np.array([value])})["x"][0])

        assert list(pool.map(ask, range(120))) == list(range(120))
    assert len(site.server.peers) <= 3


async def test_tasks_share_a_bounded_pool(site: Site) -> None:
    """As with threads."""
    async with AsyncClient(site.unix, token=TOKEN, max_connections=3) as client:

        async def ask(value: int) -> int:
            return int((await client.infer("echo", {"x": np.array([value])}))["x"][0])

        assert await asyncio.gather(*(ask(value) for value in range(120))) == list(range(120))
    assert len(site.server.peers) <= 3


def test_the_package_is_light() -> None:
    """`import inferd` takes in neither engines nor HTTP libraries, and knows nothing of our other packages."""
    import subprocess
    import sys

    code = "import inferd, sys; print(' '.join(sys.modules)); from inferd import Client; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    bare, with_client = (set(line.split()) for line in done.stdout.splitlines())
    heavy = {"aiohttp", "onnxruntime", "openvino", "inferd_agent", "inferd_runtime", "cryptography", "psutil"}
    assert not bare & (heavy | {"numpy", "ssl"})
    assert not with_client & heavy


def test_unknown_names_are_attribute_errors() -> None:
    """The lazy import answers only for what the package has."""
    import inferd

    missing: Any = "Missing"
    with pytest.raises(AttributeError, match="no attribute 'Missing'"):
        getattr(inferd, missing)
