"""Who gets a call and who none: spread, consequences of failures, impostors, and what holds after any history."""

from __future__ import annotations

import heapq
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from inferd.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    EngineFault,
    InferdError,
    InvalidRequest,
    NotFound,
    NotReady,
    Overloaded,
    Untrusted,
)
from inferd.fleet import pool as rules
from inferd.fleet.pool import Lease, Member, Models, Pool
from inferd.fleet.record import Device, Load

MODELS: Models = frozenset({("m", "1")})
PATH = "/v2/models/m/infer"


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def device(name: str, **changes: Any) -> Device:
    number = sum(name.encode())
    values: dict[str, Any] = {
        "name": name, "instance_id": f"{number:08x}", "host": f"{name}.local", "port": 8470,
        "addresses": (f"10.0.0.{number % 250}",), "fingerprint": f"{number:064x}",
    }  # fmt: skip
    return Device(**{**values, **changes})


def pool_of(*names: str, clock: Clock | None = None, models: Models | None = MODELS) -> Pool:
    """A pool whose devices are all in."""
    pool = Pool(clock=clock or Clock(), rng=Random(7))
    for name in names:
        pool.put(device(name))
    for member in pool.start_visits():
        pool.welcomed(member, models)
    return pool


def chosen(pool: Pool, times: int = 200, model: str | None = "m", version: str | None = None) -> set[str]:
    """The names that come up in many choices."""
    found = (pool.choose(model, version, PATH, ()) for _ in range(times))
    return {member.device.name for member in found if member is not None}


def member_of(pool: Pool, name: str) -> Member:
    return next(each for each in pool.members if each.device.name == name)


def shares(run_s: list[float], callers: int, calls: int = 5000) -> list[int]:
    """Calls that each device got from so many callers that never pause; each runs two at once, with a jitter."""
    clock, noise = Clock(), Random(11)
    names = [chr(ord("a") + at) for at in range(len(run_s))]
    pool = pool_of(*names, clock=clock)
    counts, free = [0] * len(run_s), [[0.0, 0.0] for _ in run_s]
    under_way: list[tuple[float, int, Lease]] = []

    def call() -> None:
        member = pool.choose("m", None, PATH, ())
        assert member is not None
        at = names.index(member.device.name)
        counts[at] += 1
        slot = free[at].index(min(free[at]))
        free[at][slot] = max(clock.now_s, free[at][slot]) + run_s[at] * noise.uniform(0.5, 1.5)
        heapq.heappush(under_way, (free[at][slot], sum(counts), pool.begin(member, PATH)))

    for _ in range(callers):
        call()
    while under_way:
        clock.now_s, _, lease = heapq.heappop(under_way)
        pool.answered(lease)
        if sum(counts) < calls:
            call()
    return counts


@pytest.mark.parametrize("callers", [1, 3, 10, 60])
def test_equal_devices_get_equal_shares(callers: int) -> None:
    """Within 15 % of even, by one caller or by many."""
    assert all(850 <= share <= 1150 for share in shares([0.01] * 5, callers))


@pytest.mark.parametrize("callers", [1, 3, 10, 60])
def test_a_slow_device_gets_its_proportion(callers: int) -> None:
    """One that takes three times as long gets a third of the others' share."""
    *others, slow = shares([0.01, 0.01, 0.01, 0.01, 0.03], callers)
    assert 0.28 < slow / (sum(others) / 4) < 0.39
    assert max(others) / min(others) < 1.15


def test_a_hiccup_is_no_speed() -> None:
    """Neither one slow answer nor the first ones, which wait for connections, banish a device; a change is learnt."""
    member = Member(device("a"), 0.0)
    assert member.latency_s(PATH) is None
    for took_s in [0.2] * 4 + [0.01] * 8 + [10.0]:
        member.time(PATH, took_s)
    assert member.latency_s(PATH) == 0.01
    for _ in range(10):
        member.time(PATH, 0.03)
    assert member.latency_s(PATH) == 0.03


def test_a_lucky_start_is_not_everything() -> None:
    """A device whose first answer was much faster than the others' gets no more than its bound, and not for long."""
    pool = pool_of(*"abcde")
    for member in pool.members:
        member.time(PATH, 0.001 if member.device.name == "a" else 0.1)
    counts = dict.fromkeys("abcde", 0)
    for _ in range(400):
        member = pool.choose("m", None, PATH, ())
        assert member is not None
        counts[member.device.name] += 1
        member.time(PATH, 0.01)
    assert all(40 < count < 160 for count in counts.values()), counts


def test_latencies_are_bounded() -> None:
    """A caller of ever new paths costs no memory; the path used last is kept."""
    member = Member(device("a"), 0.0)
    for number in range(10 * rules.MAX_TIMED):
        member.time(PATH, 0.01)
        member.time(f"/{number}", 0.01)
    assert len(member._recent_s) == len(member._typical_s) == rules.MAX_TIMED
    assert member.latency_s(PATH) is not None


