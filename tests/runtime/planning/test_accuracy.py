"""The accuracy guard on answers whose distance is known, and on what the real engines answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd_agent.demo import digits
from inferd_runtime.engines import Session, SessionOptions
from inferd_runtime.engines.discover import open_engines
from inferd_runtime.planning.accuracy import FURTHEST, Array, Verdict, is_sound, judge

RANDOM = np.random.default_rng(7)
NUMBERS = RANDOM.standard_normal((16, 3)).astype(np.float32)
SCORES = RANDOM.dirichlet(np.full(12, 0.1), 40).astype(np.float32)  # most rows have one class that stands out


def compare(expected: Array, got: Array, **wishes: object) -> Verdict:
    """The verdict on one output of one request."""
    return judge(["y"], [[expected]], [[got]], **wishes)  # type: ignore[arg-type]


def test_the_same_answers_pass() -> None:
    """Whatever the kind of output, equal answers are at no distance."""
    for answer in (NUMBERS, SCORES, NUMBERS.astype(np.int64), np.array([b"a", b"b"], object), np.float32(3)):
        verdict = compare(np.asarray(answer), np.asarray(answer))
        assert verdict.ok
        assert verdict.figure == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("factor", "is_ok"), [(1.01, True), (1.03, False)])
def test_numbers_are_judged_by_relative_error(factor: float, is_ok: bool) -> None:
    """The same file may be off by two percent, and the figure is in the sentence."""
    verdict = compare(NUMBERS, NUMBERS * factor)
    assert (verdict.ok, verdict.metric) == (is_ok, "relative")
    assert verdict.figure == pytest.approx(factor - 1, rel=1e-3)
    assert f"relative error {verdict.figure:.2g}, 0.02 allowed" in verdict.sentence


def test_another_variant_may_stray_as_far_as_quantisation_does() -> None:
    """What vetoes an engine or a precision is still allowed to an INT8 file."""
    assert not compare(NUMBERS, NUMBERS * 1.1).ok
    assert compare(NUMBERS, NUMBERS * 1.1, is_other_variant=True).ok
    assert not compare(NUMBERS, NUMBERS * 1.3, is_other_variant=True).ok


def test_class_scores_are_judged_by_the_best_class() -> None:
    """Scores of 40 rows of which 4 have another best class: one in ten is too many for the same file."""
    swapped = SCORES.copy()
    swapped[:4] = np.roll(swapped[:4], 1, axis=1)
    verdict = compare(SCORES, swapped)
    assert (verdict.ok, verdict.metric) == (False, "top1")
    assert verdict.figure == pytest.approx(0.1)
    assert "the best class differs in 4 of 40 rows" in verdict.sentence
    blurred = SCORES * 0.9 + 0.1 / 12
    assert compare(SCORES, blurred).ok


def test_scores_with_the_same_best_class_may_not_point_elsewhere() -> None:
    """Where the best class holds, the direction of all scores still counts."""
    best = np.eye(12, dtype=np.float32)[SCORES.argmax(1)]
    flat = np.full_like(best, 0.08) + 0.04 * best
    verdict = compare(best, flat)
    assert (verdict.ok, verdict.metric) == (False, "cosine")


def test_on_made_up_inputs_undecided_rows_prove_nothing() -> None:
    """Rows whose best classes are close are not counted there, and the sentence says what the inputs were."""
    close = np.full((8, 4), 0.25, np.float32)
    close[:, 0] += 0.01
    close[:, 1] -= 0.01
    other = close[:, ::-1].copy()
    assert not compare(close, other).ok
    verdict = compare(close, other, is_made_up=True)
    assert verdict.ok
    assert "on made-up inputs" in verdict.sentence


def test_on_made_up_inputs_few_rows_prove_nothing() -> None:
    """Eight rows that are decided differently say something, seven do not; on real inputs one does."""
    decided = np.eye(2, dtype=np.float32)[[0] * 40] * 0.9 + 0.05
    other = decided.copy()
    other[:8] = other[:8, ::-1]
    assert not compare(decided[:8], other[:8], is_made_up=True).ok
    few = compare(decided[:7], other[:7], is_made_up=True, metric="top1")
    assert few.metric == "cosine"
    assert compare(decided[:1], other[:1]).metric == "top1"


def test_scores_of_nothing_prove_nothing() -> None:
    """A detector's map of noise is full of numbers near zero, whose ratios mean nothing."""
    nothing = np.full((1, 1, 8, 8), 1e-9, np.float32)
    assert compare(nothing, nothing * 3).ok
    assert compare(nothing, nothing + 0.01, is_other_variant=True, is_made_up=True).ok
    assert not compare(nothing, nothing + 0.5, is_other_variant=True, is_made_up=True).ok


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_broken(bad: float) -> None:
    """NaN or infinity where the reference has a number is no distance; where it has none nothing is compared."""
    answer = NUMBERS.copy()
    answer[3, 1] = bad
    assert compare(NUMBERS, answer).is_broken
    assert compare(answer, answer).ok
    assert compare(answer, NUMBERS).ok
    assert not compare(answer, NUMBERS * 2).ok


