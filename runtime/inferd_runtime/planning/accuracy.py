"""The accuracy guard: how far a candidate's answers are from the reference's, and whether that is near enough.

The same file must answer the same, whatever engine and precision run it; another variant may stray as far as
quantisation does. Class scores are judged by the best class and by their direction, other numbers by relative error,
whole numbers and strings by equality. Answers to made-up inputs prove less, so less is asked of them, and that is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Answers = Sequence[Array]

TOP1, COSINE, RELATIVE, EXACT = "top1", "cosine", "relative", "exact"
AUTO = "auto"
# Two-dimensional floats of so many columns are class scores or an embedding; fewer are numbers in their own right.
LEAST_CLASSES = 10
# No distance is said to be larger: it has to be a number.
FURTHEST = 1e6
# The best class stands out where it is this many times (e to this power) as likely as the second.
DECISIVE_NATS = 1.0
# On made-up inputs fewer such rows prove nothing.
LEAST_DECISIVE = 8


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that may differ: share of rows with another best class (or of unequal values), 1 - cosine, relative
    error. Scores between 0 and 1 are taken relative to `least_score` at least: on noise a detector finds nothing, and
    says so with numbers that mean nothing."""

    top1: float
    cosine: float
    relative: float
    least_score: float

    def of(self, metric: str) -> float:
        return {TOP1: self.top1, EXACT: self.top1, COSINE: self.cosine, RELATIVE: self.relative}[metric]