@pytest.mark.parametrize(
    ("load", "is_new", "is_less"), [("full", 1, 1), ("full", 0, 1), ("busy", 1, 1), ("busy", 0, 0)]
)
def test_what_a_device_says_of_its_load(load: Load, is_new: bool, is_less: bool) -> None:
    """It counts while nothing else is known of the device, and always when it is full."""
    pool = pool_of("a", "b")
    pool.put(device("b", load=load))
    for member in pool.members:
        if not is_new:
            pool.answered(pool.begin(member, PATH))
    firsts = [pool.choose("m", None, PATH, ()) for _ in range(1000)]
    share = sum(member is not None and member.device.name == "b" for member in firsts)
    assert share < 420 if is_less else share > 450


def test_only_devices_that_serve_the_model() -> None:
    """By name and version; a device whose models are not known is tried; a pool for one model ignores the others."""
    pool = pool_of("a")
    pool.put(device("b"))
    (other,) = pool.start_visits()
    pool.welcomed(other, frozenset({("n", "1"), ("m", "2")}))
    assert chosen(pool) == {"a", "b"}
    assert chosen(pool, version="2") == {"b"}
    assert chosen(pool, model="n") == {"b"}
    assert chosen(pool, model="x") == set()
    pool.welcomed(other, None)
    assert chosen(pool, model="x") == {"b"}
    only_n = Pool("n", clock=Clock(), rng=Random(1))
    for name, models in (("a", MODELS), ("b", frozenset({("n", "1")}))):
        only_n.welcomed(only_n.put(device(name)), models)
    assert chosen(only_n, model=None) == {"b"}


def test_nobody_is_called_before_it_was_asked() -> None:
    """A device is used once it has proved itself and told its models."""
    pool = Pool(clock=Clock(), rng=Random(1))
    pool.put(device("a"))
    assert chosen(pool) == set()
    (member,) = pool.start_visits()
    assert pool.start_visits() == []
    pool.welcomed(member, MODELS)
    assert chosen(pool) == {"a"}


def test_changed_models_are_asked_for() -> None:
    """Another digest is a reason for a visit, another load is none; meanwhile calls go on."""
    pool = pool_of("a")
    pool.put(device("a", load="busy"))
    assert pool.start_visits() == []
    pool.put(device("a", models_digest="ab"))
    assert [each.device.models_digest for each in pool.start_visits()] == ["ab"]
    assert chosen(pool) == {"a"}


def test_a_draining_device_is_let_alone() -> None:
    """Calls under way end well, no new ones come, until it says that it is ready again."""
    pool = pool_of("a", "b")
    lease = pool.begin(member_of(pool, "a"), PATH)
    pool.put(device("a", state="draining"))
    assert chosen(pool) == {"b"}
    pool.answered(lease)
    pool.put(device("a"))
    assert chosen(pool) == {"a", "b"}


def test_a_failed_device_is_out_until_a_visit_goes_well() -> None:
    """The pauses between visits double up to a bound, and start over after an answer."""
    clock = Clock()
    pool = pool_of("a", "b", clock=clock)
    member = member_of(pool, "a")
    pool.failed(pool.begin(member, PATH), ConnectionFailed("refused", is_unsent=True))
    assert chosen(pool) == {"b"}
    pauses = []
    for _ in range(9):
        pauses.append(pool.next_visit_s())
        clock.now_s += pauses[-1] + 0.001
        assert pool.start_visits() == [member]
        pool.turned_away(member, ConnectionFailed("refused", is_unsent=True))
    assert 0.19 < pauses[0] < 0.31
    assert 7.9 < pauses[-1] < 12.1
    clock.now_s += pool.next_visit_s() + 0.001
    pool.start_visits()
    pool.welcomed(member, MODELS)
    assert chosen(pool) == {"a", "b"}
    pool.answered(pool.begin(member, PATH))
    pool.failed(pool.begin(member, PATH), ConnectionFailed("refused", is_unsent=True))
    assert pool.next_visit_s() < 0.31


def test_waiting_callers_bring_visits_forward() -> None:
    """Who waits for a device does not wait out its longest pause."""
    clock = Clock()
    pool = pool_of("a", clock=clock)
    member = member_of(pool, "a")
    for _ in range(10):
        clock.now_s += 30
        pool.start_visits()
        pool.turned_away(member, ConnectionFailed("refused", is_unsent=True))
    assert pool.next_visit_s() > 5
    pool.hurry()
    assert 0.5 < pool.next_visit_s() <= rules.VISIT_AGAIN_S


