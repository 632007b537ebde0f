"""What candidates are compared with: the most exact file there is, in ONNX Runtime at full precision, on inputs that it
takes. Made-up inputs are guessed until one is taken."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from inferd_runtime.engines import SessionOptions
from inferd_runtime.errors import EngineFault, HostDied, InferdError
from inferd_runtime.planning.accuracy import Answers, is_sound
from inferd_runtime.planning.hosts import Hosts, NamedSession
from inferd_runtime.planning.inputs import Samples, made_up, read_stored
from inferd_runtime.planning.plan import Ground
from inferd_runtime.planning.speed import Clock
from inferd_runtime.spec import ModelSpec

# Variants that are as exact as the model was trained; "" is the plain file.
_EXACT = ("fp32", "f32", "", "fp16", "f16", "bf16")
_ENGINES = ("onnxruntime", "openvino")
_MAX_ANSWER_BYTES = 64 << 20
# How long answers are collected, how long inputs are guessed, and how often a child may die of it.
_COLLECT_S = 1.5
_GUESS_S = 10.0
_MAX_DEATHS = 2


@dataclass(frozen=True, slots=True)
class Reference:
    """`answers` of the `variant`'s file to `samples`; `words` say who gave them, to what."""

    variant: str
    words: str
    samples: Samples
    answers: tuple[Answers, ...]


def find_reference(
    hosts: Hosts, ground: Ground, variants: Mapping[str, Path], spec: ModelSpec, folder: Path | None, clock: Clock
) -> Reference:
    """Run what is most exact. Raises EngineFault with the reasons where nothing can be run."""
    stored, note = read_stored(folder, spec)
    reasons = [note] if note else []
    for variant, engine in itertools.product(_by_exactness(variants), _ENGINES):
        path = variants[variant]
        if engine not in ground.engines or not ground.engines[engine].reads(path):
            continue
        options = SessionOptions(threads=ground.cores, precision="f32")
        attempts = itertools.chain([stored] if stored else [], made_up(spec))
        try:
            samples, answers = _answered(partial(hosts.open, engine, path, options, spec), attempts, clock)
        except InferdError as error:
            reasons.append(f"{engine} {path.name}: {error}")
            continue
        if stored and samples.source != stored.source:
            reasons.append(f"it refuses the {stored.source} data")
        return Reference(variant, _words(engine, path, samples, reasons), samples, answers)
    advice = "golden/*.npz in the model's folder would show what it takes"
    raise EngineFault(f"no inputs that the model takes were found ({advice}): {'; '.join(reasons) or 'no engine'}")


def collect(session: NamedSession, samples: Samples, *, most_rows: int, clock: Clock) -> list[Answers]:
    """Answers to the samples in order, as many as a few seconds allow and one at least; rows that ran together are
    parted. Raises EngineFault where rows do not come out as they went in."""
    answers: list[Answers] = []
    end_s, size = clock() + _COLLECT_S, 0
    for begin, rows in samples.groups(most_rows):
        if answers and (clock() > end_s or size > _MAX_ANSWER_BYTES):
            break
        outputs = session.run(samples.stacked(rows, begin))
        size += sum(array.nbytes for array in outputs)
        if not samples.is_batched:
            answers.append(outputs)
            continue
        for array in outputs:
            if not array.ndim or len(array) != rows:
                raise EngineFault(f"{rows} rows in gave an output of shape {list(array.shape)}")
        answers += [[array[row : row + 1] for array in outputs] for row in range(rows)]
    return answers


def _by_exactness(variants: Mapping[str, Path]) -> Sequence[str]:
    exact = [name for name in _EXACT if name in variants]
    return [*exact, *sorted(set(variants) - set(exact))]


def _answered(
    reopen: Callable[[], NamedSession], attempts: Iterator[Samples], clock: Clock
) -> tuple[Samples, tuple[Answers, ...]]:
    """The first samples that are taken, as many as were answered. Raises what opening or the first of them raised."""
    session: NamedSession | None = reopen()
    end_s, deaths = clock() + _GUESS_S, 0
    first: InferdError | None = None
    try:
        for samples in attempts:
            if session is None or (first and clock() > end_s):
                break
            try:
                answers = collect(session, samples, most_rows=1, clock=clock)
                if all(map(is_sound, answers)):
                    return replace(samples, requests=samples.requests[: len(answers)]), tuple(answers)
                first = first or EngineFault("an answer has no number in it")
            except HostDied as error:
                first, deaths = first or error, deaths + 1
                session = reopen() if deaths < _MAX_DEATHS else None
            except InferdError as error:
                first = first or error
        raise first or EngineFault("no inputs could be made up")
    finally:
        if session is not None:
            session.close()


def _words(engine: str, path: Path, samples: Samples, reasons: Sequence[str]) -> str:
    """Who answered what, and what was passed over."""
    count = len(samples.requests)
    kind = "made-up" if samples.source == "generated" else samples.source
    words = f"{path.name} in {engine} at f32, on {count} {kind} input{'s' if count > 1 else ''}"
    left_out = [*reasons, *([samples.note] if samples.note not in ("", *reasons) else [])]
    return f"{words} ({'; '.join(left_out)})" if left_out else words
