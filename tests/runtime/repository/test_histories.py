"""Whatever happens to the files in whatever order: the repository never trips, and ends where the files say."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from inferd_runtime.errors import InferdError
from inferd_runtime.spec import State
from tests.runtime.repository.stage import FakeServed, Stage

VERSIONS = st.integers(1, 3)
BAD_WIDTH = 9


def install(stage: Stage, version: int, width: int) -> None:
    """Good content, or content that does not open."""
    stage.install("m", version, width=width)


def garbage(stage: Stage, version: int) -> None:
    """A file that is no model, perhaps over one that is."""
    path = stage.install("m", version)
    path.write_bytes(b"\x00" * version)


def empty(stage: Stage, version: int) -> None:
    """The first moment of a copy."""
    stage.install("m", version).write_bytes(b"")


def remove(stage: Stage, version: int) -> None:
    """A version goes."""
    shutil.rmtree(stage.root / "m" / str(version), ignore_errors=True)


def tune(stage: Stage, text: str) -> None:
    """Settings, good and bad."""
    (stage.root / "m").mkdir(exist_ok=True)
    stage.settings("m", text)


def order(what: str) -> Callable[[Stage], None]:
    """A load or unload on request, which may well be refused."""

    def act(stage: Stage) -> None:
        with contextlib.suppress(InferdError):
            stage.order(lambda: getattr(stage.repository, what)("m"))

    return act


ACTS = st.one_of(
    st.builds(lambda v, w: lambda stage: install(stage, v, w), VERSIONS, st.sampled_from([4, 5, BAD_WIDTH])),
    st.builds(lambda v: lambda stage: garbage(stage, v), VERSIONS),
    st.builds(lambda v: lambda stage: empty(stage, v), VERSIONS),
    st.builds(lambda v: lambda stage: remove(stage, v), VERSIONS),
    st.builds(
        lambda text: lambda stage: tune(stage, text),
        st.sampled_from(["", 'versions = "all"', "versions = [1, 2]", "versions = [3]", "nonsense = 1", "="]),
    ),
    st.sampled_from([order("load"), order("unload")]),
    st.just(lambda stage: stage.look()),
    st.just(lambda stage: stage.settle()),
)


def check(stage: Stage) -> None:
    """What holds at any moment: what is READY serves and is open, and nothing else does."""
    told = {d.version for d in stage.repository.models() if d.state is State.READY}
    assert told == set(stage.repository.versions("m") if stage.states("m") and told else ())
    for version in told:
        served = stage.repository.get("m", version)
        assert isinstance(served, FakeServed)
        assert not served.is_closed
        assert not served.is_drained


@settings(max_examples=60, deadline=None)
@given(st.lists(ACTS, max_size=14))
def test_any_history_ends_well(acts: list[Callable[[Stage], object]]) -> None:
    """Steps never raise, READY always means serving, and in the end the highest good version can be loaded."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder))
        stage.opener.faulty_widths = {BAD_WIDTH}
        for act in acts:
            act(stage)
            stage.clock.now += 0.3
            check(stage)
        stage.settle()
        check(stage)
        shutil.rmtree(stage.root / "m", ignore_errors=True)
        stage.settle()
        assert stage.repository.models() == ()
        stage.install("m", 2, width=7)
        stage.install("m", 4, width=BAD_WIDTH)
        stage.settle()
        assert stage.states("m") == {2: "READY", 4: "FAILED"}
        stage.repository.close()
        assert all(served.is_closed for served in stage.opener.all)
