"""Gather, run and split on a session that is watched closely."""

from __future__ import annotations

import time

import numpy as np
import pytest

from inferd_runtime.errors import EngineFault, InvalidRequest, ModelNotReady
from inferd_runtime.job import Array, Job
from inferd_runtime.scheduling.admission import Admission
from inferd_runtime.scheduling.batch import MAX_SLAB_BYTES, Runner, Slab
from inferd_runtime.spec import ModelSpec
from inferd_runtime.tensor import STRING, TensorSpec
from tests.runtime.scheduling.sessions import F32, SINGLE, SPEC, DoublingSession, assert_right, job


def run(session: DoublingSession, *jobs: Job, spec: ModelSpec = SPEC, runner: Runner | None = None) -> bool:
    admission = Admission(spec)
    for one in jobs:
        admission.check(one)
    return (runner or Runner(spec, session, time.monotonic_ns)).run(jobs)


def test_one_job_is_not_copied() -> None:
    """A batch of one hands the caller's array itself to the engine."""
    session = DoublingSession()
    one = job(1.0, 2.0)
    assert run(session, one)
    assert session.given[0] is one.inputs["x"]
    assert_right(one)


def test_an_array_with_gaps_is_made_contiguous() -> None:
    """Engines see C-contiguous arrays only."""
    session = DoublingSession()
    one = Job("model", {"x": np.ones((4, 4), F32)[:, ::2]})
    run(session, one)
    assert session.given[0].flags.c_contiguous
    assert_right(one)


def test_many_jobs_are_one_run() -> None:
    """Rows are gathered in order, and each job gets its own back."""
    session = DoublingSession()
    jobs = [job(1.0), job(2.0, 3.0), job(4.0)]
    assert run(session, *jobs)
    assert [len(batch) for batch in session.batches] == [4]
    for one in jobs:
        assert_right(one)
        assert one.batch_rows == 4
        assert 0 < one.started_ns <= one.gathered_ns <= one.ran_ns <= one.settled_ns


def test_slabs_are_reused_and_answers_are_not() -> None:
    """The next batch overwrites the slab of the last, and no answer."""
    session = DoublingSession()
    runner = Runner(SPEC, session, time.monotonic_ns)
    early = [job(1.0), job(2.0)]
    run(session, *early, runner=runner)
    late = [job(5.0), job(6.0)]
    run(session, *late, runner=runner)
    assert np.shares_memory(session.given[0], session.given[1])
    for one in early + late:
        assert_right(one)


def test_a_slab_is_aligned_and_bounded() -> None:
    """Slabs begin at cache lines, grow as needed, and do not keep what is unreasonably large."""
    slab = Slab()
    array = slab.shaped(F32, (3, 5), 60)
    assert array.ctypes.data % 64 == 0
    assert slab.nbytes == 60
    assert slab.shaped(F32, (1, 5), 20).ctypes.data == array.ctypes.data
    huge = slab.shaped(np.dtype(np.uint8), (MAX_SLAB_BYTES + 1,), MAX_SLAB_BYTES + 1)
    assert huge.nbytes == MAX_SLAB_BYTES + 1
    assert slab.nbytes == 60


def test_only_wanted_outputs_are_computed() -> None:
    """The engine is asked for the union of what the jobs want, and each gets what it asked for."""
    session = DoublingSession()
    run(session, job(1.0, outputs=("total",)))
    both = [job(1.0, outputs=("total",)), job(2.0, outputs=("total",))]
    run(session, *both)
    mixed = [job(1.0, outputs=("total",)), job(2.0, outputs=("double",)), job(3.0)]
    run(session, *mixed)
    turned = job(1.0, outputs=("total", "double", "total"))
    run(session, turned)
    assert session.asked == [(1,), (1,), (0, 1), (1, 0)]
    for one in [*both, *mixed, turned]:
        assert_right(one)


