"""Texts into token ids, by Hugging Face's tokenizers, on one thread of its own where they are long.

One thread, so that somebody's book costs others no more than their turn, and no core that inference was given. A book
is cut into slices of texts between which others come in. A tokenizer is read once and kept while few others are used.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from inferd_runtime import Embedding, InvalidRequest, ModelNotReady, Unsupported

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Text = str | list[int]

MAX_TEXT_CHARS = 256 << 10
_KEPT = 8
# Up to so many characters are tokenised on the loop: some hundred microseconds.
_SHORT_CHARS = 1024
_SLICE_CHARS = 64 << 10


@dataclass(frozen=True, slots=True)
class Tokeniser:
    """The tokenizer of one model, with its limits."""

    tokenizer: Tokenizer
    vocabulary: int
    embedding: Embedding

    def encode(self, texts: Sequence[Text]) -> list[list[int]]:
        """Token ids with the special ones; texts that are token ids already stay as they are."""
        if not isinstance(texts[0], str):  # texts are all of one kind
            return cast(list[list[int]], list(texts))
        return [each.ids for each in self.tokenizer.encode_batch(list(texts))]

    def checked(self, ids: list[int], place: int) -> list[int]:
        """The ids of text number `place` if the model can take them. Raises InvalidRequest."""
        most = self.embedding.max_tokens
        if self.embedding.truncates:
            ids = ids[:most]
        if not ids:
            raise InvalidRequest(f"input {place}: there is nothing in it")
        if len(ids) > most:
            raise InvalidRequest(f"input {place}: it has {len(ids)} tokens, the model takes {most}")
        if max(ids) >= self.vocabulary:
            raise InvalidRequest(f"input {place}: token {max(ids)}, the model knows 0 to {self.vocabulary - 1}")
        return ids


class Tokenisers:
    """The tokenizers of all models. Used on the event loop."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tokenise")
        self._kept: dict[Embedding, Tokeniser] = {}

    async def ids(self, texts: Sequence[Text], embedding: Embedding) -> list[list[int]]:
        """The token ids of every text; ids are taken as they are. Raises InvalidRequest, ModelNotReady, Unsupported."""
        loop = asyncio.get_running_loop()
        tokeniser = await self._tokeniser(embedding)
        found: list[list[int]] = []
        for some in _slices(texts):
            if sum(map(len, some)) <= _SHORT_CHARS:
                found += tokeniser.encode(some)
            else:
                found += await loop.run_in_executor(self._pool, tokeniser.encode, some)
        return [tokeniser.checked(ids, place) for place, ids in enumerate(found)]

    async def _tokeniser(self, embedding: Embedding) -> Tokeniser:
        tokeniser = self._kept.get(embedding)
        if tokeniser is None:
            tokeniser = await asyncio.get_running_loop().run_in_executor(self._pool, _read, embedding)
            while len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[embedding] = tokeniser
        return tokeniser

    def close(self) -> None:
        """End the thread; idempotent."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _slices(texts: Sequence[Text]) -> Iterator[Sequence[Text]]:
    """Neighbours that are not long together; one that is long alone goes alone. Raises InvalidRequest."""
    begin = size = 0
    for place, text in enumerate(texts):
        if len(text) > MAX_TEXT_CHARS:
            raise InvalidRequest(f"input {place}: it is {len(text)} long, at most {MAX_TEXT_CHARS} are taken")
        if size and size + len(text) > _SLICE_CHARS:
            yield texts[begin:place]
            begin, size = place, 0
        size += len(text)
    yield texts[begin:]


def _read(embedding: Embedding) -> Tokeniser:
    """Make the tokenizer of a file that is one, as far as loading could see. Raises ModelNotReady, Unsupported."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it would take every core of the machine
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise Unsupported("embeddings need the extra: pip install 'inferd[embeddings]'") from None
    try:
        tokenizer = Tokenizer.from_buffer(embedding.tokenizer)
    except Exception as error:  # the library raises Exception itself
        raise ModelNotReady(f"the model's tokenizer file cannot be used: {error}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if embedding.truncates:
        tokenizer.enable_truncation(embedding.max_tokens)
    return Tokeniser(tokenizer, tokenizer.get_vocab_size(), embedding)
