"""Spent sessions are freed when nobody asks, and do not pile up."""

from __future__ import annotations

from inferd_runtime.scheduling.spent import KEPT_S, MOST, Spent
from tests.runtime.scheduling.sessions import DoublingSession


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_session_is_freed_when_nothing_came_since_the_last_look() -> None:
    """Not while requests wait or run, and not between two of them."""
    spent, session = Spent(), DoublingSession()
    spent.look(5, is_quiet=True)
    spent.add(session)
    spent.look(6, is_quiet=True)
    spent.look(6, is_quiet=False)
    spent.look(7, is_quiet=True)
    assert not session.is_closed
    spent.look(7, is_quiet=True)
    assert session.is_closed


def test_requests_without_end_do_not_keep_it_for_ever() -> None:
    """Memory is needed as well."""
    clock = Clock()
    spent, session = Spent(clock), DoublingSession()
    spent.add(session)
    clock.now = KEPT_S - 1
    spent.look(1, is_quiet=False)
    assert not session.is_closed
    clock.now = KEPT_S
    spent.look(2, is_quiet=False)
    assert session.is_closed


def test_few_are_kept() -> None:
    """The oldest goes first."""
    spent = Spent()
    sessions = [DoublingSession() for _ in range(MOST + 2)]
    for session in sessions:
        spent.add(session)
    assert [session.is_closed for session in sessions] == [True, True] + [False] * MOST


def test_after_the_end_nothing_is_kept() -> None:
    """Neither what was there nor what comes later."""
    spent, before, after = Spent(), DoublingSession(), DoublingSession()
    spent.add(before)
    spent.close()
    spent.add(after)
    assert before.is_closed
    assert after.is_closed
