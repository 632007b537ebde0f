"""KServe's V1 protocol and TensorFlow Serving's REST API: predictions, status and metadata under `/v1/models/{m}`.

The same jobs as every other inference makes. Status answers both key sets in one object, since clients read their own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

from inferd.protocol import Request
from inferd.protocol.messages import encode
from inferd.protocol.v1 import (
    ModelSpecBody,
    Prediction,
    SignatureBody,
    StatusBody,
    VersionError,
    VersionStatus,
    decode_predict,
    encode_predict,
)
from inferd_agent import views
from inferd_agent.bridge import Bridge
from inferd_agent.inference import job_of
from inferd_agent.rest.answers import Answer, json_answer
from inferd_agent.rest.bodies import Bodies, Body
from inferd_agent.rest.call import Call
from inferd_agent.rest.headers import TIMEOUT
from inferd_agent.rest.routes import Endpoint, Target
from inferd_runtime import ModelDescription, State, TensorSpec

# From this much JSON on, reading and writing it leaves the loop.
_LONG_JSON_BYTES = 64 << 10
_LONG_JSON_ELEMENTS = 8 << 10
_READ = ("read", "infer")
_STATES = {
    State.READY: "AVAILABLE",
    State.LOADING: "LOADING",
    State.DRAINING: "UNLOADING",
    State.UNLOADED: "END",
    State.FAILED: "END",
}
_DTYPES = {
    "BOOL": "DT_BOOL", "UINT8": "DT_UINT8", "UINT16": "DT_UINT16", "UINT32": "DT_UINT32", "UINT64": "DT_UINT64",
    "INT8": "DT_INT8", "INT16": "DT_INT16", "INT32": "DT_INT32", "INT64": "DT_INT64", "FP16": "DT_HALF",
    "BF16": "DT_BFLOAT16", "FP32": "DT_FLOAT", "FP64": "DT_DOUBLE", "BYTES": "DT_STRING",
}  # fmt: skip
T = TypeVar("T")


class V1:
    """Answers V1 requests; `allowed_ns` tells how long one may take, given its timeout header."""

    def __init__(
        self, bridge: Bridge, bodies: Bodies, pool: Executor, *, allowed_ns: Callable[[str | None], int]
    ) -> None:
        self._bridge = bridge
        self._bodies = bodies
        self._pool = pool
        self._allowed_ns = allowed_ns

    def table(self) -> dict[str, Endpoint]:
        """The paths."""
        found = {"/": Endpoint("health", "GET", self.alive, None)}
        for model in ("/v1/models/{m}", "/v1/models/{m}/versions/{n}"):
            found[f"{model}:predict"] = Endpoint("predict", "POST", self.predict, ("infer",))
            found[model] = Endpoint("status", "GET", self.status, _READ)
            found[f"{model}/metadata"] = Endpoint("signature", "GET", self.metadata, _READ)
        return found

    async def alive(self, call: Call, target: Target) -> Answer:
        """KServe's clients ask the bare address whether somebody is there."""
        return json_answer(b'{"status":"alive"}')

    async def predict(self, call: Call, target: Target) -> Answer:
        """Rows or columns in, rows or columns out."""
        arrived_ns = time.monotonic_ns()
        within_ns = self._allowed_ns(call.message.headers.get(TIMEOUT))
        body = await self._bodies.read(call)
        description = self._bridge.runtime.describe(target.model, _version(target))
        datatypes = {tensor.name: tensor.datatype for tensor in views.spec_of(description).inputs}
        is_long = len(body) >= _LONG_JSON_BYTES
        prediction: Prediction = await self._maybe_off_loop(is_long, decode_predict, body, datatypes)
        job = job_of(
            Request(inputs=prediction.inputs), call.principal, target.model, description.version,
            arrived_ns=arrived_ns, within_ns=within_ns, request_id=call.id,
        )  # fmt: skip
        result = await self._bridge.infer(job)
        is_long = sum([array.size for array in result.values()]) >= _LONG_JSON_ELEMENTS
        return json_answer(await self._maybe_off_loop(is_long, encode_predict, prediction, result))

    async def status(self, call: Call, target: Target) -> Answer:
        """Whether it is ready, for KServe's clients, and the state of each version, for TensorFlow Serving's."""
        chosen = self._bridge.runtime.describe(target.model, _version(target))
        versions = [
            _version_status(each)
            for each in self._bridge.runtime.models()
            if each.name == target.model and _version(target) in (None, each.version)
        ]
        told = StatusBody(
            id=target.model, name=target.model, ready=chosen.state is State.READY, model_version_status=versions[::-1]
        )
        return json_answer(encode(told))

    async def metadata(self, call: Call, target: Target) -> Answer:
        """Inputs and outputs as the signature `serving_default`."""
        description = self._bridge.runtime.describe(target.model, _version(target))
        spec = views.spec_of(description)
        signature = {
            "inputs": {tensor.name: _tensor(tensor) for tensor in spec.inputs},
            "outputs": {tensor.name: _tensor(tensor) for tensor in spec.outputs},
            "method_name": "tensorflow/serving/predict",
        }
        found = {"signature_def": {"signature_def": {"serving_default": signature}}}
        return json_answer(encode(SignatureBody(ModelSpecBody(target.model, str(description.version)), found)))

    async def _maybe_off_loop(self, is_long: bool, act: Callable[..., T], *given: Body | Any) -> T:
        if not is_long:
            return act(*given)
        return await asyncio.get_running_loop().run_in_executor(self._pool, act, *given)


def _version(target: Target) -> int | None:
    """The version that is named; clients of OpenVINO Model Server name 0 where they mean none."""
    return target.version or None


def _version_status(description: ModelDescription) -> VersionStatus:
    code = "UNKNOWN" if description.state is State.FAILED else "OK"
    return VersionStatus(str(description.version), _STATES[description.state], VersionError(code, description.reason))


def _tensor(tensor: TensorSpec) -> dict[str, Any]:
    return {
        "dtype": _DTYPES[tensor.datatype],
        "tensor_shape": {"dim": [{"size": str(dim), "name": ""} for dim in tensor.shape], "unknown_rank": False},
        "name": tensor.name,
    }
