"""Free dimensions that settings fix: the spec of a model, narrowed. What the model itself fixes cannot be changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from inferd_runtime.errors import InvalidModel
from inferd_runtime.spec import ModelSpec
from inferd_runtime.tensor import TensorSpec


def narrowed(spec: ModelSpec, shapes: Mapping[str, tuple[int, ...]]) -> ModelSpec:
    """`spec` with the dimensions in `shapes`, by tensor name and without the batch. Raises InvalidModel where the model
    has no such tensor or other dimensions."""
    if not shapes:
        return spec
    known = {tensor.name for tensor in (*spec.inputs, *spec.outputs)}
    for name in shapes:
        if name not in known:
            raise InvalidModel(f"a shape is given for {name!r}, but the model's tensors are {', '.join(sorted(known))}")
    is_batched = spec.max_batch > 0
    return replace(
        spec,
        inputs=tuple(_narrowed(tensor, shapes, is_batched) for tensor in spec.inputs),
        outputs=tuple(_narrowed(tensor, shapes, is_batched) for tensor in spec.outputs),
    )


def _narrowed(tensor: TensorSpec, shapes: Mapping[str, tuple[int, ...]], is_batched: bool) -> TensorSpec:
    wanted = shapes.get(tensor.name)
    if wanted is None:
        return tensor
    own = tensor.shape[is_batched:]
    if len(own) != len(wanted) or any(a >= 0 and b >= 0 and a != b for a, b in zip(own, wanted, strict=True)):
        behind = " behind its batch dimension" if is_batched else ""
        raise InvalidModel(f"shape {list(wanted)} is given for {tensor.name!r}, which is {list(own)}{behind}")
    fixed = tuple(a if a >= 0 else b for a, b in zip(own, wanted, strict=True))
    return replace(tensor, shape=tensor.shape[:is_batched] + fixed)
