"""The rolling profile of run times, and the batch size that follows from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_runtime.scheduling.profile import FRESH_NS, WINDOW, Profile
from inferd_runtime.scheduling.sizing import Sizing

# Rows together cost a fixed 900 us and 100 us each.
STEEP = tuple((rows, 900.0 + 100.0 * rows) for rows in (1, 2, 4, 8, 16))
# Rows together gain 3 percent at most.
FLAT = tuple((rows, 5000.0 * rows * (0.97 if rows > 1 else 1.0)) for rows in (1, 2, 4, 8, 16))
# And these nothing at all but what every batch costs beside its run.
EVEN = tuple((rows, 500.0 * rows) for rows in (1, 2, 4, 8, 16))
# The gain ends at 4 rows.
KNEE = ((1, 1000.0), (2, 1200.0), (4, 1600.0), (8, 3300.0), (16, 7000.0))
US = 1000


def observe(profile: Profile, rows: int, took_us: float, count: int = WINDOW, now_ns: int = 0) -> None:
    for _ in range(count):
        profile.add(rows, took_us * US, now_ns)


def test_the_planned_curve_is_the_start() -> None:
    """Before any run the measured curve stands, straight between its points and beyond them."""
    profile = Profile(STEEP, 1000.0, 64)
    assert [profile.typical_ns(rows) / US for rows in (1, 2, 3, 8, 16, 64, 128)] == pytest.approx(
        [1000, 1100, 1200, 1700, 2500, 7300, 14_600]
    )
    assert profile.slow_ns(8) == profile.typical_ns(8)


def test_without_a_curve_hope_stands() -> None:
    """A plan that measured one row only is tried with many."""
    profile = Profile((), 50.0, 64)
    assert profile.typical_ns(1) == profile.typical_ns(64) == 50 * US
    assert profile.useful_rows(16) == 16


def test_a_curve_may_start_late() -> None:
    """Fewer rows than were measured take as long as the fewest that were."""
    profile = Profile(((4, 800.0), (8, 900.0)), 800.0, 16)
    assert profile.typical_ns(1) == profile.typical_ns(4) == 800 * US
    assert profile.typical_ns(16) == 1100 * US


def test_runs_correct_the_curve() -> None:
    """What runs really take replaces what was planned; sizes not seen drift along with their neighbours."""
    profile = Profile(STEEP, 1000.0, 16)
    observe(profile, 4, 2600.0)
    assert profile.typical_ns(4) == 2600 * US
    assert profile.typical_ns(16) == pytest.approx(5000 * US)
    assert profile.typical_ns(1) == pytest.approx(2000 * US)
    observe(profile, 1, 1000.0)
    assert profile.typical_ns(1) == 1000 * US
    assert profile.typical_ns(16) == pytest.approx(5000 * US)


def test_odd_sizes_are_learnt_too() -> None:
    """Runs of sizes between the steps teach the step above them in proportion."""
    profile = Profile((), 100.0, 16)
    for _ in range(10):
        for rows in (1, 2, 3, 5, 6, 7, 11, 13):
            observe(profile, rows, 100.0 * rows)
    for rows in (1, 4, 8, 16):
        assert profile.typical_ns(rows) == pytest.approx(100 * rows * US, rel=0.1)


def test_the_slow_ones_are_known() -> None:
    """One run in ten that takes five times as long counts in the careful figure and not in the typical one."""
    profile = Profile((), 100.0, 1)
    for i in range(WINDOW):
        observe(profile, 1, 500.0 if i % 10 == 0 else 100.0, count=1)
    assert (profile.typical_ns(1), profile.slow_ns(1)) == (100 * US, 500 * US)


def test_two_strange_runs_prove_nothing() -> None:
    """A size counts as known after five runs, and a rare slow run does not change what is typical."""
    profile = Profile(STEEP, 1000.0, 16)
    observe(profile, 16, 90_000.0, count=4)
    assert profile.typical_ns(16) == 2500 * US
    observe(profile, 1, 1000.0, count=20)
    observe(profile, 1, 50_000.0, count=1)
    observe(profile, 1, 1000.0, count=11)
    assert profile.typical_ns(1) == 1000 * US


def test_what_was_not_seen_for_long_is_forgotten() -> None:
    """Figures from before the quiet do not stand in the way of trying again."""
    profile = Profile(STEEP, 1000.0, 16)
    observe(profile, 16, 40_000.0)
    observe(profile, 1, 1000.0, now_ns=FRESH_NS)
    assert profile.useful_rows(16) < 16
    observe(profile, 1, 1000.0, now_ns=FRESH_NS + 1)
    assert profile.typical_ns(16) == 2500 * US
    assert profile.useful_rows(16) == 16
    observe(profile, 16, 2600.0, count=5, now_ns=FRESH_NS + 1)
    observe(profile, 1, 1000.0, now_ns=FRESH_NS + 1)
    assert profile.typical_ns(16) == 2600 * US


def test_long_runs_are_remembered_longer() -> None:
    """Trying a size again takes a tenth of the time at most: what takes long is tried seldom."""
    profile = Profile(STEEP, 1000.0, 16)
    observe(profile, 16, 400_000.0)
    observe(profile, 1, 1000.0, now_ns=50 * 400_000 * US)
    assert profile.typical_ns(16) == 400_000 * US
    observe(profile, 1, 1000.0, now_ns=50 * 400_000 * US + 1)
    assert profile.typical_ns(16) == 2500 * US


def test_what_a_batch_costs_beside_its_run_counts() -> None:
    """Where runs of a row take next to nothing, larger batches than the runs alone ask for serve more."""
    micro = ((1, 10.0), (2, 11.0), (4, 16.0), (8, 32.0), (16, 64.0))
    slow = tuple((rows, 1000 * took) for rows, took in micro)
    assert (Profile(micro, 10.0, 16).useful_rows(16), Profile(slow, 10_000.0, 16).useful_rows(16)) == (16, 4)


@pytest.mark.parametrize(
    ("curve", "most", "rows"), [(STEEP, 16, 16), (STEEP, 6, 6), (KNEE, 16, 4), (EVEN, 16, 4), (FLAT, 16, 1)]
)
def test_as_many_rows_as_pay(curve: tuple[tuple[int, float], ...], most: int, rows: int) -> None:
    """All that may gather where each more pays, the knee where the gain ends, one where there is none."""
    assert Profile(curve, curve[0][1], 64).useful_rows(most) == rows


def test_rows_that_fit_a_time() -> None:
    """The most rows whose run is over in time, and always one."""
    profile = Profile(STEEP, 1000.0, 64)
    assert [profile.rows_within(us * US, 16) for us in (0, 999, 1100, 1250, 2499, 2500, 1e9)] == [
        1,
        1,
        2,
        3,
        15,
        16,
        16,
    ]
    assert profile.rows_within(0, 1) == 1


@given(
    st.lists(st.tuples(st.integers(1, 64), st.floats(0, 1e9), st.integers(0, 10**11)), max_size=200),
    st.sampled_from([(), STEEP, KNEE, FLAT]),
    st.integers(1, 64),
)
def test_more_rows_never_take_less(
    runs: list[tuple[int, float, int]], curve: tuple[tuple[int, float], ...], most: int
) -> None:
    """Whatever is observed, times rise with rows and the batch size stays within its bounds."""
    sizing = Sizing(Profile(curve, 1000.0, 64), most)
    for rows, took_ns, now_ns in runs:
        sizing.ran(rows, int(took_ns), now_ns, is_late=took_ns > 9e8)
        assert 1 <= sizing.rows <= most
    for read in (sizing.profile.typical_ns, sizing.profile.slow_ns):
        times = [read(rows) for rows in range(1, 130)]
        assert times == sorted(times)
    assert 1 <= sizing.profile.rows_within(5e6, most) <= most


class Driver:
    """Runs batches of the present size, far enough apart to be counted."""

    def __init__(self, curve: tuple[tuple[int, float], ...], most: int) -> None:
        self.sizing = Sizing(Profile(curve, 1000.0, 64), most)
        self.now_ns = 0

    def run(self, count: int, took_us: float = 1000.0, *, is_late: bool = False) -> int:
        for _ in range(count):
            self.now_ns += 25_000_000
            self.sizing.ran(self.sizing.rows, int(took_us * US), self.now_ns, is_late)
        return self.sizing.rows


def test_missed_deadlines_shrink_the_batch() -> None:
    """A tenth goes with every batch in which a deadline was missed; a row comes back with every stretch in time."""
    driver = Driver(((1, 1000.0), (64, 1000.0)), 64)
    assert driver.sizing.rows == 64
    assert [driver.run(1, is_late=True), driver.run(9, is_late=True)] == [57, 22]
    assert [driver.run(31), driver.run(1)] == [22, 23]
    assert [driver.run(100, is_late=True), driver.run(64 * 32)] == [1, 64]


def test_a_single_row_is_not_to_blame() -> None:
    """Where nothing is gathered a missed deadline takes nothing off the limit for later."""
    driver = Driver(FLAT, 16)
    assert driver.run(50, 5000.0, is_late=True) == 1
    observe(driver.sizing.profile, 16, 10_000.0, now_ns=driver.now_ns)
    assert driver.run(16, 5000.0) == 16


def test_micro_models_are_sampled() -> None:
    """Right after figures were worked out batches cost no learning, unless one was late."""
    sizing = Sizing(Profile(STEEP, 1000.0, 64), 16)
    sizing.ran(16, 2500 * US, 0, is_late=False)
    added = sizing.profile._added
    sizing.ran(16, 2500 * US, 1000, is_late=False)
    assert sizing.profile._added == added
    sizing.ran(16, 2500 * US, 1000, is_late=True)
    assert (sizing.profile._added, sizing.rows) == (added + 1, 14)
