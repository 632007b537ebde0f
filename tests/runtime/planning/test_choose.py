"""The choice of what was measured: by objective, with noise, with an idle shape, and in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_runtime.planning.choose import BALANCED_REACH, NOISE, choose
from inferd_runtime.planning.evidence import Candidate, Trial
from inferd_runtime.planning.plan import OBJECTIVES


def trial(name: str, run_us: float, rows_per_s: float, memory_bytes: int = 0) -> Trial:
    """Of a name such as "ov 2x1", "ort int8 1x2 rows=4" or "ov 1x1 inline"."""
    engine, *words = name.split()
    shape = next(word for word in words if word[0].isdigit())
    variant = words[0] if words[0] != shape else ""
    rows = next((int(word.removeprefix("rows=")) for word in words if word.startswith("rows=")), 0)
    streams, threads = map(int, shape.split("x"))
    candidate = Candidate(engine, "cpu", variant, "auto", streams, threads, rows, "inline" in words)
    return Trial(candidate, "measured", run_us=run_us, rows_per_s=rows_per_s, memory_bytes=memory_bytes)


def chosen(objective: str, *trials: Trial) -> tuple[str, str]:
    """What is chosen, and its idle shape."""
    choice = choose(trials, objective)
    assert choice.chosen is not None
    return str(choice.chosen.candidate), str(choice.idle.candidate) if choice.idle is not None else ""


FAST, WIDE = trial("ov 1x2", 3000, 250), trial("ort 2x1", 9000, 400)


def test_each_objective_has_its_own_best() -> None:
    """The quickest for latency, the most rows for throughput, and for both what is not too slow alone."""
    assert chosen("latency", FAST, WIDE) == ("ov cpu 1x2", "")
    assert chosen("throughput", FAST, WIDE) == ("ort cpu 2x1", "")
    assert chosen("balanced", FAST, WIDE) == ("ov cpu 1x2", "")
    assert chosen("balanced", FAST, WIDE, trial("ort 1x2", 4400, 300))[0] == "ort cpu 2x1"


def test_an_idle_shape_joins_where_it_gains() -> None:
    """A tenth at least, of the same build, where memory allows; and a lone request's time counts with it."""
    loaded, idle = trial("ov 2x1", 5000, 400, 300), trial("ov 1x2", 3000, 300, 300)
    assert chosen("balanced", loaded, idle) == ("ov cpu 2x1", "ov cpu 1x2")
    assert chosen("throughput", loaded, idle) == ("ov cpu 2x1", "ov cpu 1x2")
    assert chosen("latency", loaded, idle) == ("ov cpu 1x2", "")
    assert chosen("throughput", loaded, trial("ov 1x2", 4600, 300)) == ("ov cpu 2x1", "")
    assert chosen("throughput", loaded, trial("ov int8 1x2", 3000, 300)) == ("ov cpu 2x1", "")
    tight = choose([loaded, idle], "balanced", spare_bytes=599)
    assert tight.chosen == idle  # 5 ms are more than 1.5 times 3 ms, and two sessions do not fit
    assert tight.idle is None
    assert choose([loaded, idle], "balanced", spare_bytes=600).idle == idle


def test_fixed_rows_must_not_hold_up_lone_requests() -> None:
    """Batches that are filled up take as long for two requests as for sixteen, and no idle shape makes up for that; so
    only who wants nothing but throughput gets them."""
    full, single, idle = trial("ov 2x1 rows=16", 18000, 1700), trial("ov 2x1", 1300, 1500), trial("ov 1x2", 1000, 1200)
    assert chosen("balanced", full, single, idle) == ("ov cpu 2x1", "ov cpu 1x2")
    assert chosen("throughput", full, single, idle) == ("ov cpu 2x1 rows=16", "ov cpu 1x2")
    assert chosen("balanced", trial("ov 2x1 rows=4", 1400, 1700), single, idle)[0] == "ov cpu 2x1 rows=4"


def test_within_the_noise_the_other_figure_decides_then_the_simpler() -> None:
    """A hair more is no reason for streams, threads or fixed rows."""
    assert chosen("latency", trial("ov 1x2", 1000, 500), trial("ov 1x4", 990, 400)) == ("ov cpu 1x2", "")
    assert chosen("latency", trial("ov 1x2", 1000, 500), trial("ov 1x2 rows=1", 980, 505)) == ("ov cpu 1x2", "")
    assert chosen("throughput", trial("ov 2x1", 1000, 500), trial("ort 2x1", 700, 490)) == ("ort cpu 2x1", "")
    light, heavy = trial("ov 2x1", 1000, 500, 10), trial("ort 2x1", 1000, 500, 90)
    assert chosen("throughput", light, heavy) == ("ov cpu 2x1", "")


