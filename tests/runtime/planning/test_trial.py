"""Trials in real child processes: real engines on real models, and candidates that go wild."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from inferd_agent.demo import digits
from inferd_runtime.engines import SessionOptions
from inferd_runtime.engines.discover import open_engines
from inferd_runtime.errors import EngineFault
from inferd_runtime.planning import Ground, Wishes
from inferd_runtime.planning.evidence import Candidate, Trial
from inferd_runtime.planning.hosts import Hosts, matched
from inferd_runtime.planning.reference import find_reference
from inferd_runtime.planning.trial import HostTrier
from inferd_runtime.spec import ModelSpec
from tests import ocr, onnx_models
from tests.models.fixtures import fetched_models as fetched_models
from tests.runtime.planning.wild import WildHost

ORT, OPENVINO = "onnxruntime", "openvino"
DIGITS = digits.MODELS / digits.MODEL / "1"
BRIEF_S = 0.02


def still() -> float:
    """A clock on which nothing takes so long that less would be done."""
    return 0.0


@pytest.fixture(scope="module")
def ground() -> Ground:
    engines, missing = open_engines()
    return Ground(engines, 2, missing)


def spec_of(ground: Ground, path: Path, max_batch: int = 64, engine: str = ORT) -> ModelSpec:
    session = ground.engines[engine].open(path, SessionOptions())
    session.close()
    return ModelSpec(session.inputs, session.outputs, max_batch)


def candidate(engine: str = ORT, variant: str = "", precision: str = "f32", **shape: int) -> Candidate:
    return Candidate(engine, "cpu", variant, precision, shape.get("streams", 1), 1, shape.get("rows", 0))


def first(trier: HostTrier, one: Candidate) -> Trial:
    return trier.try_out(one, seconds=BRIEF_S, is_first=True)


# The bundled digits, with golden data


@pytest.fixture(scope="module")
def trier(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostTrier]:
    folder = tmp_path_factory.mktemp("digits")
    (folder / "golden").mkdir()
    held_out = digits.held_out()
    np.savez(folder / "golden" / "held_out.npz", **{digits.INPUT: held_out.inputs()[:40], "labels": held_out.labels})
    variants = {name: DIGITS / f"model.{name}.onnx" for name in ("fp32", "int8")}
    trier = HostTrier(ground, variants, spec_of(ground, variants["fp32"]), Wishes(), folder=folder, clock=still)
    yield trier
    trier.close()


@pytest.mark.parametrize("variant", ["fp32", "int8"])
@pytest.mark.parametrize("engine", [ORT, OPENVINO])
def test_the_digits_are_measured(trier: HostTrier, engine: str, variant: str) -> None:
    """Every engine runs both files near enough to the float one, and the trial has all its figures."""
    trial = first(trier, candidate(engine, variant, streams=2))
    assert (trial.outcome, trial.reason, trial.rounds) == ("measured", "", 1)
    assert 0 < trial.run_us <= trial.run_p95_us
    assert trial.curve[0] == (1, trial.run_us)
    assert [rows for rows, _ in trial.curve] == [1 << power for power in range(len(trial.curve))]
    assert trial.best_batch in dict(trial.curve)
    assert trial.rows_per_s > 0
    assert trial.compile_ms > 0
    assert trial.memory_bytes >= 0
    assert trial.metric in {"top1", "cosine"}
    assert trial.error < 0.01
    assert trier.inputs == "golden"
    assert trier.reference == "model.fp32.onnx in onnxruntime at f32, on 40 golden inputs"


def test_a_candidate_is_measured_again_at_the_same_batch(trier: HostTrier) -> None:
    """Later rounds are figures of their own; what was found before stands."""
    one = candidate(OPENVINO, "fp32", streams=2)
    before = first(trier, one)
    again = trier.try_out(one, seconds=BRIEF_S, is_first=False)
    assert (again.outcome, again.best_batch, again.curve) == ("measured", before.best_batch, before.curve)
    assert 0 < again.run_us <= again.run_p95_us
    assert again.rows_per_s > 0


def test_compiled_rows_are_measured(trier: HostTrier) -> None:
    """A session for exactly four rows answers forty samples like any other; four are timed where the time allows it."""
    trial = first(trier, candidate(OPENVINO, "fp32", rows=4))
    assert (trial.outcome, trial.best_batch) == ("measured", 4)
    assert [rows for rows, _ in trial.curve] in ([1], [1, 4])


def test_a_refusal_is_a_failed_trial(trier: HostTrier) -> None:
    """What an engine does not do is told in its own words."""
    trial = first(trier, candidate(ORT, "fp32", precision="bf16"))
    assert (trial.outcome, trial.run_us) == ("failed", 0.0)
    assert "ONNX Runtime has no bf16 hint" in trial.reason


# A page of text


def test_bf16_strays_from_a_text_detector(ground: Ground, fetched_models: Path, tmp_path: Path) -> None:
    """On a real page the INT8 file is near enough; OpenVINO in bf16, its default where the CPU has it, is not."""
    if "bf16" not in (*ground.engines[OPENVINO].precisions("cpu"), usual_precision(ground, fetched_models)):
        pytest.skip("this CPU does not compute in bf16")
    folder = fetched_models / "ppocr-detector" / "1"
    variants = {"": folder / "model.onnx", "int8": folder / "model.int8.onnx"}
    (tmp_path / "golden").mkdir()
    np.savez(tmp_path / "golden" / "page.npz", x=ocr.page_input(ocr.draw_page()))
    trier = HostTrier(ground, variants, spec_of(ground, variants[""]), Wishes(batch=1), folder=tmp_path)
    try:
        int8, bf16 = (first(trier, one) for one in (candidate(variant="int8"), candidate(OPENVINO, precision="bf16")))
    finally:
        trier.close()
    assert int8.outcome == "measured", int8.reason
    assert (bf16.outcome, bf16.metric, bf16.run_us) == ("vetoed", "relative", 0.0)
    assert bf16.error > 0.02
    assert f"relative error {bf16.error:.2g}, 0.02 allowed" in bf16.reason


def usual_precision(ground: Ground, models: Path) -> str:
    """What OpenVINO computes in where nothing is asked."""
    try:
        options = SessionOptions(precision="bf16")
        ground.engines[OPENVINO].open(models / "silero-vad-16k" / "1" / "model.onnx", options).close()
    except Exception:
        return "f32"
    return "bf16"


# Candidates that go wild


class Wild:
    """A trier of an MLP and of files that go wild, with what was opened."""

    def __init__(self, ground: Ground, folder: Path, *hows: str, plain: str = "model.onnx", **more: int) -> None:
        self.opened: list[str] = []
        self.hosts: list[WildHost] = []
        variants = {"": onnx_models.mlp(folder / plain, batch="N")}
        variants |= {how: onnx_models.mlp(folder / f"model.{how}.onnx") for how in hows}
        limit = more.get("memory_limit_bytes", 0)
        self.trier = HostTrier(
            ground,
            variants,
            spec_of(ground, variants[""]),
            Wishes(),
            start=partial(self._start, limit),
            clock=still,
            **more,
        )

    def _start(self, limit: int, engine: str) -> WildHost:
        self.hosts.append(WildHost(engine, self.opened, limit))
        return self.hosts[-1]


@pytest.fixture
def wild(ground: Ground, tmp_path: Path) -> Iterator[Callable[..., Wild]]:
    made: list[Wild] = []

    def make(*hows: str, **more: object) -> Wild:
        made.append(Wild(ground, tmp_path, *hows, **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.trier.close()


def test_whatever_a_candidate_does_is_its_outcome(wild: Callable[..., Wild]) -> None:
    """A crash, an abort, a hang, NaN, answers that stray and rows that do not mix are told apart, and the next
    candidate is measured."""
    told = {
        "crash": ("failed", "SIGSEGV"),
        "abort": ("failed", "SIGABRT"),
        "hang": ("failed", "gave no answer within 0.2 s"),
        "nan": ("failed", "NaN or infinite where the reference is not"),
        "stray": ("vetoed", "strays from the reference: output"),
        "crowd": ("failed", "rows do not go together"),
        "picky": ("failed", "these inputs are not for me"),
    }
    one = wild(*told)
    for how, (outcome, reason) in told.items():
        trial = first(one.trier, candidate(variant=how))
        assert (trial.outcome, trial.run_us) == (outcome, 0.0), how
        assert reason in trial.reason
    assert first(one.trier, candidate()).outcome == "measured"
    assert len(one.hosts) == 4  # three died
    assert one.trier.inputs == "generated"
    assert one.trier.reference == "model.onnx in onnxruntime at f32, on 16 made-up inputs"


def test_memory_without_end_is_an_outcome(wild: Callable[..., Wild]) -> None:
    """The child is killed at the limit. Who shared it with others is tried once more alone, and the others go on."""
    one = wild("eat", memory_limit_bytes=256 << 20)
    assert first(one.trier, candidate()).outcome == "measured"
    trial = first(one.trier, candidate(variant="eat"))
    assert trial.outcome == "failed"
    assert "more than 256 MiB of memory" in trial.reason
    assert one.opened.count("model.eat.onnx") == 2
    assert one.trier.try_out(candidate(), seconds=BRIEF_S, is_first=False).outcome == "measured"


@pytest.mark.parametrize(("how", "outcome"), [("unlucky", "measured"), ("killed", "failed")])
def test_what_somebody_else_kills_is_tried_once_more(wild: Callable[..., Wild], how: str, outcome: str) -> None:
    """A signal from outside says nothing of the candidate; the second one is its outcome."""
    one = wild(how)
    trial = first(one.trier, candidate(variant=how))
    assert trial.outcome == outcome
    assert ("SIGKILL" in trial.reason) == (outcome == "failed")
    assert one.opened.count(f"model.{how}.onnx") == 2


def test_kept_sessions_stay_open(wild: Callable[..., Wild]) -> None:
    """Measuring again compiles nothing, until the session is not kept, or too many are open."""
    one = wild()
    shapes = [candidate(streams=streams) for streams in range(1, 10)]
    first(one.trier, shapes[0])
    before = len(one.opened)
    one.trier.keep(shapes[:1])
    one.trier.try_out(shapes[0], seconds=BRIEF_S, is_first=False)
    assert len(one.opened) == before
    one.trier.keep([])
    one.trier.try_out(shapes[0], seconds=BRIEF_S, is_first=False)
    assert len(one.opened) == before + 1
    for shape in shapes[1:]:
        first(one.trier, shape)
    one.trier.try_out(shapes[1], seconds=BRIEF_S, is_first=False)
    assert len(one.opened) == before + 9
    one.trier.try_out(shapes[0], seconds=BRIEF_S, is_first=False)
    assert len(one.opened) == before + 10


def test_where_nothing_can_be_run_every_trial_says_so(wild: Callable[..., Wild]) -> None:
    """Without an input that the model takes nothing is measured, and what would help is said."""
    one = wild(plain="model.picky.onnx")
    for engine in (ORT, OPENVINO):
        trial = first(one.trier, candidate(engine))
        assert trial.outcome == "failed"
        assert "no inputs that the model takes were found (golden/*.npz in the model's folder" in trial.reason
        assert "onnxruntime model.picky.onnx: these inputs are not for me" in trial.reason
    assert (one.trier.reference, one.trier.inputs) == ("", "generated")


def test_a_reference_that_crashes_is_given_up(wild: Callable[..., Wild]) -> None:
    """It is not tried with guess after guess; the other engine answers where it can."""
    one = wild(plain="model.crash.onnx")
    assert "SIGSEGV" in first(one.trier, candidate()).reason
    assert one.opened.count("model.crash.onnx") == 4  # twice in each engine


def test_a_closed_trier_starts_nothing(wild: Callable[..., Wild]) -> None:
    """Closing ends what is under way, from any thread, and nothing comes after it."""
    one = wild()
    assert first(one.trier, candidate()).outcome == "measured"
    one.trier.close()
    one.trier.close()
    assert "was closed" in first(one.trier, candidate()).reason
    assert all(host.why() for host in one.hosts)


# References for models of every kind


@pytest.fixture(scope="module")
def hosts(ground: Ground) -> Iterator[Hosts]:
    hosts = Hosts(lambda engine: WildHost(engine, []), 60.0)
    yield hosts
    hosts.close()


@pytest.mark.parametrize(
    ("build", "max_batch", "words"),
    [
        (onnx_models.two_inputs, 64, "16 made-up inputs"), (onnx_models.no_batch, 0, "16 made-up inputs"),
        (onnx_models.scalar, 0, "16 made-up inputs"), (onnx_models.fixed_batch, 0, "16 made-up inputs"),
        (onnx_models.string_upper, 64, "16 made-up inputs"), (onnx_models.optional_input, 64, "16 made-up inputs"),
        (onnx_models.dynamic_width, 64, "16 made-up inputs (sizes guessed: "),
        (onnx_models.dynamic_output, 0, "16 made-up inputs"), (onnx_models.qoperator, 64, "16 made-up inputs"),
        (partial(onnx_models.identity, datatype="BF16"), 64, "16 made-up inputs"),
    ],
)  # fmt: skip
def test_models_of_every_kind_are_given_inputs(
    ground: Ground, hosts: Hosts, tmp_path: Path, build: Callable[[Path], Path], max_batch: int, words: str
) -> None:
    """Several inputs, none that is a batch, strings, scalars, free sizes and odd types: all are answered."""
    path = build(tmp_path / "model.onnx")
    found = find_reference(hosts, ground, {"": path}, spec_of(ground, path, max_batch), None, still)
    assert found.words.startswith(f"model.onnx in onnxruntime at f32, on {words}")
    assert len(found.answers) == len(found.samples.requests) == 16
    assert (found.variant, found.samples.is_batched) == ("", max_batch > 0)


def test_the_most_exact_file_is_the_reference(ground: Ground, hosts: Hosts, tmp_path: Path) -> None:
    """fp32 before the plain file before all others; a file that no engine opens is passed over and told."""
    spec = spec_of(ground, onnx_models.mlp(tmp_path / "m.onnx"))
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"garbage")
    for variants, chosen in (
        (["int8", "", "fp32"], "fp32"), (["int8", ""], ""), (["int8", "fp16"], "fp16"), (["int8", "int4"], "int4"),
    ):  # fmt: skip
        paths = dict.fromkeys(variants, tmp_path / "m.onnx")
        assert find_reference(hosts, ground, paths, spec, None, still).variant == chosen
    found = find_reference(hosts, ground, {"fp32": garbage, "int8": tmp_path / "m.onnx"}, spec, None, still)
    assert found.variant == "int8"
    assert "onnxruntime garbage.onnx: " in found.words
    with pytest.raises(EngineFault, match=r"no inputs that the model takes were found .*onnxruntime garbage\.onnx"):
        find_reference(hosts, ground, {"": garbage}, spec, None, still)


def test_openvino_answers_where_onnxruntime_is_not(ground: Ground, hosts: Hosts, tmp_path: Path) -> None:
    """What ONNX Runtime does not read, or where it is missing, OpenVINO runs at full precision."""
    path = onnx_models.mlp(tmp_path / "m.onnx")
    alone = replace(ground, engines={OPENVINO: ground.engines[OPENVINO]})
    found = find_reference(hosts, alone, {"": path}, spec_of(ground, path), None, still)
    assert found.words.startswith("m.onnx in openvino at f32")


def test_golden_data_that_does_not_do_is_told(ground: Ground, hosts: Hosts, tmp_path: Path) -> None:
    """Data that does not fit, or that the model refuses, gives way to made-up inputs, and the words say so."""
    path = onnx_models.faulting(tmp_path / "m.onnx")
    (tmp_path / "golden").mkdir()
    for index, complaint in (
        (np.zeros((4, 3), np.int64), "golden/bad.npz: 'index' has shape [4, 3], expected [-1, 1]"),
        (np.full((4, 1), 99), "it refuses the golden data"),
    ):
        np.savez(tmp_path / "golden" / "bad.npz", index=index)
        found = find_reference(hosts, ground, {"": path}, spec_of(ground, path), tmp_path, still)
        assert found.samples.source == "generated"
        assert complaint in found.words


def test_golden_data_helps_where_no_guess_would(ground: Ground, hosts: Hosts, tmp_path: Path) -> None:
    """A model that takes few inputs is measured on those that its owner stored."""
    path = onnx_models.faulting_reshape(tmp_path / "m.onnx")
    spec = spec_of(ground, path, max_batch=0)
    with pytest.raises(EngineFault, match="no inputs that the model takes were found"):
        find_reference(hosts, ground, {"": path}, spec, tmp_path, still)
    (tmp_path / "golden").mkdir()
    np.savez(tmp_path / "golden" / "good.npz", x=np.arange(4.0), shape=np.array([2, 2]))
    found = find_reference(hosts, ground, {"": path}, spec, tmp_path, still)
    assert found.samples.source == "golden"
    assert found.answers[0][0].tolist() == [[0, 1], [2, 3]]


def test_time_and_size_end_the_collecting(ground: Ground, hosts: Hosts, tmp_path: Path) -> None:
    """At least one sample is answered, and as many as a few seconds allow."""
    path = onnx_models.mlp(tmp_path / "m.onnx")
    ticks = iter(range(0, 10_000, 1))
    found = find_reference(hosts, ground, {"": path}, spec_of(ground, path), None, lambda: float(next(ticks)))
    assert len(found.answers) == len(found.samples.requests) == 2
    assert "on 2 made-up inputs" in found.words


def test_names_of_an_engines_own_are_matched_by_place() -> None:
    """Where an engine calls tensors otherwise their order counts; another number of them is another model."""
    assert matched(["a", "b"], ["b", "a"], "inputs") == ["a", "b"]
    assert matched(["a", "b"], ["x", "y"], "inputs") == ["x", "y"]
    with pytest.raises(EngineFault, match="it has the inputs 'x', expected 'a', 'b'"):
        matched(["a", "b"], ["x"], "inputs")
