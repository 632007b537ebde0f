"""Texts into jobs: every text once, rows and widths bounded, nothing filled up that a model would read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_agent.embedding import pack
from inferd_runtime import Embedding, InvalidRequest, ModelSpec, TensorSpec

HIDDEN = TensorSpec("hidden", np.dtype(np.float32), (-1, -1, 4))
EMBEDDING = Embedding(b"", "hidden", "mean", True, 40, False)


def spec(*names: str, width: int = -1, dtype: type = np.int64) -> ModelSpec:
    return ModelSpec(tuple(TensorSpec(name, np.dtype(dtype), (-1, width)) for name in names), (HIDDEN,), 64)


MASKED, BARE = spec("input_ids", "attention_mask"), spec("input_ids")
TEXTS = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=40), min_size=1, max_size=30)


@given(TEXTS, st.integers(1, 9), st.sampled_from([MASKED, BARE]))
def test_every_text_is_in_one_part_as_it_came(texts: list[list[int]], rows: int, model: ModelSpec) -> None:
    """Whatever the lengths: the ids under the mask are the text's own, and no part is larger than asked."""
    found: dict[int, list[int]] = {}
    for part in pack(texts, model, EMBEDDING, rows):
        ids = part.inputs["input_ids"]
        assert ids.shape == part.mask.shape
        assert len(ids) == len(part.places) <= rows
        assert ids.shape[1] <= EMBEDDING.max_tokens
        assert not any(array.flags.writeable for array in part.inputs.values())
        if model is BARE:
            assert part.mask.all()
        for place, row, mask in zip(part.places, ids, part.mask, strict=True):
            assert place not in found
            found[place] = row[mask == 1].tolist()
    assert [found[place] for place in range(len(texts))] == texts


def test_texts_of_about_one_length_share_a_shape() -> None:
    """Widths are multiples of 16, and never more than the model takes."""
    parts = list(pack([[1], [2] * 16, [3] * 17, [4] * 39], MASKED, EMBEDDING, 8))
    assert [(part.places, part.mask.shape) for part in parts] == [([0, 1], (2, 16)), ([2], (1, 32)), ([3], (1, 40))]


def test_inputs_are_what_the_model_takes() -> None:
    """In its own integers, and none that it does not know."""
    [part] = pack([[1, 2]], spec("token_type_ids", "input_ids", "attention_mask", dtype=np.int32), EMBEDDING, 8)
    assert set(part.inputs) == {"input_ids", "attention_mask", "token_type_ids"}
    assert {array.dtype for array in part.inputs.values()} == {np.dtype(np.int32)}
    assert not part.inputs["token_type_ids"].any()


def test_a_fixed_width_is_kept() -> None:
    """Shorter texts are filled up where there is a mask; longer ones, and any others without one, are refused."""
    [part] = pack([[1, 2]], spec("input_ids", "attention_mask", width=8), EMBEDDING, 8)
    assert part.mask.tolist() == [[1, 1, 0, 0, 0, 0, 0, 0]]
    with pytest.raises(InvalidRequest, match="input 0: it has 9 tokens, the model's inputs are 8 wide"):
        list(pack([[1] * 9], spec("input_ids", "attention_mask", width=8), EMBEDDING, 8))
    with pytest.raises(InvalidRequest, match="8 wide"):
        list(pack([[1] * 7], spec("input_ids", width=8), EMBEDDING, 8))