def test_many_failures_at_once_are_one() -> None:
    """A dead device with many calls under way is put out once, not for as long as if it had failed so often."""
    pool = pool_of("a", "b")
    member = member_of(pool, "a")
    leases = [pool.begin(member, PATH) for _ in range(50)]
    for lease in leases:
        pool.failed(lease, ConnectionFailed("reset"))
    assert pool.next_visit_s() < 0.31
    assert member.in_flight == 0


@pytest.mark.parametrize(
    ("error", "rest_s"),
    [
        (Overloaded("full", status=429, retry_after_s=2.0), 2.0),
        (Overloaded("full", status=429, retry_after_s=9000.0), rules.LONGEST_REST_S),
        (NotReady("draining", status=503), rules.VISIT_AGAIN_S),
    ],
)
def test_a_refusing_device_rests(error: InferdError, rest_s: float) -> None:
    """As long as it asked for, within bounds; it was not at fault."""
    clock = Clock()
    pool = pool_of("a", "b", clock=clock)
    pool.failed(pool.begin(member_of(pool, "a"), PATH), error)
    assert chosen(pool) == {"b"}
    clock.now_s += rest_s + 0.01
    assert chosen(pool) == {"a", "b"}


def test_faults_in_a_row_put_a_device_out() -> None:
    """One may be the request's, so may a deadline of the caller's choosing; three without an answer between are not."""
    pool = pool_of("a", "b")
    member = member_of(pool, "a")
    fault = EngineFault("boom", status=500)
    for error in (fault, DeadlineExceeded("late"), None, fault, InvalidRequest("yours", status=400), fault):
        lease = pool.begin(member, PATH)
        if error:
            pool.failed(lease, error)
        else:
            pool.answered(lease)
    assert chosen(pool) == {"a", "b"}
    pool.failed(pool.begin(member, PATH), fault)
    assert chosen(pool) == {"b"}


def test_a_model_that_is_gone_is_noticed() -> None:
    """404 from a device that served it is a reason to ask again soon, not to give the device up."""
    clock = Clock()
    pool = pool_of("a", clock=clock)
    pool.failed(pool.begin(member_of(pool, "a"), PATH), NotFound("m?", status=404))
    assert pool.start_visits() == []
    clock.now_s += rules.VISIT_AGAIN_S + 0.01
    assert len(pool.start_visits()) == 1


def test_a_silent_device_is_asked_whether_it_lives() -> None:
    """A call under way and nothing heard: a visit; not while it answers others, not while nothing is under way."""
    clock = Clock()
    pool = pool_of("a", clock=clock)
    member = member_of(pool, "a")
    clock.now_s += 10
    assert pool.start_visits() == []
    pool.begin(member, PATH)
    clock.now_s += 0.9
    pool.answered(pool.begin(member, PATH))
    clock.now_s += 0.9
    assert pool.start_visits() == []
    clock.now_s += 0.2
    assert pool.start_visits() == [member]
    pool.welcomed(member, MODELS)
    assert 0.9 < pool.next_visit_s() <= rules.SILENCE_S


def test_an_impostor_displaces_nobody() -> None:
    """Another certificate under a known name is asked beside the device, which stays; its own record ends that."""
    clock = Clock()
    pool = pool_of("a", clock=clock)
    true = member_of(pool, "a")
    fake = pool.put(device("a", fingerprint="f" * 64, addresses=("10.0.0.66",)))
    pool.put(device("a", fingerprint="e" * 64))
    fake = pool.put(device("a", fingerprint="f" * 64, addresses=("10.0.0.66",)))
    assert set(pool.members) == {true, fake}
    assert pool.start_visits() == [fake]
    pool.turned_away(fake, Untrusted("another certificate"))
    assert pool.choose("m", None, PATH, ()) is true
    assert pool.put(true.device) is true
    assert pool.members == (true,)


def test_a_renewed_certificate_takes_over() -> None:
    """The new one proved itself, so the old one goes, and no device counts twice."""
    pool = pool_of("a")
    old = member_of(pool, "a")
    new = pool.put(device("a", fingerprint="f" * 64))
    assert pool.choose("m", None, PATH, ()) is old
    pool.start_visits()
    pool.welcomed(new, MODELS)
    assert pool.members == (new,)
    assert old not in pool


def test_one_that_is_announced_no_more_is_dropped_when_it_fails() -> None:
    """A name taken over for good: the old device serves as long as it answers."""
    pool = pool_of("a")
    old = member_of(pool, "a")
    new = pool.put(device("a", fingerprint="f" * 64))
    pool.failed(pool.begin(old, PATH), ConnectionFailed("refused", is_unsent=True))
    assert pool.members == (new,)


