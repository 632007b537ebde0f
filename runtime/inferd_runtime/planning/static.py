"""The static rule: an NVIDIA GPU through CUDA where one may be used, else OpenVINO where the model compiles, else ONNX
Runtime; and streams, threads, batch and inline from the cores and the warm-up. Micro-models get the engine with the
shorter run (docs/decisions/0005).

Settings overrule the rule. Every candidate that was passed over becomes a veto with the engine's own reason. This is
the safe plan that a version serves with until a measured plan is there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from inferd_runtime.engines import Engine, Session, SessionOptions
from inferd_runtime.engines.host import isolated_engine
from inferd_runtime.errors import EngineRefused, InvalidModel, LoadFailed
from inferd_runtime.planning.places import OPENVINO, ORT, asked_variants, refusal
from inferd_runtime.planning.plan import AUTO, INLINE_US, Ground, Planned, Wishes
from inferd_runtime.planning.shapes import narrowed
from inferd_runtime.planning.warm import Warmth, is_batched_by_shape, warm
from inferd_runtime.spec import ModelSpec, Plan, Veto

PROCESS = "process"
DEFAULT_MAX_BATCH = 64
DEFAULT_BATCH = 16
# OpenVINO sets its graph up anew whenever the number of rows changes; few sizes change seldom. Measured on an OCR
# recogniser at saturation with 8 callers: 1.06 of the raw engine with 2 rows, 0.85 with 4, 0.81 with 16.
OPENVINO_BATCH = 2
MAX_STREAMS = 4
GPU_STREAMS = 2
# Rows are gathered only where a run of many is this much faster than as many runs of one.
LEAST_GAIN = 1.2
# A full batch on the submitting thread may take no longer than this.
INLINE_BATCH_US = 2000.0


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One thing to try, with the sentence that says why it is its turn."""

    variant: str
    engine: str
    device: str
    why: str

    def __str__(self) -> str:
        return f"{self.engine} {self.device}" + (f" {self.variant}" if self.variant else "")


@dataclass(frozen=True, slots=True)
class _Opened:
    candidate: _Candidate
    session: Session
    warmth: Warmth
    spec: ModelSpec
    batch_note: str
    streams: int
    threads: int


def plan_version(ground: Ground, variants: Mapping[str, Path], wishes: Wishes) -> Planned:
    """Choose for one version, open it and warm it. `variants` maps "" (the plain file), "int8", ... to files.

    Raises InvalidModel where the wishes cannot be, LoadFailed with every refusal where no candidate works.
    """
    vetoes: list[Veto] = []
    doubtful: _Opened | None = None
    try:
        for candidate in _candidates(ground, variants, wishes, vetoes):
            opened = _open(ground, variants[candidate.variant], candidate, wishes, vetoes)
            if opened is None:
                continue
            if not opened.warmth.fault:
                opened = _fit_for_inline(ground, variants, opened, wishes, vetoes)
                return _planned(ground, opened, wishes, vetoes)
            if doubtful is None:
                doubtful = opened
            else:
                opened.session.close()
        if doubtful is not None:
            vetoes[:] = [veto for veto in vetoes if veto.candidate != str(doubtful.candidate)]
            chosen, doubtful = doubtful, None
            return _planned(ground, chosen, wishes, vetoes)
    finally:
        if doubtful is not None:
            doubtful.session.close()
    reasons = "; ".join(f"{veto.candidate}: {veto.reason}" for veto in vetoes)
    raise LoadFailed(f"no engine can serve this model: {reasons or 'no engine is installed that reads its format'}")


def _candidates(
    ground: Ground, variants: Mapping[str, Path], wishes: Wishes, vetoes: list[Veto]
) -> Iterator[_Candidate]:
    """What to try, best first. Candidates that cannot even be tried become vetoes."""
    for variant in _variants(variants, wishes):
        for engine, device, why in _places(ground, wishes):
            candidate = _Candidate(variant, engine, device, why)
            why_not = refusal(ground, engine, device, variants[variant])
            if why_not is None:
                yield candidate
            elif why_not:
                vetoes.append(Veto(str(candidate), why_not))


def _variants(variants: Mapping[str, Path], wishes: Wishes) -> Sequence[str]:
    known = [name for name in ("int8", "") if name in variants]
    return asked_variants(variants, wishes) or known or sorted(variants)


def _places(ground: Ground, wishes: Wishes) -> Iterator[tuple[str, str, str]]:
    """Engine, device and why, in the order of the rule."""
    engine = wishes.engine if wishes.engine != AUTO else ground.engine
    asked = "the settings ask for it"
    device = wishes.device
    if device == AUTO:
        rule = [
            (ORT, "cuda:0", "an NVIDIA GPU may be used and ONNX Runtime has CUDA"),
            (OPENVINO, "cpu", "OpenVINO compiles this model for the CPU, where it is the faster engine as a rule"),
            (ORT, "cpu", "ONNX Runtime takes every ONNX model"),
        ]
    else:
        rule = [(name, device, f"the settings ask for {device}") for name in (OPENVINO, ORT)]
    for name, place, why in rule:
        if engine in (AUTO, name):
            yield name, place, why if engine == AUTO or place != "cpu" else asked