# By (is another variant, is made up). Measured on OCR, audio and file-type models: engines differ by 1e-6, bf16 by
# 0.005-0.05, a good INT8 file by 0.03 (top1), 0.02 (cosine), 0.17 (relative); on noise INT8 differs by much more.
LIMITS = {
    (False, False): Limits(top1=0.01, cosine=0.01, relative=0.02, least_score=0.001),
    (False, True): Limits(top1=0.10, cosine=0.01, relative=0.02, least_score=0.001),
    (True, False): Limits(top1=0.05, cosine=0.05, relative=0.20, least_score=0.001),
    (True, True): Limits(top1=0.25, cosine=0.15, relative=0.50, least_score=0.1),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """`figure` is the distance in terms of `metric`, of the output that is furthest off; `sentence` says it in words.

    `is_broken`: answers of other shapes, or that are no numbers; there is no figure for that.
    """

    ok: bool
    metric: str
    figure: float
    sentence: str
    is_broken: bool = False


@dataclass(frozen=True, slots=True)
class _Finding:
    metric: str
    figure: float
    limit: float
    words: str

    @property
    def share(self) -> float:
        """How much of what is allowed is used up."""
        return self.figure / self.limit


@dataclass(slots=True)
class _Sums:
    """Sums of squares and products over many values."""

    expected: float = 0.0
    got: float = 0.0
    product: float = 0.0
    difference: float = 0.0
    count: int = 0
    is_score: bool = True  # all expected values are between 0 and 1

    def add(self, expected: Array, got: Array) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            self.expected += float(expected @ expected)
            self.got += float(got @ got)
            self.product += float(expected @ got)
            self.difference += float(np.square(expected - got).sum())
        self.count += expected.size
        self.is_score = self.is_score and bool(((expected >= 0) & (expected <= 1)).all())

    def relative(self, least_score: float) -> float:
        """Root mean square of the difference over that of the expected values."""
        floor = self.count * least_score**2 if self.is_score else 0.0
        scale = max(self.expected, floor)
        if not scale:
            return FURTHEST if self.difference else 0.0
        return min(FURTHEST, math.sqrt(self.difference / scale))

    def cosine(self) -> float:
        """Of the angle between the two; 1.0 for two zeros."""
        scale = math.sqrt(self.expected * self.got)
        return min(1.0, self.product / scale) if 0.0 < scale < math.inf else float(self.expected == self.got)


def judge(
    names: Sequence[str],
    expected: Sequence[Answers],
    got: Sequence[Answers],
    *,
    is_other_variant: bool = False,
    is_made_up: bool = False,
    metric: str = AUTO,
    tolerance: float = 0.0,
) -> Verdict:
    """Compare answers with the reference's, request by request; each has one array for every output in `names`.

    `metric` overrules the kind of float outputs, a `tolerance` above 0 the limit.
    """
    limits = LIMITS[is_other_variant, is_made_up]
    findings: list[_Finding] = []
    for index, name in enumerate(names):
        pairs = [(np.asarray(one[index]), np.asarray(other[index])) for one, other in zip(expected, got, strict=True)]
        fault = _fault(pairs)
        if fault:
            return Verdict(False, "", 0.0, f"output {name!r}: {fault}", is_broken=True)
        for finding in _findings(pairs, metric, limits, is_made_up):
            limit = tolerance or finding.limit
            findings.append(_Finding(finding.metric, finding.figure, limit, f"output {name!r}: {finding.words}"))
    if not findings:
        return Verdict(True, metric, 0.0, "nothing to compare")
    worst = max(findings, key=lambda finding: finding.share)
    allowed = f"{worst.words}, {worst.limit:.3g} allowed" + (" on made-up inputs" if is_made_up else "")
    return Verdict(worst.share <= 1.0, worst.metric, worst.figure, allowed)


def is_sound(answers: Answers) -> bool:
    """Whether every output has at least one finite value, or nothing in it."""
    return all(array.size == 0 or not _is_float(array) or bool(_finite(array).any()) for array in answers)


def _fault(pairs: Sequence[tuple[Array, Array]]) -> str:
    """Why answers cannot be compared at all; empty where they can."""
    for expected, got in pairs:
        if expected.shape != got.shape:
            return f"shape {list(got.shape)}, the reference answers {list(expected.shape)}"
        if _is_float(expected) and bool((_finite(expected) & ~_finite(got)).any()):
            return "NaN or infinite where the reference is not"
    return ""


def _findings(
    pairs: Sequence[tuple[Array, Array]], metric: str, limits: Limits, is_made_up: bool
) -> Iterator[_Finding]:
    """What can be said of one output over all requests."""
    pairs = [(expected, got) for expected, got in pairs if expected.size]
    if not pairs:
        return
    if not _is_float(pairs[0][0]):
        share = _unequal(pairs)
        yield _Finding(EXACT, share, limits.of(EXACT), f"{share:.1%} of its values differ")
        return
    is_likelihood = all(_is_likelihood(expected) for expected, _ in pairs)
    kind = metric if metric != AUTO else _kind(pairs[0][0], is_likelihood)
    if kind == TOP1 and pairs[0][0].ndim:
        yield from _best_class(pairs, limits, is_likelihood, is_made_up)
    sums = _sums(pairs)
    if kind == RELATIVE:
        error = sums.relative(limits.least_score)
        yield _Finding(RELATIVE, error, limits.relative, f"relative error {error:.2g}")
    else:
        distance = 1.0 - sums.cosine()
        yield _Finding(COSINE, distance, limits.cosine, f"1 - cosine {distance:.2g}")


def _kind(expected: Array, is_likelihood: bool) -> str:
    if is_likelihood or (expected.ndim == 2 and expected.shape[1] >= LEAST_CLASSES):
        return TOP1
    return RELATIVE


def _best_class(
    pairs: Sequence[tuple[Array, Array]], limits: Limits, is_likelihood: bool, is_made_up: bool
) -> Iterator[_Finding]:
    """Whether the best class is the same. Where that may be chance, only rows count in which one class stands out."""
    differing, counted = 0, 0
    for expected, got in pairs:
        rows, others = (_rows(array) for array in (expected, got))
        if rows.shape[1] < 2:
            return
        counts = np.ones(len(rows), bool)
        if is_made_up or not is_likelihood:
            counts = _lead_nats(rows, is_likelihood) >= DECISIVE_NATS
        differing += int((rows.argmax(1) != others.argmax(1))[counts].sum())
        counted += int(counts.sum())
    if counted >= (LEAST_DECISIVE if is_made_up else 1):
        share = differing / counted
        yield _Finding(TOP1, share, limits.top1, f"the best class differs in {differing} of {counted} rows")


def _lead_nats(rows: Array, is_likelihood: bool) -> Array:
    """How far the best class is ahead of the second, as a logarithm of likelihoods."""
    best = np.partition(rows, -2, axis=1)[:, -2:]
    if is_likelihood:
        best = np.log(np.maximum(best, 1e-12))
    lead: Array = best[:, 1] - best[:, 0]
    return lead


def _is_likelihood(array: Array) -> bool:
    """Whether every row is shares of one."""
    if array.ndim < 2 or array.shape[-1] < 2:
        return False
    rows = _rows(array)
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=1), 1.0, atol=1e-2))


def _sums(pairs: Sequence[tuple[Array, Array]]) -> _Sums:
    """Over all values that the reference has a number for."""
    sums = _Sums()
    for pair in pairs:
        expected, got = (array.reshape(-1).astype(np.float64) for array in pair)
        seen = np.isfinite(expected)
        sums.add(expected[seen], got[seen])
    return sums


def _unequal(pairs: Sequence[tuple[Array, Array]]) -> float:
    differing = sum(int(np.count_nonzero(expected != got)) for expected, got in pairs)
    return differing / sum(expected.size for expected, _ in pairs)


def _rows(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1]).astype(np.float64)


def _finite(array: Array) -> Array:
    finite: Array = np.isfinite(array.astype(np.float64))
    return finite


def _is_float(array: Array) -> bool:
    return array.dtype.kind in "fV"
