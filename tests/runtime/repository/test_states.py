"""The moves that a version may make."""

from __future__ import annotations

import itertools

import pytest

from inferd_runtime.repository.states import MOVES, IllegalMove, Lifecycle
from inferd_runtime.spec import State


@pytest.mark.parametrize(("start", "to"), list(itertools.product(State, State)))
def test_only_legal_moves_are_made(start: State, to: State) -> None:
    """A legal move changes state and reason; any other raises and changes nothing."""
    life = Lifecycle()
    life.state, life.reason = start, "before"
    if to in MOVES[start]:
        life.move(to, "after")
        assert (life.state, life.reason) == (to, "after")
    else:
        with pytest.raises(IllegalMove, match=f"{start.value} to {to.value}"):
            life.move(to, "after")
        assert (life.state, life.reason) == (start, "before")


def test_every_state_can_be_left() -> None:
    """There is no state that a version cannot come out of, and serving begins with loading only."""
    assert all(MOVES[state] for state in State)
    assert [state for state in State if State.READY in MOVES[state]] == [State.LOADING]
