"""The life of one model version: which moves between states are legal, and why it is where it is.

    UNLOADED -> LOADING -> READY -> DRAINING -> UNLOADED
    UNLOADED, LOADING -> FAILED -> LOADING, UNLOADED

A version that serves and whose new content fails stays READY with the reason beside it. Owner: the loader thread.
"""

from __future__ import annotations

from inferd_runtime.spec import State

MOVES: dict[State, frozenset[State]] = {
    State.UNLOADED: frozenset({State.LOADING, State.FAILED}),
    State.LOADING: frozenset({State.READY, State.FAILED, State.UNLOADED}),
    State.READY: frozenset({State.DRAINING}),
    State.DRAINING: frozenset({State.UNLOADED}),
    State.FAILED: frozenset({State.LOADING, State.UNLOADED, State.FAILED}),
}


class IllegalMove(RuntimeError):
    """A move that no version may make: a fault of the caller, never of a model."""


class Lifecycle:
    """State and reason of one version."""

    __slots__ = ("reason", "state")

    def __init__(self) -> None:
        self.state = State.UNLOADED
        self.reason = ""

    def move(self, to: State, reason: str = "") -> None:
        """Go to `to`, with a reason that replaces the last one. Raises IllegalMove."""
        if to not in MOVES[self.state]:
            raise IllegalMove(f"a version cannot go from {self.state.value} to {to.value}")
        self.state = to
        self.reason = reason
