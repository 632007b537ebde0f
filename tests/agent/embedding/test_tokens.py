"""Tokenising: ids as the tokenizer gives them, limits told with the place of the text, long texts off the loop."""

from __future__ import annotations

import asyncio
import builtins
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from inferd_agent.embedding import Tokenisers, tokens
from inferd_runtime import Embedding, InvalidRequest, ModelNotReady, Unsupported
from tests.agent.embedding.models import tokenizer


def embedding(*, max_tokens: int = 8, truncates: bool = False, data: str | None = None) -> Embedding:
    return Embedding((data or tokenizer()).encode(), "hidden", "mean", True, max_tokens, truncates)


@pytest_asyncio.fixture
async def tokenisers() -> AsyncIterator[Tokenisers]:
    made = Tokenisers()
    yield made
    made.close()


async def test_texts_become_ids(tokenisers: Tokenisers) -> None:
    """With the special tokens, without the padding and the length that the file brings; empty texts are texts."""
    found = await tokenisers.ids(["the cat sat on the mat", "", "bird"], embedding())
    assert found == [[1, 2, 3, 4, 5, 2, 6], [1], [1, 0]]


async def test_ids_stay_as_they_are(tokenisers: Tokenisers) -> None:
    """A caller that tokenises itself says all of it."""
    assert await tokenisers.ids([[3, 4], [7]], embedding()) == [[3, 4], [7]]


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["cat", "the " * 9], "input 1: it has 10 tokens, the model takes 8"),
        ([[1], [1] * 9], "input 1: it has 9 tokens, the model takes 8"),
        ([[1], []], "input 1: there is nothing in it"),
        ([[8]], "input 0: token 8, the model knows 0 to 7"),
        (["cat", "x" * (tokens.MAX_TEXT_CHARS + 1)], "input 1: it is 262145 long"),
    ],
)
async def test_limits_are_told(tokenisers: Tokenisers, texts: Any, told: str) -> None:
    """With the place of the text that breaks them."""
    with pytest.raises(InvalidRequest, match=told):
        await tokenisers.ids(texts, embedding())


async def test_a_model_may_take_the_beginning(tokenisers: Tokenisers) -> None:
    """`truncate`: special tokens count among those that are kept."""
    how = embedding(max_tokens=3, truncates=True)
    assert await tokenisers.ids(["the cat sat on"], how) == [[1, 2, 3]]
    assert await tokenisers.ids([[2, 3, 4, 5]], how) == [[2, 3, 4]]


async def test_long_texts_leave_the_loop(tokenisers: Tokenisers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short ones stay, long ones go to the one thread, in slices; the order holds."""
    seen: list[tuple[bool, int]] = []
    encode = tokens.Tokeniser.encode

    def noted(self: tokens.Tokeniser, texts: Any) -> Any:
        seen.append((threading.current_thread() is threading.main_thread(), len(texts)))
        return encode(self, texts)

    monkeypatch.setattr(tokens.Tokeniser, "encode", noted)
    how = embedding(max_tokens=65536)
    assert await tokenisers.ids(["cat", "dog"], how) == [[1, 3], [1, 7]]
    assert seen == [(True, 2)]
    seen.clear()
    many = ["the cat " * 1000, *["dog"] * 3, "sat " * 17000, "mat"]
    found = await tokenisers.ids(many, how)
    assert [len(ids) for ids in found] == [2001, 2, 2, 2, 17001, 2]
    assert seen == [(False, 4), (False, 1), (True, 1)]


async def test_tokenizers_are_kept_within_bounds(tokenisers: Tokenisers, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is read once; of very many the oldest are forgotten."""
    reads: list[Embedding] = []
    read = tokens._read
    monkeypatch.setattr(tokens, "_read", lambda how: reads.append(how) or read(how))
    for max_tokens in [*range(1, 20), 19, 19]:
        await tokenisers.ids([[1]], embedding(max_tokens=max_tokens))
    assert len(reads) == 19
    await tokenisers.ids([[1]], embedding(max_tokens=1))
    assert len(reads) == 20


async def test_a_file_that_the_library_refuses(tokenisers: Tokenisers) -> None:
    """The reason is the library's own."""
    with pytest.raises(ModelNotReady, match="tokenizer file cannot be used"):
        await tokenisers.ids(["cat"], embedding(data='{"model": 3}'))


async def test_without_the_extra(tokenisers: Tokenisers, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is told."""
    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name == "tokenizers":
            raise ImportError(name)
        return real(name, *more)

    how = embedding()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(Unsupported, match=r"inferd\[embeddings\]"):
        await tokenisers.ids(["cat"], how)


async def test_a_caller_who_leaves_frees_the_thread(tokenisers: Tokenisers) -> None:
    """Between slices a cancelled request ends."""
    how = embedding(max_tokens=65536)
    work = asyncio.ensure_future(tokenisers.ids(["cat " * 15000] * 50, how))
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert await tokenisers.ids(["cat"], how) == [[1, 3]]
