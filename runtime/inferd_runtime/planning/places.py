"""Where a model file may run: which engines and devices can be tried, and why others cannot. Pure.

The static rule and the search both ask here, each in its own order.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from inferd_runtime.errors import InvalidModel
from inferd_runtime.planning.plan import Ground, Wishes

ORT = "onnxruntime"
OPENVINO = "openvino"


def asked_variants(variants: Mapping[str, Path], wishes: Wishes) -> list[str]:
    """The variant that is asked for; empty where none is. Raises InvalidModel for one that is not there."""
    if wishes.variant is None:
        return []
    if wishes.variant not in variants:
        there = ", ".join(repr(name) for name in sorted(variants))
        raise InvalidModel(f"variant {wishes.variant!r} is asked for, but there is only {there} ('' is the plain file)")
    return [wishes.variant]


def refusal(ground: Ground, engine_name: str, device: str, path: Path) -> str | None:
    """Why this cannot even be tried: None when it can, empty when that is not worth a word."""
    is_cuda = device.startswith(("cuda", "tensorrt"))
    engine = ground.engines.get(engine_name)
    if engine is None:
        return "" if is_cuda else ground.missing.get(engine_name, "not installed")
    is_there = device in engine.devices()
    if is_cuda and not (is_there or ground.has_cuda_gpu):
        return ""
    if not engine.reads(path):
        return f"{engine_name} does not read {path.suffix} files"
    if is_cuda and ground.cuda_refusal:
        return ground.cuda_refusal
    if not is_there:
        return f"the installed {engine_name} {engine.version} has only {', '.join(engine.devices())}"
    return None
