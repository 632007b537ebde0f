"""Token ids of many texts into jobs' inputs: texts of about one length share an array, filled up behind a mask.

Widths are multiples of a step, so that texts of different requests have the same shape and can share a batch. A model
without a mask would read what fills up, so its texts are only put together where they are equally long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inferd_runtime import Embedding, InvalidRequest, ModelDescription, ModelSpec

Array = np.ndarray[Any, Any]
_STEP = 16


@dataclass(frozen=True, slots=True)
class Part:
    """Some texts as one job's inputs: `places` of the texts in the request, `mask` of the tokens that count."""

    places: list[int]
    mask: Array
    inputs: Mapping[str, Array]


def rows_together(description: ModelDescription) -> int:
    """How many texts go into one job: what the plan gathers into a batch, so that others get their turn."""
    spec, plan = description.spec, description.plan
    return max(1, min(plan.batch if plan else 1, spec.max_batch if spec else 1))


def pack(texts: Sequence[Sequence[int]], spec: ModelSpec, embedding: Embedding, rows: int) -> Iterator[Part]:
    """Every text in one part, at most `rows` in each, short ones first. Raises InvalidRequest."""
    widths = [_width(len(ids), place, spec, embedding) for place, ids in enumerate(texts)]
    order = sorted(range(len(texts)), key=widths.__getitem__)
    begin = 0
    for at, place in enumerate(order):
        if at - begin >= rows or widths[place] != widths[order[begin]]:
            yield _part(texts, order[begin:at], widths[order[begin]], spec)
            begin = at
    yield _part(texts, order[begin:], widths[order[begin]], spec)


def _width(length: int, place: int, spec: ModelSpec, embedding: Embedding) -> int:
    """How many tokens wide the array of a text is."""
    has_mask = any(tensor.name == "attention_mask" for tensor in spec.inputs)
    for tensor in spec.inputs:
        fixed = tensor.shape[1]
        if fixed > 0 and (length > fixed or (length < fixed and not has_mask)):
            raise InvalidRequest(f"input {place}: it has {length} tokens, the model's inputs are {fixed} wide")
        if fixed > 0:
            return fixed
    return min(-(-length // _STEP) * _STEP, embedding.max_tokens) if has_mask else length


def _part(texts: Sequence[Sequence[int]], places: list[int], width: int, spec: ModelSpec) -> Part:
    ids = np.zeros((len(places), width), np.int64)
    mask = np.zeros((len(places), width), np.int64)
    for row, place in enumerate(places):
        text = texts[place]
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    filled = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    inputs = {tensor.name: filled[tensor.name].astype(tensor.dtype) for tensor in spec.inputs}
    for array in inputs.values():
        array.flags.writeable = False
    return Part(places, mask, inputs)