def test_a_device_that_left_may_answer_still() -> None:
    """A goodbye ends new calls; the leases of the old ones end as ever."""
    pool = pool_of("a", "b")
    member = member_of(pool, "a")
    lease = pool.begin(member, PATH)
    pool.remove("a")
    pool.remove("unknown")
    assert chosen(pool) == {"b"}
    assert member not in pool
    pool.answered(lease)
    assert member.in_flight == 0


def test_few_calls_are_sent_twice() -> None:
    """A tenth of all calls, and a handful at first."""
    pool = pool_of("a")
    assert sum(pool.take_credit() for _ in range(100)) == 10
    for _ in range(1000):
        pool.answered(pool.begin(member_of(pool, "a"), PATH))
        pool.take_credit()
    hedged = 0
    for _ in range(1000):
        pool.answered(pool.begin(member_of(pool, "a"), PATH))
        hedged += pool.take_credit()
    assert 95 <= hedged <= 105


def test_refusals_say_why() -> None:
    """Device by device, in words for a person."""
    pool = pool_of("a", "b", "c")
    pool.put(device("a", state="draining"))
    pool.failed(pool.begin(member_of(pool, "b"), PATH), Untrusted("b shows another certificate"))
    pool.put(device("d"))
    assert sorted(pool.refusals("x", None)) == [
        "a: draining", "b: b shows another certificate", "c: does not serve it", "d: not asked yet",
    ]  # fmt: skip


NAMES = st.sampled_from(["a", "b", "c"])
ERRORS = st.sampled_from(
    [
        ConnectionFailed("reset"),
        ConnectionFailed("refused", is_unsent=True),
        Untrusted("who"),
        DeadlineExceeded("late"),
        Overloaded("full", status=429, retry_after_s=1.0),
        NotReady("draining", status=503, retry_after_s=0.5),
        NotFound("m", status=404),
        EngineFault("boom", status=500),
        InvalidRequest("no", status=400),
    ]
)


class AnyHistory(RuleBasedStateMachine):
    """Devices come, change, fail and go in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.pool = Pool(clock=self.clock, rng=Random(3))
        self.leases: list[Lease] = []
        self.visits: list[Member] = []

    @rule(
        name=NAMES, load=st.sampled_from(["idle", "full"]), state=st.sampled_from(["ready", "loading", "draining"]),
        fingerprint=st.sampled_from(["1" * 64, "2" * 64]), digest=st.sampled_from(["", "ab"]),
    )  # fmt: skip
    def announce(self, name: str, **changes: Any) -> None:
        changes["models_digest"] = changes.pop("digest")
        self.pool.put(msgspec.structs.replace(device(name), **changes))

    @rule(name=NAMES)
    def leave(self, name: str) -> None:
        self.pool.remove(name)

    @rule(seconds=st.floats(0.0, 5.0))
    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @rule()
    def visit(self) -> None:
        self.visits += self.pool.start_visits()

    @rule(error=st.none() | ERRORS, models=st.sampled_from([MODELS, frozenset[tuple[str, str]](), None]))
    def end_visit(self, error: InferdError | None, models: Models | None) -> None:
        if self.visits:
            member = self.visits.pop(0)
            if error:
                self.pool.turned_away(member, error)
            else:
                self.pool.welcomed(member, models)

    @rule(avoided=st.lists(NAMES))
    def call(self, avoided: list[str]) -> None:
        avoid = {each for each in self.pool.members if each.device.name in avoided}
        member = self.pool.choose("m", None, PATH, avoid)
        if member is not None:
            assert member in self.pool
            assert member.is_in
            assert member not in avoid
            assert member.device.state != "draining"
            assert member.rest_until_s <= self.clock.now_s
            assert member.serves("m", None)
            self.leases.append(self.pool.begin(member, PATH))

    @rule(error=st.none() | ERRORS, at=st.integers(0, 9))
    def end_call(self, error: InferdError | None, at: int) -> None:
        if self.leases:
            lease = self.leases.pop(at % len(self.leases))
            if error:
                self.pool.failed(lease, error)
            elif at == 0:
                self.pool.abandoned(lease)
            else:
                self.pool.answered(lease)

    @invariant()
    def everything_is_bounded(self) -> None:
        """At most the device announced and one that still serves by each name; calls under way are as many as began."""
        names = [each.device.name for each in self.pool.members]
        assert all(names.count(name) <= 2 for name in names)
        for member in {*self.pool.members, *(lease.member for lease in self.leases)}:
            assert member.in_flight == sum(lease.member is member for lease in self.leases)

    @invariant()
    def nobody_is_forgotten(self) -> None:
        """Whoever is out is being visited, or will be before long."""
        for member in self.pool.members:
            pause_s = member.visit_at_s - self.clock.now_s
            assert member.is_in or member.is_visited or pause_s <= 1.2 * rules.LONGEST_OUT_S


AnyHistory.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyHistory = AnyHistory.TestCase
