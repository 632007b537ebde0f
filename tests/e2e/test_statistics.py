"""Statistics add up whatever happened, by REST and gRPC together: every well-formed request is counted once, and under
what its caller was told.
"""

from __future__ import annotations

import json
import select
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.grpc import service_pb2 as pb

from tests import onnx_models
from tests.e2e.daemon import Daemon, until
from tests.e2e.raw import answer, connected, request

INFER = "/inference.GRPCInferenceService/ModelInfer"
LONG = 20_000  # turns: a second or more
CALLERS = 6
CODES = {200: "OK", 400: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 504: "DEADLINE_EXCEEDED"}
KINDS = {
    "OK": "inferences",
    "INTERNAL": "inference_failures",
    "RESOURCE_EXHAUSTED": "inference_rejections",
    "DEADLINE_EXCEEDED": "inference_late",
}


@dataclass(frozen=True, slots=True)
class Site:
    """A daemon, and its two sockets without TLS."""

    daemon: Daemon
    rest: str
    channel: grpc.Channel
    metadata: tuple[tuple[str, str], ...]

    def counted(self, name: str, model: str) -> int:
        """A counter of one model."""
        with self.daemon.client() as client:
            families = text_string_to_metric_families(client.metrics())
        samples = [each for family in families for each in family.samples if each.name == f"inferd_{name}_total"]
        return int(sum(each.value for each in samples if each.labels["model"] == model))

    def under_way(self) -> int:
        """Requests that wait or run, of all models."""
        with self.daemon.client() as client:
            families = {each.name: each for each in text_string_to_metric_families(client.metrics())}
        return sum(int(families[f"inferd_{name}_jobs"].samples[0].value) for name in ("queued", "running"))

    def call(self, message: bytes) -> Any:
        """A call under way."""
        infer = self.channel.unary_unary(INFER)
        return infer.future(message, metadata=self.metadata, timeout=60)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """looping, of which four may wait, and faulting."""
    folder = tmp_path_factory.mktemp("s")
    onnx_models.looping(folder / "models" / "looping" / "1" / "model.onnx", width=128)
    onnx_models.faulting(folder / "models" / "faulting" / "1" / "model.onnx")
    (folder / "models" / "faulting" / "model.toml").write_text('engine = "onnxruntime"\n')
    rest, place = str(folder / "r"), str(folder / "g")
    listen = (f"unix:{rest}?tls=off", f"grpc+unix:{place}?tls=off")
    env = {"INFERD_RUNTIME_MAX_JOBS": "4"}
    with Daemon(folder, listen=listen, env=env) as daemon, grpc.insecure_channel(f"unix:{place}") as channel:
        yield Site(daemon, rest, channel, (("authorization", f"Bearer {daemon.token()}"),))


def rest_request(model: str, name: str, array: np.ndarray, timeout_us: int = 0) -> bytes:
    """As JSON."""
    given = {"name": name, "shape": array.shape, "datatype": "INT64", "data": array.ravel().tolist()}
    body = {"inputs": [given], "parameters": {"timeout": timeout_us} if timeout_us else {}}
    return request("POST", f"/v2/models/{model}/infer", json.dumps(body).encode())


def grpc_request(model: str, name: str, array: np.ndarray, timeout_us: int = 0) -> bytes:
    """Raw."""
    message = pb.ModelInferRequest(model_name=model, raw_input_contents=[array.tobytes()])
    message.inputs.add(name=name, datatype="INT64", shape=array.shape)
    if timeout_us:
        message.parameters["timeout"].int64_param = timeout_us
    return bytes(message.SerializeToString())


def ask(site: Site, is_grpc: bool, model: str, name: str, array: np.ndarray, timeout_us: int = 0) -> str:
    """One request, and the code that it came back with."""
    if is_grpc:
        return str(site.call(grpc_request(model, name, array, timeout_us)).code().name)
    with connected(site.rest, timeout_s=60) as connection:
        connection.sendall(rest_request(model, name, array, timeout_us))
        return CODES[answer(connection)[0]]


def adds_up(site: Site, model: str, told: Counter[str], left: int = 0) -> None:
    """The counters are what callers were told; who left is a success only where the answer was made before."""
    until(lambda: site.under_way() == 0)
    found = {code: site.counted(name, model) for code, name in KINDS.items()}
    cancelled = site.counted("inference_cancellations", model)
    assert {code: found[code] for code in KINDS if code != "OK"} == {code: told[code] for code in KINDS if code != "OK"}
    assert found["OK"] + cancelled == told["OK"] + left
    assert cancelled <= left
    with site.daemon.client() as client:
        [stats] = client.stats(model)["model_stats"]
    sums, batches = stats["inference_stats"], stats["batch_stats"]
    assert sums["success"]["count"] == found["OK"]
    assert sums["success"]["count"] + sums["fail"]["count"] == sum(told.values()) + left
    for stage in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert sums[stage]["count"] == found["OK"]
    assert sum(each["compute_infer"]["count"] for each in batches) == stats["execution_count"]
    assert sum(each["compute_infer"]["count"] * each["batch_size"] for each in batches) == stats["inference_count"]


def test_a_full_queue_and_callers_that_leave(site: Site) -> None:
    """More callers than may wait: some are refused, the others leave in the middle, more come too late."""
    turns, told = np.array([LONG]), Counter[str]()
    with ExitStack() as stack:
        sockets = [stack.enter_context(connected(site.rest, timeout_s=60)) for _ in range(CALLERS)]
        for each in sockets:
            each.sendall(rest_request("looping", "turns", turns))
        calls = [site.call(grpc_request("looping", "turns", turns)) for _ in range(CALLERS)]
        settled = ("inferences", "inference_rejections")

        def all_are_seen() -> bool:
            """And whoever has an answer knows it."""
            done = sum(site.counted(name, "looping") for name in settled)
            answered = len(readable(sockets)) + sum(call.done() for call in calls)
            return done == answered and done + site.under_way() == 2 * CALLERS

        until(all_are_seen)
        has_answer = readable(sockets)
        told.update(CODES[answer(each)[0]] for each in has_answer)
        told.update(call.code().name for call in calls if not call.cancel())
        left = 2 * CALLERS - told.total()
    for is_grpc in (True, False):
        told[ask(site, is_grpc, "looping", "turns", turns, timeout_us=1)] += 1
    assert told["RESOURCE_EXHAUSTED"] > 0
    assert told["DEADLINE_EXCEEDED"] == 2
    assert left > 0
    adds_up(site, "looping", told, left)


def readable(sockets: list[socket.socket]) -> list[socket.socket]:
    """Where an answer has come."""
    return select.select(sockets, [], [], 0)[0]


def test_successes_faults_and_refusals_in_batches(site: Site) -> None:
    """Side by side and of one to three rows; what is malformed reaches no model and is counted nowhere. The queue may
    be full for some."""

    def one(number: int) -> str:
        rows, kind, is_grpc = 1 + number % 3, number % 5, bool(number % 2)
        index = np.full((rows, 1), 99 if kind == 3 else 3)
        return ask(site, is_grpc, "faulting", "wrong" if kind == 4 else "index", index)

    with ThreadPoolExecutor(8) as pool:
        codes = Counter(pool.map(one, range(100)))
    assert codes["INVALID_ARGUMENT"] == 20
    assert codes["INTERNAL"] > 0
    assert codes["INTERNAL"] + codes["RESOURCE_EXHAUSTED"] + codes["OK"] == 80
    del codes["INVALID_ARGUMENT"]
    adds_up(site, "faulting", codes)