def test_text_is_gathered_too() -> None:
    """String tensors of several jobs meet in one object array."""
    spec = ModelSpec((TensorSpec("x", STRING, (-1,)),), (TensorSpec("y", STRING, (-1,)),), 8)

    class Echo(DoublingSession):
        def run(self, inputs: object, outputs: object) -> list[Array]:
            assert isinstance(inputs, list)
            return [inputs[0].copy()]

    jobs = [Job("model", {"x": np.array([text], object)}) for text in (b"a", b"\xff\x00")]
    assert run(Echo(), *jobs, spec=spec)
    assert [one.result and one.result["y"].tolist() for one in jobs] == [[b"a"], [b"\xff\x00"]]


def poisoned(error: type[Exception]) -> DoublingSession:
    """A session that fails whenever 13 is among the values."""

    def behave(x: Array, answers: list[Array]) -> list[Array]:
        if (x == 13).any():
            raise error("thirteen")
        return answers

    return DoublingSession(behave)


@pytest.mark.parametrize("error", [EngineFault, InvalidRequest])
def test_a_bad_job_fails_alone(error: type[Exception]) -> None:
    """When a batch fails each job runs again alone, once, and only the one at fault keeps the error."""
    session = poisoned(error)
    jobs = [job(1.0), job(13.0), job(2.0)]
    assert not run(session, *jobs)
    assert len(session.batches) == 4
    assert type(jobs[1].error) is error
    assert jobs[1].result is None
    assert_right(jobs[0])
    assert_right(jobs[2])


def test_who_left_meanwhile_does_not_run_again() -> None:
    """The second try is only for jobs that somebody waits for."""
    jobs = [job(1.0), job(13.0), job(2.0)]

    def behave(x: Array, answers: list[Array]) -> list[Array]:
        jobs[2].cancel()
        raise EngineFault("always")

    session = DoublingSession(behave)
    run(session, *jobs)
    assert len(session.batches) == 3
    assert jobs[2].error is None


@pytest.mark.parametrize("count", [1, 2])
def test_a_model_that_is_no_batch_model_is_found_out(count: int) -> None:
    """An output whose first dimension is not the batch is a fault that names it, never a wrong split."""
    session = DoublingSession(lambda x, answers: [answers[0], np.zeros((7, 1), F32)])
    jobs = [job(1.0) for _ in range(count)]
    run(session, *jobs)
    for one in jobs:
        assert isinstance(one.error, EngineFault)
        assert "output 'total' has shape [7, 1] for a batch of 1 rows" in str(one.error)
        assert one.result is None


def test_a_missing_output_is_a_fault() -> None:
    """An engine that forgets an output is not believed."""
    session = DoublingSession(lambda x, answers: answers[:1])
    one = job(1.0)
    run(session, one)
    assert "gave 1 outputs where 2 were asked for" in str(one.error)


def test_without_a_batch_dimension_any_output_shape_goes() -> None:
    """A model that is not batched may give what it likes."""
    session = DoublingSession(lambda x, answers: [answers[0], np.zeros((), F32)])
    one = job(1.0, 2.0, 3.0)
    run(session, one, spec=SINGLE)
    assert one.result is not None
    assert one.result["total"].shape == ()


@pytest.mark.parametrize("count", [1, 3])
def test_a_session_that_is_gone_fails_the_batch_at_once(count: int) -> None:
    """ModelNotReady is each job's own answer, and nothing of the batch runs a second time."""

    def die(x: Array, answers: list[Array]) -> list[Array]:
        raise ModelNotReady("its process was killed", retry_after_s=0.25)

    session = DoublingSession(die)
    jobs = [job(1.0) for _ in range(count)]
    run(session, *jobs)
    assert len(session.batches) == 1
    assert len({id(one.error) for one in jobs}) == count
    for one in jobs:
        assert isinstance(one.error, ModelNotReady)
        assert one.error.retry_after_s == 0.25
        assert one.result is None
