"""How many cores our batches may hold: a pure function of the last stance, one load sample and the policy.

It shrinks at once, and after calm takes what was free all the while; the gap between the thresholds keeps it still
under a constant load. Invariant: the size is never below the floor nor above the ceiling, except where fewer cores than
that are left to this process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inferd_runtime.probe.load import LoadSample

MODES = ("polite", "fair", "fixed")
# We give a core back once others use more than this much of it, and take it again when they use less than the last.
YIELD_ABOVE_CORES = 0.75
# While tasks wait for CPUs for that share of the time, others want more than they get: they only seem to use less. (Our
# own event loop and batches that want the same CPU make up a quarter where nobody else is there.)
PRESSED_ABOVE = 0.4
YIELD_ABOVE_CORES_PRESSED = 0.5
REGAIN_BELOW_CORES = 0.25
# Room must have been there for so long before the budget grows.
CALM_S = 0.75
# Counters are too coarse to say anything about less.
SHORTEST_WINDOW_S = 0.05
# While our control group is stopped in more of its quota periods than this, more cores would only be stopped sooner.
THROTTLED_ABOVE = 0.25
# Heat is slow: a core less or more, then we wait for what comes of it. Cores come back so far below the mark.
HEAT_STEP_S = 5.0
COOL_BY_C = 5.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What the governor may do.

    "polite" moves between `floor` and `ceiling` as others leave us cores, less `headroom`; "fair" does so too, but
    keeps half; "fixed" stays at the ceiling. `counts_siblings`: the ceiling is in logical CPUs, not in physical cores.
    `max_temperature_c` 0 stands for the mark of the processor's own drivers. `battery_share` of the ceiling is left
    while a battery feeds the machine.
    """

    floor: int
    ceiling: int
    mode: str = "polite"
    counts_siblings: bool = False
    headroom: float = 0.0
    max_temperature_c: float = 0.0
    battery_share: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"the governor is one of {', '.join(MODES)}, not {self.mode!r}")
        if not 1 <= self.floor <= self.ceiling:
            raise ValueError(f"the core floor {self.floor} must be from 1 to the ceiling {self.ceiling}")


@dataclass(frozen=True, slots=True)
class Stance:
    """The size chosen, and why. There has been `room` for more cores for `calm_s`. Heat left us `cool_size` cores, 0
    for all, `heat_s` ago."""

    size: int
    calm_s: float = 0.0
    room: int = 0
    cool_size: int = 0
    heat_s: float = 0.0
    reason: str = ""


def decide(stance: Stance, sample: LoadSample, policy: Policy) -> Stance:
    """The next stance."""
    if sample.window_s < SHORTEST_WINDOW_S:
        return stance
    cores = sample.core_count if policy.counts_siblings else sample.physical_count
    if policy.mode == "fixed":
        return Stance(min(policy.ceiling, cores), reason=f"{cores} cores are allowed now")
    cool_size, heat_s = _heed_heat(stance, sample, policy)
    ceiling, reason = _bound(sample, policy, cores, cool_size)
    floor = min(ceiling, max(policy.floor, math.ceil(ceiling / 2) if policy.mode == "fair" else 1))

    def take(size: int, reason: str, calm_s: float = 0.0, room: int = 0) -> Stance:
        return Stance(size, calm_s, room, cool_size, heat_s, reason)

    size = max(stance.size, floor)
    if size > ceiling:
        size = ceiling
    else:
        reason = f"others use {sample.others_busy_cores:.2f} of {cores} cores"
    free = cores - policy.headroom - sample.others_busy_cores
    is_pressed = (sample.pressure or 0.0) > PRESSED_ABOVE
    kept = math.floor(free + (YIELD_ABOVE_CORES_PRESSED if is_pressed else YIELD_ABOVE_CORES))
    if kept < size:
        return take(max(floor, kept), reason)
    room = min(ceiling, math.floor(free + REGAIN_BELOW_CORES))
    if room <= size or (sample.throttled or 0.0) > THROTTLED_ABOVE:
        return take(size, reason)
    if stance.calm_s:
        room = min(room, stance.room)
    calm_s = stance.calm_s + sample.window_s
    return take(size, reason, calm_s, room) if calm_s < CALM_S else take(room, reason)


def _bound(sample: LoadSample, policy: Policy, cores: int, cool_size: int) -> tuple[int, str]:
    """(the most cores that we may hold now, whoever else is there; why no more)."""
    bounds = [
        (policy.ceiling, "the ceiling"),
        (cores, f"{cores} cores are allowed now"),
        (cool_size or policy.ceiling, f"the processor has {sample.temperature_c} degrees"),
    ]
    if sample.on_battery:
        left = max(policy.floor, math.floor(policy.ceiling * policy.battery_share))
        bounds.append((left, "the machine runs on its battery"))
    return min(bounds, key=lambda bound: bound[0])


def _heed_heat(stance: Stance, sample: LoadSample, policy: Policy) -> tuple[int, float]:
    """(the cores that heat leaves us, 0 for all; since when)."""
    hot_c, now_c = policy.max_temperature_c or sample.hot_c, sample.temperature_c
    if hot_c is None or now_c is None:
        return 0, 0.0
    waited_s = stance.heat_s + sample.window_s
    if now_c >= hot_c and (waited_s >= HEAT_STEP_S or not stance.cool_size):
        return max(policy.floor, min(stance.size, stance.cool_size or stance.size) - 1), 0.0
    if now_c < hot_c - COOL_BY_C and stance.cool_size and waited_s >= HEAT_STEP_S:
        warmer = stance.cool_size + 1
        return (warmer if warmer < policy.ceiling else 0), 0.0
    return stance.cool_size, waited_s
