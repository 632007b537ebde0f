"""Both clients behind one face, so that a test holds for both."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from inferd import AsyncClient, Client

KINDS = ("sync", "async")


class Both:
    """`Client` as it is (in a thread, as its callers would), or `AsyncClient`; every call is awaited."""

    def __init__(self, kind: str, url: str | None = None, **options: Any) -> None:
        self.client: Any = Client(url, **options) if kind == "sync" else AsyncClient(url, **options)
        self._is_sync = kind == "sync"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        done = self.client.close()
        if not self._is_sync:
            await done

    async def call(self, name: str, *args: Any, **options: Any) -> Any:
        method = getattr(self.client, name)
        if self._is_sync:
            return await asyncio.to_thread(method, *args, **options)
        return await method(*args, **options)
