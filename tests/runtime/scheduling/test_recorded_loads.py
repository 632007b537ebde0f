"""The governor on load as it is: recorded on a machine with two cores, and made up of neighbours that come and go."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_runtime.probe.load import LoadSample
from inferd_runtime.scheduling.policy import Policy, Stance, decide
from tests.runtime.scheduling.loads import WINDOW_S, load

FOLDER = Path(__file__).parents[2] / "fixtures" / "loads"
# Seconds until a core is given, and until all are back.
GIVES_S, TAKES_S = 0.5, 1.5


@dataclass(frozen=True)
class Recording:
    """What tests/fixtures/loads/record.py wrote; `phases` are (who is there, first sample, end)."""

    phases: list[tuple[str, int, int]]
    samples: list[LoadSample]

    def sizes(self) -> list[int]:
        """What the polite governor would have done with two cores."""
        stances = itertools.accumulate(
            self.samples, lambda stance, seen: decide(stance, seen, POLICY), initial=Stance(2)
        )
        return [stance.size for stance in stances][1:]


POLICY = Policy(1, 2)


def recorded(name: str) -> Recording:
    told = json.loads((FOLDER / f"{name}.json").read_text())
    names, starts = zip(*told["phases"], strict=True)
    ends = (*starts[1:], len(told["rows"]))
    samples = [
        replace(
            load(0.0, cores=told["cores"]),
            window_s=window_s, host_busy_cores=host, own_busy_cores=own, callers_busy_cores=callers, pressure=pressure,
        )
        for window_s, host, own, callers, pressure in told["rows"]
    ]  # fmt: skip
    return Recording(list(zip(names, starts, ends, strict=True)), samples)


def changes(sizes: Sequence[int]) -> int:
    return sum(a != b for a, b in itertools.pairwise(sizes))


@pytest.mark.parametrize("name", ["client-alone", "busy-client"])
def test_those_who_call_us_cost_no_core(name: str) -> None:
    """A client on this machine, also one that keeps a core busy, is the reason for our work and no neighbour."""
    assert set(recorded(name).sizes()) == {2}


def test_a_client_would_cost_a_core_if_it_were_a_neighbour() -> None:
    """The recording of the busy client does tell both apart: its CPU time, not known as our caller's, looks foreign."""
    recording = recorded("busy-client")
    unknown = [replace(sample, callers_busy_cores=0.0) for sample in recording.samples]
    assert set(replace(recording, samples=unknown).sizes()) == {1}


@pytest.mark.parametrize("name", ["comes-and-goes", "jobs"])
def test_cores_follow_neighbours(name: str) -> None:
    """One neighbour, or a row of short jobs: the core is given in half a second and stays given while they are there;
    it is back a second and a half after they left, and stays."""
    recording = recorded(name)
    sizes = recording.sizes()
    for who, start, end in recording.phases:
        late = round((TAKES_S if who == "away" else GIVES_S) / WINDOW_S)
        assert set(sizes[start + late : end]) == {2 if who == "away" else 1}
    assert changes(sizes) == len(recording.phases) - 1


def test_a_starved_neighbour_gets_its_core() -> None:
    """Beside a budget that never shrank a neighbour had half a core; that was enough to see that it wanted more."""
    recording = recorded("starved")
    _, start, end = recording.phases[1]
    assert set(recording.sizes()[start + 2 : end]) == {1}


def test_bursts_move_the_budget_no_more_often_than_they_come() -> None:
    """A neighbour that works a third of the time has its core each time, and we have it between."""
    recording = recorded("bursts")
    _, start, end = recording.phases[1]
    sizes = recording.sizes()
    bursts = round((end - start) * WINDOW_S / 1.2)
    assert changes(sizes) <= 2 * (bursts + 1)
    assert sizes[-1] == 2


@given(
    st.integers(2, 32),
    st.lists(st.tuples(st.integers(0, 40), st.integers(6, 20)), min_size=1, max_size=8),
    st.sampled_from([0.1, 1.0]),
    st.randoms(use_true_random=False),
)
def test_neighbours_that_come_and_go_are_followed(cores, visits, weight, noise) -> None:  # type: ignore[no-untyped-def]
    """Neighbours who want whole cores, each for a while, get what batches of that weight leave them, seen with noise:
    the budget moves in one direction at most each time that they do. If it stands back it ends as what they leave."""
    policy, stance = Policy(1, cores), Stance(cores)
    for wanted, samples in visits:
        sizes = [stance.size]
        for _ in range(samples):
            had = min(wanted, cores * wanted / (wanted + stance.size * weight))
            seen = load(max(0.0, had + noise.uniform(-0.1, 0.1)), own=float(stance.size), cores=cores)
            stance = decide(stance, replace(seen, pressure=0.6 if wanted + stance.size > cores else 0.1), policy)
            sizes.append(stance.size)
        steps = [b - a for a, b in itertools.pairwise(sizes) if a != b]
        assert all(step > 0 for step in steps) or all(step < 0 for step in steps)
        if weight < 1:
            assert stance.size == max(1, cores - wanted)
