"""Runs in the container, on inferd's own Python: inferences by gRPC, and by gRPC with an object under /dev/shm.

Takes the socket's path and a token, and fails where an answer is not the right one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from inferd_agent.demo.digits import INPUT, MODEL, OUTPUT, held_out
from inferd_agent.grpc import messages

Ask = Callable[..., Any]
ROWS = 8
KEY = f"inferd-test-{os.getpid()}"


def main(path: str, token: str) -> None:
    """Everything, one after the other."""
    digits = held_out()
    images, labels = digits.inputs()[:ROWS], digits.labels[:ROWS]
    trusted = grpc.ssl_channel_credentials(Path(f"{path}.ca.pem").read_bytes())
    name = [("grpc.ssl_target_name_override", "localhost")]
    with grpc.secure_channel(f"unix:{path}", trusted, name) as channel:

        def ask(method: str, **given: Any) -> Any:
            call = channel.unary_unary(
                f"/inference.GRPCInferenceService/{method}",
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=getattr(messages, f"{method}Response").FromString,
            )
            request = getattr(messages, f"{method}Request")(**given)
            return call(request, metadata=[("authorization", f"Bearer {token}")], timeout=60, wait_for_ready=True)

        check(infer(ask, raw_input_contents=[images.tobytes()]), labels)
        check(by_key(ask, images), labels)
        assert "Permission denied" in refusal(ask, images)


def infer(ask: Ask, placed: dict[str, Any] | None = None, **more: Any) -> np.ndarray:
    """The scores of one inference."""
    image = {"name": INPUT, "datatype": "FP32", "shape": [ROWS, 1, 8, 8], "parameters": placed or {}}
    answer = ask("ModelInfer", model_name=MODEL, inputs=[image], outputs=[{"name": OUTPUT}], **more)
    return np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(ROWS, -1)


def by_key(ask: Ask, images: np.ndarray) -> np.ndarray:
    """The same with the images in an object that everybody may open."""
    register(ask, images, mode=0o666)
    place = {"shared_memory_region": {"string_param": "r"}, "shared_memory_byte_size": {"int64_param": images.nbytes}}
    scores = infer(ask, place)
    ask("SystemSharedMemoryUnregister", name="r")
    return scores


def refusal(ask: Ask, images: np.ndarray) -> str:
    """What is said of an object of mode 0600, which the daemon's user may not open; empty where it is taken."""
    try:
        register(ask, images, mode=0o600)
    except grpc.RpcError as error:
        return str(error.details())
    return ""


def register(ask: Ask, images: np.ndarray, *, mode: int) -> None:
    """Fill an object and register it as `r`; its name is gone afterwards."""
    path = Path("/dev/shm", KEY)
    path.write_bytes(images.tobytes())
    path.chmod(mode)
    try:
        ask("SystemSharedMemoryRegister", name="r", key=KEY, byte_size=images.nbytes)
    finally:
        path.unlink()


def check(scores: np.ndarray, labels: np.ndarray) -> None:
    """The scores are those of the digits."""
    assert scores.argmax(axis=1).tolist() == labels.tolist(), scores


main(*sys.argv[1:])
