"""Run with the interpreter of kserve's environment: asks a daemon everything that kserve's client can ask, and prints
what came back as one line of JSON. What to ask whom stands in one JSON object on standard input, the token too.

`url`, and for REST `socket` and `protocol`, say where; `ca` asks for TLS. What failed is told as the text of its error.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import Awaitable
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

Spec = dict[str, Any]


def request(model: str, datatype: str, array: np.ndarray, *, is_binary: bool, output: str = "") -> InferRequest:
    """One tensor to one model."""
    given = InferInput("x", list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=is_binary)
    wanted = [RequestedOutput(output, {"binary_data": is_binary})] if output else None
    return InferRequest(model, [given], request_id="r1", request_outputs=wanted)


async def told(call: Awaitable[Any]) -> Any:
    """A result, or what its error says."""
    try:
        return await call
    except httpx.HTTPStatusError as error:
        return str(error)
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"


class Rest:
    """InferenceRESTClient with the protocol v2."""

    def __init__(self, spec: Spec, protocol: str = "v2") -> None:
        verify = ssl.create_default_context(cafile=spec["ca"]) if spec["ca"] else True
        transport = httpx.AsyncHTTPTransport(uds=spec["socket"], verify=verify) if spec["socket"] else None
        self.client = InferenceRESTClient(RESTConfig(transport=transport, protocol=protocol, verify=verify))
        self.url, self.token = spec["url"], spec["token"]

    def headers(self, token: str | None = None) -> dict[str, str]:
        """Fresh ones: the client writes into what it is given."""
        return {"Authorization": f"Bearer {self.token if token is None else token}"}

    async def infer(self, asked: InferRequest, token: str | None = None) -> Any:
        return await self.client.infer(self.url, asked, asked.model_name, headers=self.headers(token))

    async def health(self) -> list[bool]:
        return [await self.client.is_server_live(self.url), await self.client.is_server_ready(self.url)]

    async def model_ready(self, model: str) -> bool:
        return bool(await self.client.is_model_ready(self.url, model, headers=self.headers()))


class Grpc:
    """InferenceGRPCClient."""

    def __init__(self, spec: Spec) -> None:
        options = [("grpc.ssl_target_name_override", "localhost")] if spec["ca"] else None
        self.client = InferenceGRPCClient(
            spec["url"], use_ssl=bool(spec["ca"]), root_certificates=spec["ca"], channel_args=options
        )
        self.token = spec["token"]

    def headers(self, token: str | None = None) -> list[tuple[str, str]]:
        """Metadata with a token."""
        return [("authorization", f"Bearer {self.token if token is None else token}")]

    async def infer(self, asked: InferRequest, token: str | None = None) -> Any:
        return await self.client.infer(asked, headers=self.headers(token))

    async def health(self) -> list[bool]:
        return [await self.client.is_server_live(), await self.client.is_server_ready()]

    async def model_ready(self, model: str) -> bool:
        return bool(await self.client.is_model_ready(model, headers=self.headers()))


async def report(door: Rest | Grpc, spec: Spec) -> Spec:
    """Health, models, the same row each way, every datatype, and what goes wrong."""
    row = np.array(spec["row"], np.float32)
    found: Spec = {
        "health": await door.health(),
        "ready": [await told(door.model_ready(model)) for model in ("mlp", "nope")],
        "datatypes": {name: await same(door, name) for name in spec["datatypes"]},
    }
    for name, is_binary, output in (("binary", True, ""), ("plain", False, ""), ("asked", True, "probabilities")):
        answer = await door.infer(request("mlp", "FP32", row, is_binary=is_binary, output=output))
        found[name] = {
            "id": answer.id, "model": answer.model_name, "version": answer.model_version,
            "values": answer.outputs[0].as_numpy().tolist(),
        }  # fmt: skip
    unknown = request("nope", "FP32", row, is_binary=True)
    narrow = request("mlp", "FP32", row[:, :5], is_binary=True)
    found["errors"] = [await told(door.infer(asked)) for asked in (unknown, narrow)]
    found["stranger"] = await told(door.infer(request("mlp", "FP32", row, is_binary=True), token="ifd_x_y"))
    return found


async def same(door: Rest | Grpc, datatype: str) -> list[bool]:
    """Whether values come back from an identity model as they went: in binary, and as JSON or typed contents."""
    kinds = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BOOL": np.bool_, "BYTES": np.object_}
    values = ["grüße".encode(), b"", b"x" * 300, b"y"] if datatype == "BYTES" else [0, 1, 2, 100]
    array = np.array([values], kinds.get(datatype) or np.dtype(datatype.lower()))
    equal = []
    for is_binary in (True, False)[: 1 if datatype == "FP16" else 2]:
        answer = await door.infer(request(f"same_{datatype.lower()}", datatype, array, is_binary=is_binary, output="y"))
        got = answer.outputs[0].as_numpy().ravel().tolist()
        equal.append([each.encode() if isinstance(each, str) else each for each in got] == array.ravel().tolist())
    return equal


async def report_v1(spec: Spec) -> Spec:
    """The older protocol, which is REST's alone."""
    door = Rest(spec, "v1")
    predict = {"instances": spec["row"]}
    return {
        "live": await door.client.is_server_live(door.url),
        "ready": [await told(door.model_ready(model)) for model in ("mlp", "nope")],
        "predictions": await door.client.infer(door.url, predict, "mlp", headers=door.headers()),
        "error": await told(door.client.infer(door.url, {"instances": []}, "mlp", headers=door.headers())),
    }


async def main() -> None:
    """Read what to do, do it, print the report."""
    spec: Spec = json.load(sys.stdin)
    door = Grpc(spec) if spec["kind"] == "grpc" else Rest(spec)
    found = await report(door, spec)
    if spec["kind"] == "rest":
        found["v1"] = await report_v1(spec)
    await door.client.close()
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main())
