"""Who is measured when: asked for at once, unasked in calm, put off for requests; whatever fails, it goes on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

import pytest

from inferd_runtime.errors import Closed, LoadFailed, ModelNotReady
from inferd_runtime.planning import background
from inferd_runtime.planning.background import Background, Order, Progress, Subject
from inferd_runtime.planning.evidence import Evidence
from inferd_runtime.planning.plan import Wishes
from inferd_runtime.spec import ModelSpec

PATIENCE_S = 20.0


def subject(name: str = "m", digest: str = "d") -> Subject:
    """A version that could be measured."""
    return Subject(name, 1, digest, {}, ModelSpec((), (), 0), Wishes(), {}, None, lambda: digest)


EVIDENCE = Evidence("k", "balanced", "", "generated", (), "", "", "measured", 1.0, 1.0, 0.0)


class Stage:
    """A background whose measurings last as long as the test wants, and a world that is as calm as it says."""

    def __init__(self, *, is_unasked: bool = True) -> None:
        self.begun: queue.SimpleQueue[tuple[str, Order]] = queue.SimpleQueue()
        self.swapped: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.go_on = threading.Event()
        self.fault: Exception | None = None
        self.is_calm = threading.Event()
        self.is_busy = False
        self.served = {"m", "n"}
        self.background = Background(
            self.measure,
            lambda name, version: self.swapped.put(name),
            is_unasked=is_unasked,
            is_calm=self.is_calm.is_set,
            is_busy=lambda: self.is_busy,
            is_served=lambda name, version: name in self.served,
        )

    def measure(self, given: Subject, order: Order, tell: Progress, should_stop: Callable[[], bool]) -> Evidence:
        tell(1, 5, "a candidate")
        self.begun.put((given.name, order))
        while not self.go_on.wait(0.01):
            if should_stop():
                raise Closed("stopped")
        if self.fault is not None:
            raise self.fault
        return EVIDENCE

    def next_begun(self) -> tuple[str, Order]:
        return self.begun.get(timeout=PATIENCE_S)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A stage that looks often."""
    monkeypatch.setattr(background, "LOOK_EVERY_S", 0.01)
    stage = Stage()
    stage.background.start()
    yield stage
    stage.go_on.set()
    stage.background.close()
    assert not stage.background._thread.is_alive()


def test_what_has_no_evidence_is_measured_in_calm_and_swapped(stage: Stage) -> None:
    """A version waits for calm, says how far it is, and is opened anew when it is measured."""
    stage.background.offer(subject(), None)
    assert stage.background.state("m", 1).state == "queued"
    stage.is_calm.set()
    assert stage.next_begun() == ("m", Order())
    told = stage.background.state("m", 1)
    assert (told.state, told.done, told.total, told.now) == ("measuring", 1, 5, "a candidate")
    stage.go_on.set()
    assert stage.swapped.get(timeout=PATIENCE_S) == "m"
    stage.background.offer(subject(), EVIDENCE)
    assert stage.background.state("m", 1).evidence == EVIDENCE


def test_who_asks_does_not_wait_for_calm(stage: Stage) -> None:
    """An order goes before what nobody asked for, with its own budget."""
    stage.background.offer(subject(), None)
    stage.background.offer(subject("n"), EVIDENCE)
    wanted = Order(3.0, thorough=True, is_asked=True)
    stage.background.order("n", 1, wanted)
    assert stage.next_begun() == ("n", wanted)


@pytest.mark.parametrize("name", ["m", "n"])
def test_what_nobody_asked_for_gives_way_to_who_asks(stage: Stage, name: str) -> None:
    """An order is begun at once, whichever version is being measured unasked, and that one has its turn again."""
    stage.is_calm.set()
    stage.background.offer(subject(), None)
    stage.next_begun()
    stage.background.offer(subject("n"), EVIDENCE)
    wanted = Order(3.0, is_asked=True)
    stage.background.order(name, 1, wanted)
    assert stage.next_begun() == (name, wanted)
    stage.go_on.set()
    assert stage.swapped.get(timeout=PATIENCE_S) == name
    if name == "n":
        assert stage.next_begun() == ("m", Order())