def test_other_shapes_are_broken() -> None:
    """Answers of another shape cannot be compared, and both shapes are told."""
    verdict = compare(NUMBERS, NUMBERS[:8])
    assert verdict.is_broken
    assert "shape [8, 3], the reference answers [16, 3]" in verdict.sentence


@pytest.mark.parametrize("answer", [np.arange(200), np.array([b"word"] * 200, object), np.ones(200, bool)])
def test_whole_numbers_and_strings_must_be_equal(answer: Array) -> None:
    """The share of values that differ is what counts."""
    changed = answer.copy()
    changed[:10] = b"x" if answer.dtype == object else 0
    changed[0] = b"y" if answer.dtype == object else not answer[0]
    verdict = compare(answer, changed)
    assert (verdict.ok, verdict.metric) == (False, "exact")
    assert verdict.figure == pytest.approx(0.05, abs=0.001)


def test_the_settings_overrule_metric_and_tolerance() -> None:
    """A metric and a tolerance from model.toml hold, whatever the kind of output and inputs."""
    assert compare(NUMBERS, NUMBERS * 1.5, metric="cosine").metric == "cosine"
    assert compare(NUMBERS, NUMBERS * 1.5, metric="cosine").ok
    assert compare(NUMBERS, NUMBERS * 1.1, tolerance=0.2).ok
    assert not compare(NUMBERS, NUMBERS * 1.01, tolerance=0.001, is_other_variant=True, is_made_up=True).ok
    assert compare(SCORES, SCORES * 1.1, metric="relative").figure == pytest.approx(0.1, rel=1e-3)
    assert compare(NUMBERS, NUMBERS[:, ::-1], metric="top1").metric in {"top1", "cosine"}


def test_the_worst_output_decides() -> None:
    """One output that strays is enough, and it is named."""
    verdict = judge(["good", "bad"], [[NUMBERS, NUMBERS]], [[NUMBERS, NUMBERS * 2]])
    assert not verdict.ok
    assert "'bad'" in verdict.sentence


def test_distances_are_over_all_requests() -> None:
    """A request whose answer is near zero weighs little beside the others, also where sizes differ."""
    expected = [[NUMBERS], [NUMBERS[:2] * 1e-6]]
    got = [[NUMBERS], [NUMBERS[:2] * 2e-6]]
    assert judge(["y"], expected, got).ok


def test_nothing_in_an_answer_is_nothing_to_compare() -> None:
    """Outputs without values, and models without outputs compared, pass."""
    assert compare(np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32)).ok
    assert judge([], [[]], [[]]).ok


def test_sound_answers_have_numbers() -> None:
    """An answer that is NaN all over shows that the inputs were wrong."""
    assert is_sound([NUMBERS, np.array([b"x"], object), np.zeros((0,), np.float32)])
    assert not is_sound([NUMBERS, np.full(3, np.nan, np.float32)])


@settings(deadline=None)
@given(
    st.lists(st.floats(allow_nan=False), min_size=1, max_size=24),
    st.lists(st.floats(), min_size=24, max_size=24),
    st.sampled_from(["auto", "top1", "cosine", "relative"]),
)
def test_any_floats_get_a_verdict_with_a_finite_figure(one: list[float], other: list[float], metric: str) -> None:
    """Whatever two answers hold, the guard decides, and its figure can be written down."""
    expected = np.array(one).reshape(1, -1)
    got = np.array(other[: len(one)]).reshape(1, -1)
    verdict = compare(expected, got, metric=metric)
    assert 0.0 <= verdict.figure <= FURTHEST
    assert compare(expected, expected, metric=metric).ok


@pytest.fixture(scope="module")
def digit_rows() -> Array:
    return digits.held_out().inputs()[:64]


def answers(session: Session, rows: Array) -> list[list[Array]]:
    """One request a row."""
    found = [session.run([rows[row : row + 1]], range(len(session.outputs))) for row in range(len(rows))]
    session.close()
    return found


@pytest.mark.parametrize(
    ("engine", "variant", "precision"),
    [("openvino", "fp32", "f32"), ("openvino", "int8", "auto"), ("onnxruntime", "int8", "f32")],
)
def test_the_bundled_digits_pass(digit_rows: Array, engine: str, variant: str, precision: str) -> None:
    """Both files in both engines answer near enough to the float file, on real digits."""
    engines, _ = open_engines()
    folder = digits.MODELS / digits.MODEL / "1"
    reference = engines["onnxruntime"].open(folder / "model.fp32.onnx", SessionOptions())
    other = engines[engine].open(folder / f"model.{variant}.onnx", SessionOptions(precision=precision))
    verdict = judge(
        [digits.OUTPUT],
        answers(reference, digit_rows),
        answers(other, digit_rows),
        is_other_variant=variant != "fp32",
    )
    assert verdict.ok, verdict.sentence


def test_another_model_strays(digit_rows: Array, tmp_path: Path) -> None:
    """Answers to other inputs are far off."""
    engines, _ = open_engines()
    path = digits.MODELS / digits.MODEL / "1" / "model.fp32.onnx"
    first, second = (engines["onnxruntime"].open(path, SessionOptions()) for _ in range(2))
    assert not judge([digits.OUTPUT], answers(first, digit_rows), answers(second, digit_rows[::-1].copy())).ok