def test_the_submitting_thread_is_for_the_quick() -> None:
    """A model that is over in less than a hop to a worker runs inline whatever streams would bring, others never."""
    wide = trial("ort 2x1", 20, 90_000)
    for objective in OBJECTIVES:
        assert chosen(objective, wide, trial("ort 1x1 inline", 19, 50_000)) == ("ort cpu 1x1 inline", "")
        assert chosen(objective, wide, trial("ort 1x1 inline", 260, 50_000)) == ("ort cpu 2x1", "")
        assert chosen(objective, trial("ort 1x1 inline", 9000, 100)) == ("ort cpu 1x1 inline", "")


def test_the_reason_is_for_people() -> None:
    """It says what was the goal, the figures, who was ahead by a hair, and what a lone request gets."""
    ahead = trial("ort 2x1", 5100, 401)
    choice = choose([trial("ov 2x1", 5000, 400), trial("ov 1x2", 3000, 300), ahead], "throughput")
    assert choice.reason == (
        "Measured: ov cpu 2x1 has the most rows per second, of 3 candidates (5 ms for one row, 400 rows per second). "
        "ort cpu 2x1 is ahead by no more than the noise. A lone request runs as 1x2 instead: 3 ms."
    )


def test_the_reason_tells_why_a_better_figure_was_not_chosen() -> None:
    """The table shows candidates of both kinds of threads; who cannot be chosen for that is told, not counted."""
    wide, inline = trial("ort 2x1", 38, 144_000), trial("ort 1x1 inline", 39, 118_000)
    assert choose([wide, inline], "throughput").reason == (
        "Measured: ort cpu 1x1 inline has the most rows per second, of 1 candidate on the submitting thread (39 us for "
        "one row, 118000 rows per second). Runs shorter than 250 us are not worth the way to another thread, so "
        "candidates there do not count."
    )
    slow = trial("ort 1x1 inline", 400, 150_000)
    told = choose([wide, slow], "throughput").reason
    assert "ort cpu 2x1 has the most rows per second, of 1 candidate (" in told
    assert told.endswith("Runs on the submitting thread took 250 us or more, which is too long there.")
    assert "250" not in choose([slow], "throughput").reason  # the settings want it there


def test_nothing_measured_is_no_choice() -> None:
    """Failures and vetoes are never chosen."""
    candidate = FAST.candidate
    choice = choose([Trial(candidate, "failed", "crashed"), Trial(candidate, "vetoed", "strays")], "balanced")
    assert choice.chosen is choice.idle is None
    assert "static rule" in choice.reason


TRIALS = st.lists(
    st.builds(
        trial,
        st.sampled_from(["ov 2x1", "ov 1x2", "ort 2x1", "ort int8 1x2", "ov 1x2 rows=1", "ov 2x1 rows=4"]),
        st.floats(300, 1e6),
        st.floats(1, 1e6),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda one: one.candidate,
)


@given(TRIALS, st.sampled_from(OBJECTIVES))
def test_the_choice_is_never_far_from_the_best(trials: list[Trial], objective: str) -> None:
    """Within the noise of the best figure; balanced within its reach of the quickest, and better than who is, too."""
    choice = choose(trials, objective)
    one, idle = choice.chosen, choice.idle
    assert one is not None
    lone_us = (idle or one).run_us
    if objective == "latency":
        assert one.run_us <= min(t.run_us for t in trials) * NOISE
    elif objective == "throughput":
        assert one.rows_per_s * NOISE >= max(t.rows_per_s for t in trials)
    else:
        limit_us = min(t.run_us for t in trials) * BALANCED_REACH
        assert lone_us <= limit_us * (1 + 1e-9)
        assert one.rows_per_s * NOISE >= max(t.rows_per_s for t in trials if t.run_us <= limit_us)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_order_of_trials_does_not_matter(objective: str) -> None:
    """The same figures give the same plan."""
    trials = [FAST, WIDE, trial("ov 2x1", 5000, 401), trial("ort 1x2", 4400, 300), trial("ov 1x2 rows=1", 2950, 250)]
    assert choose(trials, objective) == choose(trials[::-1], objective)
