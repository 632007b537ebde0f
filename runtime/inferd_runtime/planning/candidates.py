"""The candidates: variants x engines and devices x precisions x streams and threads x fixed rows x inline.

The order is that in which a search without any figures should go: first one shape of every build (what shares engine,
device, variant and precision is one build), and the builds that suit this kind of model before the others. What cannot
even be tried becomes a vetoed trial with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

from inferd_runtime.engines import Engine
from inferd_runtime.planning.evidence import Candidate, Trial
from inferd_runtime.planning.kind import Kind
from inferd_runtime.planning.places import OPENVINO, ORT, asked_variants, refusal
from inferd_runtime.planning.plan import AUTO, LATENCY, Ground, Wishes
from inferd_runtime.spec import ModelSpec

# A session for exactly so many rows: for lone requests, for small batches, for full ones.
FIXED_ROWS = (1, 4, 16)
# Streams of one thread each: a device beside the CPU computes by itself, and threads only feed it.
DEVICE_STREAMS = (2, 1, 4)
# Models smaller than this run for so short a time that more threads only get in each other's way.
SMALL_BYTES = 1 << 20

Shape = tuple[int, int]
# What tells the candidates of one build apart: streams, threads, rows, inline.
Way = tuple[int, int, int, bool]


def list_candidates(
    ground: Ground, variants: Mapping[str, Path], wishes: Wishes, *, spec: ModelSpec, kind: Kind, file_bytes: int
) -> tuple[list[Candidate], list[Trial]]:
    """What to try, most telling first, and what is vetoed before any trial. `spec` is what the safe plan found. Raises
    InvalidModel for a variant that is asked for and not there."""
    is_small = kind in ("mlp", "rnn") or 0 < file_bytes < SMALL_BYTES
    wants_threads = (wishes.objective or ground.objective) == LATENCY and not is_small
    builds: list[list[Candidate]] = []
    vetoed: list[Trial] = []
    for (engine, device), variant in product(_places(ground, wishes, kind), _variants(variants, wishes)):
        shapes = _shapes(ground.cores, device, wishes, wants_threads)
        why_not = refusal(ground, engine, device, variants[variant])
        if why_not:
            vetoed.append(Trial(Candidate(engine, device, variant, wishes.precision, *shapes[0]), "vetoed", why_not))
        elif why_not is None:
            ways = list(_ways(ground, device, wishes, spec, shapes))
            builds += [
                [Candidate(engine, device, variant, precision, *way) for way in ways]
                for precision in _precisions(ground.engines[engine], device, wishes)
            ]
    builds.sort(key=lambda build: build[0].precision != wishes.precision)  # what is usual comes first, else as it is
    return [build[0] for build in builds] + [candidate for build in builds for candidate in build[1:]], vetoed


def _variants(variants: Mapping[str, Path], wishes: Wishes) -> list[str]:
    return asked_variants(variants, wishes) or sorted(variants, key=lambda name: (name != "int8", name))


def _places(ground: Ground, wishes: Wishes, kind: Kind) -> list[tuple[str, str]]:
    """Engines with their devices: GPUs first, TensorRT last, for it compiles for minutes; between them the CPU, with
    the engine first that is the better one for this kind of model as a rule."""
    cpu = [(OPENVINO, "cpu"), (ORT, "cpu")]
    if kind in ("rnn", "mlp"):
        cpu.reverse()
    if wishes.device != AUTO:
        places = [(engine, wishes.device) for engine, _ in cpu]
    else:
        others = [(name, device) for name, engine in ground.engines.items() for device in _others(engine)]
        slow = [place for place in others if place[1].startswith("tensorrt")]
        gpus = [place for place in others if place not in slow and place != (ORT, "cuda:0")]
        places = [(ORT, "cuda:0"), *gpus, *cpu, *slow]
    asked = wishes.engine if wishes.engine != AUTO else ground.engine
    return [(engine, device) for engine, device in places if asked in (AUTO, engine)]


def _others(engine: Engine) -> list[str]:
    """Its devices beside the CPU; of several NVIDIA GPUs the first."""
    return [
        device
        for device in engine.devices()
        if device != "cpu" and (device.endswith(":0") or not device.startswith(("cuda", "tensorrt")))
    ]


def _precisions(engine: Engine, device: str, wishes: Wishes) -> tuple[str, ...]:
    return (AUTO, *engine.precisions(device)) if wishes.precision == AUTO else (wishes.precision,)


def _shapes(cores: int, device: str, wishes: Wishes, wants_threads: bool) -> list[Shape]:
    """(streams, threads) that use all cores, the most telling first: one thread a stream, or all in one stream."""
    if device != "cpu":
        streams = (wishes.streams,) if wishes.streams else DEVICE_STREAMS
        return [(count, wishes.threads or 1) for count in streams]
    most = max(1, cores // wishes.streams) if wishes.streams else max(1, cores)
    ladder = [1 << step for step in range(most.bit_length()) if 1 << step < most] + [most]
    threads = [wishes.threads] if wishes.threads else ladder
    shapes = [(wishes.streams or max(1, cores // count), count) for count in threads]
    ends = [shapes[-1], shapes[0]] if wants_threads else [shapes[0], shapes[-1]]
    return list(dict.fromkeys([*ends, *shapes]))


def _ways(ground: Ground, device: str, wishes: Wishes, spec: ModelSpec, shapes: list[Shape]) -> Iterator[Way]:
    if wishes.inline == "on" and ground.inline != "off":
        # The submitting thread runs one batch at a time: more streams would lie idle.
        for threads in dict.fromkeys(threads for _, threads in shapes):
            yield wishes.streams or 1, threads, 0, True
        return
    for rows in (0, *_fixed_rows(wishes, spec)):
        yield from ((*shape, rows, False) for shape in shapes)
    may_inline = wishes.inline == ground.inline == AUTO and device == "cpu" and wishes.isolation == "none"
    # Where sizes are free nobody knows how long the thread would be held.
    has_free_sizes = any(dim < 0 for tensor in spec.inputs for dim in tensor.shape[spec.max_batch > 0 :])
    if may_inline and not has_free_sizes and wishes.streams <= 1 and wishes.threads <= 1:
        yield 1, 1, 0, True


def _fixed_rows(wishes: Wishes, spec: ModelSpec) -> list[int]:
    """Sizes worth fixing: none where there is no batch dimension, none beyond the largest batch allowed."""
    most = min(wishes.batch or FIXED_ROWS[-1], spec.max_batch)
    return [*(rows for rows in FIXED_ROWS if rows < most), most] if most else []