def _open(ground: Ground, path: Path, candidate: _Candidate, wishes: Wishes, vetoes: list[Veto]) -> _Opened | None:
    """Open and warm one candidate; None when it is vetoed. A doubtful warm-up is noted as a veto that may be lifted."""
    streams, threads = _share(ground.cores, candidate.device, wishes)
    options = SessionOptions(candidate.device, streams, threads, wishes.precision, ground.cache_dir, wishes.rows)
    engine: Engine = ground.engines[candidate.engine]
    if wishes.isolation == PROCESS:
        engine = isolated_engine(engine)
    try:
        session = engine.open(path, options)
    except EngineRefused as error:
        vetoes.append(Veto(str(candidate), str(error)))
        return None
    try:
        max_batch, note = _max_batch(session, wishes)
        batch = _batch(max_batch, wishes)
        few = min(batch, OPENVINO_BATCH) if (candidate.engine, candidate.device) == (OPENVINO, "cpu") else batch
        shaped = narrowed(ModelSpec(session.inputs, session.outputs, max_batch), dict(wishes.shapes))
        warmth = warm(
            session,
            is_batched=max_batch > 0,
            inputs=shaped.inputs,
            many_rows=lambda run_us: batch if run_us < INLINE_US else few,
        )
        if max_batch and warmth.is_batch is False and wishes.max_batch is None:
            max_batch, note = 0, f"its free first dimension is not a batch: {warmth.batch_fault}"
            shaped = narrowed(ModelSpec(session.inputs, session.outputs, 0), dict(wishes.shapes))
    except BaseException:
        session.close()
        raise
    if warmth.fault:
        vetoes.append(Veto(str(candidate), f"the warm-up failed: {warmth.fault}"))
        if not warmth.is_guess:
            session.close()
            return None
    return _Opened(candidate, session, warmth, shaped, note, streams, threads)


def _fit_for_inline(
    ground: Ground, variants: Mapping[str, Path], opened: _Opened, wishes: Wishes, vetoes: list[Veto]
) -> _Opened:
    """Look closer at a model that would run on the submitting thread.

    It runs once at a time, so one stream of one thread saves it a hop. What an engine costs per run outweighs a model
    this small, so where the engine is free both are timed and the shorter run serves; the other becomes a veto.
    """
    if not _inline(ground, opened, wishes)[0]:
        return opened
    is_free = not (wishes.streams or wishes.threads)
    single = replace(wishes, streams=1, threads=1) if is_free else wishes
    best = opened
    if (opened.streams, opened.threads) != (1, 1) and is_free:
        best = _better(best, _open(ground, variants[best.candidate.variant], best.candidate, single, []), is_same=True)
    if wishes.engine == wishes.device == ground.engine == AUTO:
        for rival in _rivals(ground, variants, opened.candidate, {veto.candidate for veto in vetoes}):
            best = _better(best, _open(ground, variants[rival.variant], rival, single, []), vetoes)
    return best


def _rivals(
    ground: Ground, variants: Mapping[str, Path], chosen: _Candidate, vetoed: Collection[str]
) -> Iterator[_Candidate]:
    """The same file on the same device in the other engines, but for those that had their turn."""
    why = "a run of this small model is shortest there"
    for engine in ground.engines:
        rival = replace(chosen, engine=engine, why=why)
        is_open = engine != chosen.engine and str(rival) not in vetoed
        if is_open and refusal(ground, engine, rival.device, variants[rival.variant]) is None:
            yield rival


def _better(
    best: _Opened, tried: _Opened | None, vetoes: list[Veto] | None = None, *, is_same: bool = False
) -> _Opened:
    """The one with the shorter run, or `tried` where it is the same candidate; the other is closed."""
    if tried is None:
        return best
    is_better = not tried.warmth.fault and (is_same or tried.warmth.run_us < best.warmth.run_us)
    kept, dropped = (tried, best) if is_better else (best, tried)
    dropped.session.close()
    if vetoes is not None and not tried.warmth.fault:
        took = f"a run of one row took {dropped.warmth.run_us:.0f} us, {kept.warmth.run_us:.0f} us on {kept.candidate}"
        vetoes.append(Veto(str(dropped.candidate), took))
    return kept


