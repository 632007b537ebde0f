"""Which device gets a call, which gets none for now, and whom to look after: a fleet's balancing as a pure core.

No sockets, no tasks, no clock or dice of its own. It belongs to one thread: the loop that runs the fleet.

Of two devices drawn by speed the one with fewer of our calls under way is taken. Drawing by speed shares out few calls
in proportion, and by Little's law equal numbers under way do so for many.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from random import Random
from statistics import median

from inferd.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    InferdError,
    NotFound,
    NotReady,
    Overloaded,
    Unauthenticated,
)
from inferd.fleet.record import Device, Load

# What a device says of itself is late, coarse and may be our own doing: newcomers are judged by it. Once there are
# answers they say more, but for a device that is full.
LOAD_SPEEDS: dict[Load, float] = {"idle": 1.0, "light": 0.9, "busy": 0.6, "full": 0.3}
# The slowest is still drawn so often, beside the typical one, or nobody would learn that it has become fast again; and
# one that seems fast from few answers does not get everything.
MOST_WEIGHT = 8.0
# Latencies this far from the typical one, or nearer, are taken for noise.
NOISE = 2.0
# A device's latency is the median of so many answers: hiccups and first connections do not count, a change soon does.
RECENT = 31
LEAST_S = 1e-9
MAX_TIMED = 64

HEDGED_SHARE = 0.1
MAX_CREDIT = 10.0

FIRST_OUT_S = 0.25
LONGEST_OUT_S = 10.0
# An engine's faults may be the request's; so many in a row are the device's.
MAX_FAULTS = 3
LONGEST_REST_S = 5.0
# Calls under way and not a word for so long: look whether it lives.
SILENCE_S = 1.0
VISIT_EVERY_S = 60.0
VISIT_AGAIN_S = 1.0

Models = frozenset[tuple[str, str]]
NEVER = math.inf


class Member:
    """One device of the pool. `models`: names and versions that it serves, None where the token may not ask."""

    def __init__(self, device: Device, now_s: float) -> None:
        self.device = device
        self.models: Models | None = frozenset()
        self.names: frozenset[str] = frozenset()
        self.in_flight = 0
        self.is_in = False
        self.is_visited = False
        self.refusal = "not asked yet"
        self.rest_until_s = -math.inf
        self.visit_at_s = now_s
        self.heard_s = now_s
        self.outs = 0
        self.faults = 0
        self._recent_s: dict[str, deque[float]] = {}
        self._typical_s: dict[str, float] = {}

    def serves(self, model: str | None, version: str | int | None) -> bool:
        """Whether it does, as far as is known; without a model, whether it serves anything at all."""
        if self.models is None:
            return True
        if model is None:
            return bool(self.models)
        return model in self.names if version is None else (model, str(version)) in self.models

    def latency_s(self, path: str) -> float | None:
        """What calls of this path take there, None before the first answer."""
        return self._typical_s.get(path)

    def time(self, path: str, took_s: float) -> None:
        """Learn from one answer."""
        recent = self._recent_s.pop(path, None) or deque(maxlen=RECENT)
        recent.append(took_s)
        self._recent_s[path] = recent  # at the end, so that the first is the longest unused
        self._typical_s[path] = median(recent)
        if len(self._recent_s) > MAX_TIMED:
            oldest = next(iter(self._recent_s))
            del self._recent_s[oldest], self._typical_s[oldest]


@dataclass(frozen=True, slots=True)
class Lease:
    """One call under way at a device. It ends once, in one of `answered`, `failed` and `abandoned`."""

    member: Member
    path: str
    began_s: float


class Pool:
    """The devices of a fleet; with a `model`, only those are used that serve it."""

    def __init__(
        self, model: str | None = None, *, clock: Callable[[], float] = time.monotonic, rng: Random | None = None
    ) -> None:
        self._model = model
        self._clock = clock
        self._rng = rng or Random()  # noqa: S311  no secret hangs on it
        self._members: dict[tuple[object, ...], Member] = {}
        self._announced: dict[str, Member] = {}
        self._credit = MAX_CREDIT

    @property
    def members(self) -> tuple[Member, ...]:
        """All of them, in or out."""
        return tuple(self._members.values())

    def __contains__(self, member: Member) -> bool:
        return self._members.get(_place(member.device)) is member

    def put(self, device: Device) -> Member:
        """A new device, or what is new about one.

        Another certificate, port or identity under a known name may be a renewal or an impostor. So it is one more
        member, which is asked first; the other stays until the new one has proved itself, or until it fails.
        """
        now = self._clock()
        member = self._members.get(_place(device))
        if member is None:
            member = self._members[_place(device)] = Member(device, now)
        elif _what_a_visit_finds(member.device) != _what_a_visit_finds(device):
            member.visit_at_s = now
        member.device = device
        self._announced[device.name] = member
        self._drop(device.name, lambda other: other is not member and not other.is_in)
        return member

    def remove(self, name: str) -> None:
        """A device left; its calls under way may end well."""
        self._announced.pop(name, None)
        self._drop(name, lambda member: True)

    def choose(
        self, model: str | None, version: str | int | None, path: str, avoid: Container[Member]
    ) -> Member | None:
        """The device for a call, None when none can take it now."""
        now = self._clock()
        able = [
            each
            for each in self._members.values()
            if each.is_in
            and each.device.state != "draining"
            and each.rest_until_s <= now
            and each not in avoid
            and self._is_wanted(each, model, version)
        ]
        if len(able) < 2:
            return able[0] if able else None
        weights = self._weights(able, path)
        first = self._draw(weights)
        one, weights[first] = able[first], 0.0
        other = able[self._draw(weights)]
        return other if other.in_flight < one.in_flight else one

    def _is_wanted(self, member: Member, model: str | None, version: str | int | None) -> bool:
        return member.serves(self._model, None) and member.serves(model, version)

    def begin(self, member: Member, path: str) -> Lease:
        """A call goes there."""
        now = self._clock()
        if not member.in_flight:
            member.heard_s = now
        member.in_flight += 1
        self._credit = min(MAX_CREDIT, self._credit + HEDGED_SHARE)
        return Lease(member, path, now)

    def answered(self, lease: Lease) -> None:
        """The call came back with its answer."""
        now, member = self._clock(), lease.member
        member.in_flight -= 1
        member.heard_s = now
        member.faults = member.outs = 0
        member.time(lease.path, now - lease.began_s)

    def abandoned(self, lease: Lease) -> None:
        """The call was given up by whoever made it, because another device was faster, say."""
        lease.member.in_flight -= 1
        took_s = self._clock() - lease.began_s
        if took_s > (lease.member.latency_s(lease.path) or 0.0):
            lease.member.time(lease.path, took_s)

    def take_credit(self) -> bool:
        """Whether one more call may be sent twice: a share of all calls, so that a slow fleet is not made slower."""
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def failed(self, lease: Lease, error: InferdError) -> None:
        """The call came back with an error: draw the consequences for the device."""
        now, member = self._clock(), lease.member
        member.in_flight -= 1
        if error.status is not None:
            member.heard_s = now
        if isinstance(error, (ConnectionFailed, Unauthenticated)):
            self._put_out(member, error)
        elif isinstance(error, (Overloaded, NotReady)):
            rest_s = min(VISIT_AGAIN_S if error.retry_after_s is None else error.retry_after_s, LONGEST_REST_S)
            member.rest_until_s = now + rest_s
            if isinstance(error, NotReady):
                member.visit_at_s = min(member.visit_at_s, now + rest_s)
        elif isinstance(error, NotFound):
            member.visit_at_s = min(member.visit_at_s, now + VISIT_AGAIN_S)
        elif error.status is None or error.status >= 500:
            if isinstance(error, DeadlineExceeded):
                member.time(lease.path, now - lease.began_s)
            member.faults += 1
            if member.faults >= MAX_FAULTS:
                self._put_out(member, error)

    def start_visits(self) -> list[Member]:
        """Those to be asked now what they serve, as a proof that they live: each is to end in one of the next two."""
        now = self._clock()
        due = [each for each in self._members.values() if not each.is_visited and self._visit_due_s(each) <= now]
        for member in due:
            member.is_visited = True
        return due

    def next_visit_s(self) -> float:
        """Seconds until `start_visits` has somebody, as things stand."""
        dues = (self._visit_due_s(each) for each in self._members.values() if not each.is_visited)
        return max(0.0, min(dues, default=NEVER) - self._clock())

    def welcomed(self, member: Member, models: Models | None) -> None:
        """A visit went well."""
        now = self._clock()
        member.models = models
        member.names = frozenset(name for name, _ in models or ())
        member.is_in, member.is_visited, member.refusal = True, False, ""
        member.heard_s = now
        member.visit_at_s = now + VISIT_EVERY_S * self._rng.uniform(0.8, 1.2)
        if self._is_announced(member):
            self._drop(member.device.name, lambda other: other is not member)

    def turned_away(self, member: Member, error: InferdError) -> None:
        """A visit went wrong."""
        member.is_visited = False
        self._put_out(member, error)

    def hurry(self) -> None:
        """Somebody waits for a device: look sooner after those that are out, though not without pause."""
        soon = self._clock() + VISIT_AGAIN_S
        for member in self._members.values():
            if not member.is_in:
                member.visit_at_s = min(member.visit_at_s, soon)

    def refusals(self, model: str | None, version: str | int | None) -> list[str]:
        """Why each device cannot take a call for this model, by name."""
        now = self._clock()
        return [f"{each.device.name}: {self._refusal(each, model, version, now)}" for each in self._members.values()]

    def _refusal(self, member: Member, model: str | None, version: str | int | None, now: float) -> str:
        if not member.is_in:
            return member.refusal
        if member.device.state == "draining":
            return "draining"
        if not self._is_wanted(member, model, version):
            return "does not serve it"
        return f"busy for {member.rest_until_s - now:.1f} s more" if member.rest_until_s > now else "failed just now"

    def _put_out(self, member: Member, error: InferdError) -> None:
        if member.is_in or member.visit_at_s <= self._clock():
            member.outs += 1
            pause_s: float = min(FIRST_OUT_S * 2 ** min(member.outs - 1, 16), LONGEST_OUT_S)
            member.visit_at_s = self._clock() + pause_s * self._rng.uniform(0.8, 1.2)
        member.is_in, member.faults, member.refusal = False, 0, error.message
        if not self._is_announced(member):
            self._drop(member.device.name, lambda other: other is member)

    def _is_announced(self, member: Member) -> bool:
        return self._announced.get(member.device.name) is member

    def _drop(self, name: str, is_dropped: Callable[[Member], bool]) -> None:
        gone = [at for at, each in self._members.items() if each.device.name == name and is_dropped(each)]
        for at in gone:
            del self._members[at]

    def _visit_due_s(self, member: Member) -> float:
        silence_ends_s = member.heard_s + SILENCE_S if member.is_in and member.in_flight else NEVER
        return min(member.visit_at_s, silence_ends_s)

    def _weights(self, members: Iterable[Member], path: str) -> list[float]:
        """How often each is drawn: by its speed, where that is not the typical one."""
        latencies_s = [(each.device.load, each.latency_s(path)) for each in members]
        known_s = [latency_s for _, latency_s in latencies_s if latency_s is not None]
        typical_s = median(known_s) if known_s else 0.0
        return [_speed(load, latency_s, typical_s) for load, latency_s in latencies_s]

    def _draw(self, weights: list[float]) -> int:
        return self._rng.choices(range(len(weights)), weights)[0]


def _speed(load: Load, latency_s: float | None, typical_s: float) -> float:
    """How many times as fast as the typical device."""
    if latency_s is None:
        return LOAD_SPEEDS[load]
    speed = max(typical_s, LEAST_S) / max(latency_s, LEAST_S)
    if 1 / NOISE < speed < NOISE:
        speed = 1.0
    if load == "full":
        speed *= LOAD_SPEEDS["full"]
    return min(max(speed, 1 / MOST_WEIGHT), MOST_WEIGHT)


def _place(device: Device) -> tuple[object, ...]:
    return device.name, device.instance_id, device.port, device.fingerprint


def _what_a_visit_finds(device: Device) -> tuple[object, ...]:
    return device.models_digest, device.state, device.addresses
