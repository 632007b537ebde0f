"""Where memory is handed over, and who is told."""

from __future__ import annotations

from tests.agent.rest.serving import Serving


def test_a_daemon_that_takes_none_says_what_to_add(served: Serving) -> None:
    """404, as with any path that is not there, in words that help."""
    reply = served.get("/inferd/v1/memory")
    assert reply.status == 404
    assert reply.error == "memory is not handed over here: add memory+unix:/path to server.listen"


def test_strangers_are_not_told(served: Serving) -> None:
    """Over TCP without a token nobody hears of it."""
    assert served.get("/inferd/v1/memory", tcp=True).status == 401
