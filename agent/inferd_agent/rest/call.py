"""One request as everything behind a connection sees it: its head, its body, who asks, and what it holds.

Cheap to make, because one is made for each request. Knows nothing of routes or answers.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader

if TYPE_CHECKING:
    from inferd_agent.rest.connection import Connection


class Call:
    """One request. aiohttp asks a request for `_task`, `_finish` and `_cancel` only; the rest is ours.

    `held_bytes` is what the body holds of the inflight budget; `must_close` is set where the body's end is not known.
    """

    __slots__ = ("_task", "connection", "held_bytes", "id", "message", "must_close", "payload", "principal", "writer")

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        connection: Connection,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None] | None,
    ) -> None:
        self.message = message
        self.payload = payload
        self.connection = connection
        self.writer = writer
        self._task = task
        self.id = ""
        self.principal: Any = None
        self.held_bytes = 0
        self.must_close = False

    def _finish(self) -> None:
        """aiohttp: the answer is about to be sent."""

    def _cancel(self, error: BaseException) -> None:
        """aiohttp: the connection is gone."""
        self.payload.set_exception(error)


class Whole:
    """The body of a request that came in one piece, as the part of a `StreamReader` that the express way needs."""

    __slots__ = ("_data", "total_bytes")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.total_bytes = len(data)

    def is_eof(self) -> bool:
        return True

    def read_nowait(self, _: int) -> bytes:
        return self._data

    def set_exception(self, _: BaseException) -> None:
        """There is nobody who reads on."""
