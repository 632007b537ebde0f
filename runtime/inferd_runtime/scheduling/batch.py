"""Gather, run, split: what one worker does with the jobs of one batch.

A batch of one job hands its arrays to the engine as they are; more jobs are copied once into slabs that belong to the
worker and are reused. Answers are views on the engine's own output arrays, which are never reused.
When a batch of several jobs fails, each job runs again alone, once, so that the one at fault fails alone. A session
that is gone (ModelNotReady) fails its whole batch: a second run would only meet the next death.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from inferd_runtime.engines import Session
from inferd_runtime.errors import EngineFault, InvalidRequest, ModelNotReady
from inferd_runtime.job import Array, Job
from inferd_runtime.scheduling.queue import is_dead
from inferd_runtime.spec import ModelSpec
from inferd_runtime.tensor import STRING

# A slab larger than this is not kept after its batch.
MAX_SLAB_BYTES = 32 << 20
_ALIGNMENT_BYTES = 64

_log = logging.getLogger(__name__)


class Slab:
    """One reusable buffer for one input; holds no more than `MAX_SLAB_BYTES` between batches."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.uint8)

    @property
    def nbytes(self) -> int:
        return self._buffer.nbytes

    def shaped(self, dtype: np.dtype[np.generic], shape: tuple[int, ...], nbytes: int) -> Array:
        """An aligned array of this form on the buffer; it is valid until the next call."""
        buffer = self._buffer
        if buffer.nbytes < nbytes:
            buffer = _aligned(nbytes)
            if nbytes <= MAX_SLAB_BYTES:
                self._buffer = buffer
        return np.ndarray(shape, dtype, buffer.data)


def _aligned(nbytes: int) -> Array:
    """Uninitialised bytes that start at a cache line."""
    raw = np.empty(nbytes + _ALIGNMENT_BYTES, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT_BYTES
    return raw[start : start + nbytes]


class Runner:
    """Runs batches on one session; one worker's own, not to be shared between threads."""

    def __init__(self, spec: ModelSpec, session: Session, clock: Callable[[], int]) -> None:
        self._session = session
        self._clock = clock
        self._is_batched = spec.max_batch > 0
        self._inputs = tuple((tensor.name, tensor.dtype) for tensor in spec.inputs)
        self._names = tuple(tensor.name for tensor in spec.outputs)
        self._index = {name: i for i, name in enumerate(self._names)}
        self._all = tuple(range(len(self._names)))
        self._slabs = tuple(Slab() for _ in spec.inputs)

    def run(self, jobs: Sequence[Job]) -> bool:
        """Give every job a result or an error, and its timings; a job found dead on a second try gets neither.

        True when all of them ran together, False when each ran alone.
        """
        if len(jobs) == 1:
            self._run_alone(jobs[0])
            return True
        try:
            self._run_together(jobs)
        except ModelNotReady as gone:
            self._fail(jobs, gone)
            return False
        except (EngineFault, InvalidRequest) as fault:
            _log.warning("a batch of %d requests failed, so each runs again alone: %s", len(jobs), fault)
            for job in jobs:
                if not is_dead(job, self._clock()):
                    self._run_alone(job)
            return False
        return True

    def _run_alone(self, job: Job) -> None:
        """Gather, run and split for one job, without a copy; its error is its own."""
        clock = self._clock
        job.started_ns = clock()
        job.batch_rows = job.rows
        given = job.inputs
        arrays = [given[name] for name, _ in self._inputs]
        for i, array in enumerate(arrays):
            if not array.flags.c_contiguous:
                arrays[i] = np.ascontiguousarray(array)
        wanted = job.outputs
        job.gathered_ns = clock()
        try:
            if wanted:
                names: tuple[str, ...] = tuple(dict.fromkeys(wanted))
                outputs = self._session.run(arrays, [self._index[name] for name in names])
            else:
                names = self._names
                outputs = self._session.run(arrays, self._all)
            job.ran_ns = clock()
            self._check(names, outputs, job.rows)
            job.result = dict(zip(names, outputs, strict=True))
        except (EngineFault, InvalidRequest, ModelNotReady) as error:
            job.error = error
            job.ran_ns = clock()
        job.settled_ns = clock()

    def _run_together(self, jobs: Sequence[Job]) -> None:
        clock = self._clock
        started = clock()
        rows = sum([job.rows for job in jobs])
        arrays = self._gather(jobs, rows)
        indices = self._wanted(jobs)
        names = self._names if indices is self._all else tuple(self._names[i] for i in indices)
        gathered = clock()
        outputs = self._session.run(arrays, indices)
        ran = clock()
        self._check(names, outputs, rows)
        self._split(jobs, names, outputs)
        settled = clock()
        for job in jobs:
            job.started_ns = started
            job.gathered_ns = gathered
            job.ran_ns = ran
            job.settled_ns = settled
            job.batch_rows = rows

    def _fail(self, jobs: Sequence[Job], gone: ModelNotReady) -> None:
        """Give each job an error of its own."""
        now = self._clock()
        for job in jobs:
            job.error = ModelNotReady(str(gone), retry_after_s=gone.retry_after_s)
            job.ran_ns = job.settled_ns = now

    def _gather(self, jobs: Sequence[Job], rows: int) -> list[Array]:
        """The inputs of all jobs, row after row; equal groups make equal tails."""
        gathered = []
        for (name, dtype), slab in zip(self._inputs, self._slabs, strict=True):
            parts = [job.inputs[name] for job in jobs]
            if dtype == STRING:
                gathered.append(np.concatenate(parts))
                continue
            nbytes = sum([part.nbytes for part in parts])
            whole = slab.shaped(dtype, (rows, *parts[0].shape[1:]), nbytes)
            gathered.append(np.concatenate(parts, out=whole))
        return gathered

    def _wanted(self, jobs: Sequence[Job]) -> Sequence[int]:
        """Indices of the outputs that any of the jobs wants."""
        union: set[int] = set()
        for job in jobs:
            if not job.outputs:
                return self._all
            union.update([self._index[name] for name in job.outputs])
        return self._all if len(union) == len(self._all) else sorted(union)

    def _check(self, names: Sequence[str], outputs: Sequence[Array], rows: int) -> None:
        """The engine gave every output, with a row for every row of a batched model."""
        if len(outputs) != len(names):
            raise EngineFault(f"the engine gave {len(outputs)} outputs where {len(names)} were asked for")
        if not self._is_batched:
            return
        for name, output in zip(names, outputs, strict=True):
            if not output.ndim or output.shape[0] != rows:
                raise EngineFault(
                    f"output {name!r} has shape {list(output.shape)} for a batch of {rows} rows: its first dimension "
                    "is not a batch dimension; set max_batch = 0 in model.toml"
                )

    @staticmethod
    def _split(jobs: Sequence[Job], names: Sequence[str], outputs: Sequence[Array]) -> None:
        """Give every job its rows of the outputs it wanted."""
        pairs = list(zip(names, outputs, strict=True))
        by_name = dict(pairs)
        start = 0
        for job in jobs:
            end = start + job.rows
            if job.outputs:
                job.result = {name: by_name[name][start:end] for name in job.outputs}
            else:
                job.result = {name: output[start:end] for name, output in pairs}
            start = end
