"""What the messages of all callers hold together, and its bound."""

from __future__ import annotations

from inferd_runtime import Overloaded


class Held:
    """Bytes of messages: `now` held, `most` at most."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.now = 0

    def holding(self, nbytes: int) -> _Holding:
        """`with held.holding(n):` counts n bytes meanwhile. Raises Overloaded on entry."""
        return _Holding(self, nbytes)


class _Holding:
    # Not a generator's context manager: this is on the way of every call, and three times as quick.
    __slots__ = ("_held", "_nbytes")

    def __init__(self, held: Held, nbytes: int) -> None:
        self._held = held
        self._nbytes = nbytes

    def __enter__(self) -> None:
        held, nbytes = self._held, self._nbytes
        if held.now + nbytes > held.most:
            raise Overloaded(f"{held.now} bytes of messages are held, {nbytes} more would pass {held.most}")
        held.now += nbytes

    def __exit__(self, *_: object) -> None:
        self._held.now -= self._nbytes
