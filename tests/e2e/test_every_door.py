"""Triton's four clients at every door that each can go through: every tensor, versions, refusals, repository control,
statistics, shared memory."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tritonclient.utils import InferenceServerException, shared_memory

from inferd_agent.demo import MODELS as DEMO_MODELS
from tests import onnx_models
from tests.e2e.doors import PLACES, Caller, Doors

pytestmark = pytest.mark.filterwarnings("default")

BINARY_ONLY = ("FP16", "BF16")
NUMBERS = {
    "INVALID_ARGUMENT": "400", "ALREADY_EXISTS": "400", "UNAUTHENTICATED": "401", "PERMISSION_DENIED": "403",
    "NOT_FOUND": "404", "UNAVAILABLE": "503",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Site:
    """A daemon with all doors, and its tokens."""

    doors: Doors
    token: str
    reader: str
    other: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """digits, same_<datatype> for all datatypes, wide (any float row plus one), two versions of both."""
    folder = tmp_path_factory.mktemp("e")
    models = folder / "models"
    shutil.copytree(DEMO_MODELS, models)
    for name in onnx_models.DATATYPES:
        onnx_models.identity(models / f"same_{name}.onnx", name, ("N", "W"))
        (models / f"same_{name}.toml").write_text('engine = "onnxruntime"\n')  # OpenVINO has no 64 bits
    onnx_models.dynamic_width(models / "wide.onnx")
    for version in (1, 2):
        onnx_models.mlp(models / "both" / str(version) / "model.onnx", features=8 * version)
    (models / "both" / "model.toml").write_text('versions = "all"\n')
    doors = Doors(folder, models, env={"INFERD_SHARED_MEMORY_SYSTEM": "true"})
    with doors.daemon as daemon:
        yield Site(doors, daemon.token("a", "infer,read,admin"), daemon.token("b", "read"), daemon.token("c", "infer"))


@pytest.fixture(params=PLACES, ids="-".join)
def caller(request: pytest.FixtureRequest, site: Site) -> Iterator[Caller]:
    """Each client at each of its doors."""
    with site.doors.caller(*request.param, site.token) as caller:
        yield caller


def tensor(caller: Caller, array: np.ndarray, datatype: str = "FP32", **more: Any) -> Any:
    found = caller.module.InferInput("x", list(array.shape), datatype)
    found.set_data_from_numpy(array, **more)
    return found


def echo(caller: Caller, array: np.ndarray, datatype: str, is_binary: bool) -> np.ndarray:
    """What comes back of an array, by REST as JSON or binary; text as bytes."""
    form = {"binary_data": is_binary} if caller.is_http else {}
    wanted = caller.module.InferRequestedOutput("y", **form)
    answer = caller.ask("infer", f"same_{datatype}", [tensor(caller, array, datatype, **form)], outputs=[wanted])
    got: np.ndarray = answer.as_numpy("y")
    if got.dtype != object:
        return got
    flat = [each.encode() if isinstance(each, str) else each for each in got.ravel().tolist()]
    return np.array(flat, object).reshape(got.shape)


def samples(datatype: str) -> list[np.ndarray]:
    """Values at the edges of a datatype, and none at all."""
    kind = onnx_models.DATATYPES[datatype]
    empty = np.empty((1, 0), kind)
    if datatype == "BYTES":
        return [np.array([["grüße".encode(), b""], [b"x" * 1000, "日本\0🎈".encode()]], object), empty]
    if datatype == "BOOL":
        return [np.array([[True, False], [False, True]]), empty]
    if kind.kind in "fV":
        of = ml_dtypes.finfo(kind)
        return [np.array([[of.max, of.min, of.tiny, -0.0, np.nan, np.inf, -np.inf]], kind), empty]
    limits = np.iinfo(kind)
    return [np.array([[limits.max, limits.min], [0, 1]], kind), empty]


def test_every_tensor_comes_back(caller: Caller) -> None:
    """Every datatype at its edges, NaN, text, nothing; FP16 and BF16 have no JSON form, which the client knows."""
    for datatype in onnx_models.DATATYPES:
        for sent in samples(datatype):
            for is_binary in (True, False) if caller.is_http and datatype not in BINARY_ONLY else (True,):
                array, got = sent, echo(caller, sent, datatype, is_binary)
                assert (got.shape, got.dtype == array.dtype or datatype == "BF16") == (array.shape, True)
                if array.dtype.kind in "fV":  # numpy's own NaN alone equals itself in a comparison
                    np.testing.assert_array_equal(np.signbit(got), np.signbit(array))
                    got, array = got.astype(np.float64), array.astype(np.float64)
                np.testing.assert_array_equal(got, array, f"{datatype}, binary: {is_binary}")


@pytest.mark.timeout(120)
def test_64_mebibytes_go_both_ways(caller: Caller) -> None:
    """And come back changed as the model changes them."""
    array = np.ones((1, 16 << 20), np.float32)
    wanted = [caller.module.InferRequestedOutput("y")]
    answer = caller.ask("infer", "wide", [tensor(caller, array)], outputs=wanted).as_numpy("y")
    assert answer.shape == array.shape
    assert (answer == 2).all()


def refused(caller: Caller, status: str, act: str, *given: Any, **more: Any) -> None:
    """A call fails with a status, in gRPC's words."""
    with pytest.raises(InferenceServerException) as refusal:
        caller.ask(act, *given, **more)
    expected = NUMBERS[status] if caller.is_http else f"StatusCode.{status}"
    assert refusal.value.status() == expected, refusal.value