def _share(cores: int, device: str, wishes: Wishes) -> tuple[int, int]:
    """Streams and threads per stream."""
    if device != "cpu":
        return wishes.streams or GPU_STREAMS, wishes.threads or 1
    if wishes.streams:
        return wishes.streams, wishes.threads or max(1, cores // wishes.streams)
    if wishes.threads:
        return max(1, min(MAX_STREAMS, cores // wishes.threads)), wishes.threads
    streams = max(1, min(MAX_STREAMS, cores))
    return streams, max(1, cores // streams)


def _max_batch(session: Session, wishes: Wishes) -> tuple[int, str]:
    """The most rows of a request, and a word on why. Raises InvalidModel."""
    if wishes.max_batch == 0:
        return 0, "max_batch = 0 says that the first dimension is not a batch"
    is_batched = is_batched_by_shape(session)
    if wishes.max_batch is None:
        if not is_batched:
            return 0, "not every input and output has a free first dimension"
        symbols = sorted(set(session.batch_symbols) - {""})
        if len(symbols) > 1:
            return 0, f"the file gives the first dimensions different names ({', '.join(symbols)})"
        return DEFAULT_MAX_BATCH, ""
    if not is_batched:
        fixed = next(t for t in (*session.inputs, *session.outputs) if not t.shape or t.shape[0] >= 0)
        raise InvalidModel(
            f"max_batch = {wishes.max_batch} is asked for, but {fixed.name!r} has shape {list(fixed.shape)}, whose "
            "first dimension is not free; leave max_batch out"
        )
    return wishes.max_batch, ""


def _batch(max_batch: int, wishes: Wishes) -> int:
    return min(wishes.batch or DEFAULT_BATCH, max_batch)


def _planned(ground: Ground, opened: _Opened, wishes: Wishes, vetoes: Sequence[Veto]) -> Planned:
    candidate, session = opened.candidate, opened.session
    is_inline, inline_why = _inline(ground, opened, wishes)
    batch, batch_why = _useful_batch(opened, wishes, is_inline)
    plan = Plan(
        engine=candidate.engine,
        device=candidate.device,
        variant=candidate.variant,
        precision=wishes.precision,
        streams=opened.streams,
        threads=opened.threads,
        batch=batch,
        inline=is_inline,
        run_us=round(opened.warmth.run_us, 1),
        reason=" ".join(_sentences(ground, opened, batch_why, inline_why, wishes)),
        vetoes=tuple(vetoes),
        rows=wishes.rows,
    )
    return Planned(plan, opened.spec, session)


def _inline(ground: Ground, opened: _Opened, wishes: Wishes) -> tuple[bool, str]:
    """Whether batches run on the submitting thread, and the sentence that says why."""
    warmth = opened.warmth
    if ground.inline == "off":
        return False, "Runs on worker threads: inline execution is off in the daemon's configuration."
    if wishes.isolation == PROCESS:
        return False, 'Runs in a process of its own: isolation = "process" in model.toml.'
    if wishes.inline != AUTO:
        is_on = wishes.inline == "on"
        where = "on the submitting thread" if is_on else "on worker threads"
        return is_on, f'Runs {where}: inline = "{wishes.inline}" in model.toml.'
    if opened.candidate.device != "cpu":
        return False, "Runs on worker threads: the submitting thread does not wait for a device."
    if warmth.fault or warmth.has_free_sizes:
        return False, "Runs on worker threads: its sizes are free, so how long a run takes is not known."
    if warmth.run_us >= INLINE_US:
        return False, f"Runs on worker threads: a run of one row took {warmth.run_us:.0f} us, {INLINE_US:.0f} or more."
    if warmth.many_us >= INLINE_BATCH_US:
        return False, f"Runs on worker threads: a full batch took {warmth.many_us:.0f} us."
    return True, f"Runs on the submitting thread: a run of one row took {warmth.run_us:.0f} us, under {INLINE_US:.0f}."


def _useful_batch(opened: _Opened, wishes: Wishes, is_inline: bool) -> tuple[int, str]:
    """How many rows to gather, and the sentence that says why. Rows that gain nothing together run side by side."""
    batch, warmth = _batch(opened.spec.max_batch, wishes), opened.warmth
    if not batch:
        return 0, f"Requests run one by one: {opened.batch_note}."
    together = f"Up to {_counted(batch, 'row')} run together"
    if wishes.batch or batch == 1:
        return batch, f"{together}."
    if opened.candidate.engine == OPENVINO and opened.candidate.device == "cpu" and not is_inline:
        return OPENVINO_BATCH, f"Up to {OPENVINO_BATCH} rows run together: OpenVINO pays for every new number of rows."
    if warmth.many_fault:
        return 1, f"Requests run side by side, not together: {batch} rows in one run failed ({warmth.many_fault})."
    if warmth.fault or not warmth.many_us:
        return batch, f"{together}."
    gain = warmth.run_us * batch / warmth.many_us
    if gain < LEAST_GAIN:
        return 1, f"Requests run side by side, not together: {batch} rows in one run went {gain:.2f} times as fast."
    return batch, f"{together}, which went {gain:.2f} times as fast."


def _sentences(ground: Ground, opened: _Opened, batch_why: str, inline_why: str, wishes: Wishes) -> Iterator[str]:
    candidate = opened.candidate
    variant = f", variant {candidate.variant}" if candidate.variant else ""
    yield f"Static rule: {candidate.engine} on {candidate.device}{variant}, because {candidate.why}."
    is_asked = wishes.streams or wishes.threads
    source = "as the settings ask" if is_asked else f"from {ground.cores} usable cores"
    streams, threads = _counted(opened.streams, "stream"), _counted(opened.threads, "thread")
    yield f"{streams} of {threads} {source}."
    yield batch_why
    if opened.warmth.fault:
        yield f"The warm-up failed on made-up inputs, which may be no fault of the model: {opened.warmth.fault}."
    yield inline_why


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