def test_an_order_outlives_the_swap_before_it(stage: Stage) -> None:
    """Who asks while the same version is being measured gets a measuring of their own, though it is opened anew."""
    stage.background.offer(subject(), EVIDENCE)
    stage.background.order("m", 1, Order(is_asked=True))
    stage.next_begun()
    wanted = Order(60.0, thorough=True, is_asked=True)
    stage.background.order("m", 1, wanted)
    stage.background.offer(subject(), EVIDENCE)  # as a swap does
    stage.go_on.set()
    assert stage.next_begun() == ("m", wanted)


def test_requests_put_it_off(stage: Stage) -> None:
    """Unasked measuring stops when requests come, and is tried again in calm."""
    stage.is_calm.set()
    stage.background.offer(subject(), None)
    stage.next_begun()
    stage.is_calm.clear()
    stage.is_busy = True
    while stage.background.state("m", 1).state != "queued":
        threading.Event().wait(0.005)
    stage.is_busy = False
    stage.is_calm.set()
    assert stage.next_begun() == ("m", Order())
    assert stage.swapped.empty()


@pytest.mark.parametrize("fault", [LoadFailed("no engine"), ZeroDivisionError("nobody foresaw it")])
def test_a_failure_ends_one_measuring_only(stage: Stage, fault: Exception) -> None:
    """The version keeps its plan, the next one is measured."""
    stage.is_calm.set()
    stage.fault = fault
    stage.go_on.set()
    stage.background.offer(subject(), None)
    stage.next_begun()
    stage.background.offer(subject("n"), None)
    assert stage.next_begun()[0] == "n"
    assert stage.swapped.empty()


def test_what_is_not_served_is_forgotten(stage: Stage) -> None:
    """It cannot be measured, and holds no memory."""
    stage.background.offer(subject("n"), EVIDENCE)
    stage.served = {"m"}
    stage.background.offer(subject(), EVIDENCE)
    assert list(stage.background._cases.known) == [("m", 1)]
    with pytest.raises(ModelNotReady, match="'n' version 1 is not being served"):
        stage.background.order("n", 1, Order(is_asked=True))


def test_what_is_unloaded_is_measured_no_further(stage: Stage) -> None:
    """Neither what is being measured nor what waits for it, nor what somebody asks for then; and nothing is swapped."""
    stage.background.offer(subject(), None)
    stage.background.offer(subject("n"), None)
    stage.is_calm.set()
    begun, _ = stage.next_begun()
    stage.served = set()
    while {stage.background.state(name, 1).state for name in "mn"} != {"static"}:
        threading.Event().wait(0.005)
    assert stage.begun.empty()
    assert stage.swapped.empty()
    with pytest.raises(ModelNotReady, match="is not being served"):
        stage.background.order(begun, 1, Order(is_asked=True))


def test_new_content_ends_the_measuring_of_the_old(stage: Stage) -> None:
    """Also where somebody asked for it; a reload of the same content does not."""
    stage.background.offer(subject(), EVIDENCE)
    stage.background.order("m", 1, Order(is_asked=True))
    stage.next_begun()
    stage.background.offer(subject(), EVIDENCE)
    assert stage.background.state("m", 1).state == "measuring"
    stage.is_calm.set()
    stage.background.offer(subject(digest="new"), None)
    assert stage.next_begun() == ("m", Order())
    assert stage.swapped.empty()


def test_off_means_only_what_is_asked_for() -> None:
    """planning.mode = "off": nothing is measured unless somebody asks."""
    stage = Stage(is_unasked=False)
    stage.background.start()
    stage.is_calm.set()
    stage.background.offer(subject(), None)
    assert stage.background.state("m", 1).state == "off"
    stage.background.order("m", 1, Order(is_asked=True))
    assert stage.next_begun()[1].is_asked
    stage.background.close()
    assert not stage.background._thread.is_alive()