def test_refusals_have_the_right_code(caller: Caller, site: Site) -> None:
    """Models, versions, names, shapes, datatypes; no token, a wrong one, one without the scope."""
    row = tensor(caller, np.ones((1, 8), np.float32))
    doubles = tensor(caller, np.ones((1, 8)), "FP64")
    refused(caller, "NOT_FOUND", "infer", "nobody", [row])
    refused(caller, "NOT_FOUND", "infer", "both", [row], model_version="9")
    refused(caller, "INVALID_ARGUMENT", "infer", "both", [row])  # the newest has 16 features
    refused(caller, "INVALID_ARGUMENT", "infer", "wide", [doubles])
    refused(caller, "INVALID_ARGUMENT", "infer", "wide", [row], sequence_id=7)
    if not caller.is_known:
        refused(caller, "UNAUTHENTICATED", "infer", "wide", [row], token="")
    refused(caller, "UNAUTHENTICATED", "infer", "wide", [row], token="ifd_aaaaaaaa_b")
    refused(caller, "PERMISSION_DENIED", "infer", "wide", [row], token=site.reader)
    refused(caller, "PERMISSION_DENIED", "unload_model", "wide", token=site.reader)


def test_versions_control_and_statistics(caller: Caller) -> None:
    """A version that is named answers; unloaded it refuses, loaded it serves; each success is counted."""
    for version, features in (("1", 8), ("2", 16), ("", 16)):
        given = tensor(caller, np.ones((1, features), np.float32))
        before = counted(caller, "both", version or "2")
        answer = caller.ask("infer", "both", [given], model_version=version)
        assert answer.as_numpy("probabilities").shape == (1, 10)
        assert counted(caller, "both", version or "2") == before + 1
    caller.ask("unload_model", "both")
    assert not caller.ask("is_model_ready", "both")
    refused(caller, "UNAVAILABLE", "infer", "both", [given])
    caller.ask("load_model", "both")
    assert caller.ask("is_model_ready", "both", "1")
    caller.ask("infer", "both", [given])


def counted(caller: Caller, model: str, version: str) -> int:
    """Successes so far."""
    more = {} if caller.is_http else {"as_json": True}
    [stats] = caller.ask("get_inference_statistics", model, version, **more)["model_stats"]
    return int(stats["inference_stats"]["success"].get("count", 0))


def test_shared_memory(caller: Caller, site: Site) -> None:
    """In and out of a region, and what is not the caller's or not within it is refused."""
    key = f"inferd-test-door-{os.getpid()}"
    region = shared_memory.create_shared_memory_region("r", key, 4096, create_only=True)
    try:
        shared_memory.set_shared_memory_region(region, [np.arange(8, dtype=np.float32)])
        caller.ask("register_system_shared_memory", "r", key, 4096)
        refused(caller, "ALREADY_EXISTS", "register_system_shared_memory", "r", key, 4096)
        refused(caller, "INVALID_ARGUMENT", "register_system_shared_memory", "s", "../" + key, 8)
        given = caller.module.InferInput("x", [1, 8], "FP32")
        given.set_shared_memory("r", 32)
        wanted = caller.module.InferRequestedOutput("y")
        wanted.set_shared_memory("r", 32, 1024)
        caller.ask("infer", "wide", [given], outputs=[wanted])
        got = shared_memory.get_contents_as_numpy(region, np.float32, [8], 1024)
        np.testing.assert_array_equal(got, np.arange(8) + 1)
        refused(caller, "NOT_FOUND", "infer", "wide", [given], token=site.other)
        given.set_shared_memory("r", 32, 4080)
        refused(caller, "INVALID_ARGUMENT", "infer", "wide", [given])
        caller.ask("unregister_system_shared_memory", "r")
        refused(caller, "NOT_FOUND", "infer", "wide", [given])
    finally:
        caller.ask("unregister_system_shared_memory")
        shared_memory.destroy_shared_memory_region(region)
        with suppress(FileNotFoundError):
            (Path("/dev/shm") / key).unlink()


def test_the_examples_of_the_docs_work(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """As they stand, but for address, certificate and token: by messages and by shared memory the answers are equal."""
    page = (Path(__file__).resolve().parents[2] / "docs/protocol.md").read_text()
    code = "".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    told = site.doors.options("grpc", "tls")
    for word, ours in (
        ("localhost:8471", told["url"]), ("state/tls/ca.pem", told["root_certificates"]), ("ifd_...", site.token),
        ("/tensors", f"/inferd-test-docs-{os.getpid()}"),
    ):  # fmt: skip
        assert word in code
        code = code.replace(word, ours)
    exec(code, {})
    sent, shared = capsys.readouterr().out.strip().split("]]\n")
    assert sent.startswith("[[")
    assert shared == f"{sent}]]"
