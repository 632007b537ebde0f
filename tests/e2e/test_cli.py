"""The command line against a real daemon: output for people and machines, exit codes, and the demo."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inferd_agent.demo import held_out
from tests import onnx_models
from tests.e2e.conftest import Served
from tests.e2e.daemon import INFERD, Daemon

DIGITS = held_out()


@pytest.fixture
def here(served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Commands find the daemon by INFERD_URL; a folder with a digit as .npy and as .png."""
    monkeypatch.setenv("INFERD_URL", served.daemon.url)
    np.save(tmp_path / "x.npy", DIGITS.inputs()[0])
    Image.fromarray((DIGITS.images[0] * 15.9375).astype(np.uint8)).resize((64, 64)).save(tmp_path / "x.png")
    return tmp_path


def inferd(*args: object) -> subprocess.CompletedProcess[str]:
    """Run the installed script as a user does."""
    return subprocess.run([INFERD, *map(str, args)], capture_output=True, text=True, timeout=100, check=False)


def test_models_shows_all(here: Path) -> None:
    """State, INT8, engine and inputs of each model, with nothing folded."""
    done = inferd("models")
    assert (done.returncode, done.stderr) == (0, "")
    [digits] = [line for line in done.stdout.splitlines() if line.startswith("digits ") and "READY" in line]
    assert "int8 qdq per-channel" in digits
    assert "image FP32 [-1,1,8,8]" in digits


def test_models_tells_everything_of_one(here: Path) -> None:
    """Labelled lines for people; the same facts under stable keys for machines."""
    text = inferd("models", "digits").stdout
    for word in ("quantised", "inputs", "engine", "why"):
        assert re.search(rf"^  {word} ", text, re.MULTILINE)
    [found] = json.loads(inferd("models", "digits", "--json").stdout)
    assert found["state"] == "READY"
    assert found["quantisation"]["kind"] == "int8"
    assert {"engine", "device", "reason", "vetoes"} <= set(found["plan"])


def test_models_that_openvino_refuses_serve_in_onnxruntime(fresh: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """QOperator files and per-channel QDQ of opset 11: they serve, and `inferd models` shows OpenVINO's reason."""
    onnx_models.qoperator(fresh.models / "qoperator.onnx")
    onnx_models.qdq_per_channel(fresh.models / "qdq11.onnx", opset=11)
    fresh.start()
    monkeypatch.setenv("INFERD_URL", fresh.url)
    for name, reason in (("qoperator", "QGemm"), ("qdq11", "")):
        shown = inferd("models", name).stdout
        assert re.search(rf"^  not openvino cpu +.*{reason}", shown, re.MULTILINE), shown
        assert re.search(r"^  engine +onnxruntime on cpu", shown, re.MULTILINE), shown
        with fresh.client() as client:
            assert client.infer(name, {"x": np.ones((2, 16), np.float32)})["y"].shape == (2, 4)


def test_infer_reads_an_image_and_ranks(here: Path) -> None:
    """The best class of a real digit is its label."""
    done = inferd("infer", "digits", "--input", f"image={here}/x.png", "--scale", "0.0627", "--top", "3")
    assert done.returncode == 0, done.stderr
    ranking = [line.split() for line in done.stdout.splitlines() if line.startswith("    ")]
    assert len(ranking) == 3
    assert ranking[0][0] == str(DIGITS.labels[0])


def test_infer_saves_an_output(here: Path) -> None:
    """--output NAME=FILE.npy is what --json shows."""
    path = here / "out.npy"
    done = inferd("infer", "digits", "--input", here / "x.npy", "--output", f"probabilities={path}", "--json")
    saved, answer = np.load(path), json.loads(done.stdout)
    assert answer["model_name"] == "digits"
    np.testing.assert_allclose(saved, answer["outputs"]["probabilities"], atol=1e-6)
    assert saved.argmax() == DIGITS.labels[0]


def test_infer_takes_and_shows_text(here: Path) -> None:
    """BYTES inputs from .json come back readable; .npy cannot hold them, which is said."""
    path = here / "s.json"
    path.write_text('[["héllo"]]')
    done = inferd("infer", "strings", "--input", path)
    assert "héllo" in done.stdout
    name = done.stdout.splitlines()[1].split()[0]
    done = inferd("infer", "strings", "--input", path, "--output", f"{name}={here}/o.npy")
    assert done.returncode == 1
    assert "--json" in done.stderr


def test_infer_says_what_a_model_takes(here: Path) -> None:
    """Without --input, and with a wrong shape, the error names name, datatype and shape."""
    done = inferd("infer", "digits")
    assert done.returncode == 2
    assert "image FP32 [-1,1,8,8]" in done.stderr
    np.save(here / "bad.npy", np.zeros((1, 1, 7, 7), np.float32))
    done = inferd("infer", "digits", "--input", here / "bad.npy")
    assert done.returncode == 1
    assert "[1,1,7,7]" in done.stderr


def test_a_version_and_a_time_limit_may_be_named(here: Path) -> None:
    """--version asks that version, which takes other shapes here; --timeout gives up."""
    np.save(here / "eight.npy", np.zeros((1, 8), np.float32))
    found = json.loads(inferd("infer", "versioned", "--version", 1, "--input", here / "eight.npy", "--json").stdout)
    assert found["model_version"] == "1"
    assert inferd("infer", "versioned", "--input", here / "eight.npy").returncode == 1
    done = inferd("bench", "versioned", "--version", 1, "-d", 0.2, "--input", here / "eight.npy", "--json")
    assert json.loads(done.stdout)["errors"] == {}
    np.save(here / "wide.npy", np.zeros((1, 512), np.float32))
    for command in ("infer", "bench"):
        done = inferd(command, "slow", "--timeout", 0.001, "--input", here / "wide.npy")
        assert done.returncode == 1
        assert "0.001 s" in done.stderr or "deadline" in done.stderr


def test_bench_closed_loop(here: Path) -> None:
    """Figures under stable keys; nothing but JSON on standard output, nothing on standard error."""
    done = inferd("bench", "digits", "-c", 4, "-d", 1, "--warmup", 0.1, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["loop"], found["concurrency"], found["rate"], found["rows"]) == ("closed", 4, None, 1)
    assert found["requests"] > 50
    latency = found["latency_us"]
    assert (
        0 < latency["p50"] <= latency["p90"] <= latency["p95"] <= latency["p99"] <= latency["p99_9"] <= latency["max"]
    )
    assert (found["errors"], found["dropped"], found["interrupted"]) == ({}, 0, False)


def test_bench_open_loop(here: Path) -> None:
    """--rate sends about so many requests, and people can read the figures."""
    done = inferd("bench", "digits", "--rate", 50, "-d", 1, "--warmup", 0, "--input", here / "x.npy")
    assert done.returncode == 0, done.stderr
    assert "open loop, 50 a second" in done.stdout
    match = re.search(r"answered  (\d+):", done.stdout)
    assert match is not None
    assert 20 < int(match[1]) < 90
    assert "p99.9" in done.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("digits", "--rate", "5", "-c", "2"), "give one of them"),
        (("wide",), "--shape x:1x32"),
        (("fixed_batch", "--rows", "2"), "--rows"),
        (("wide", "--shape", "x:1xa"), "NAME:1x3x48x320"),
        (("digits", "--rows", "2", "--input", "x.npy"), "leave --shape and --rows out"),
    ],
)
def test_bench_refuses_contradictions(here: Path, args: tuple[str, ...], said: str) -> None:
    """Options that cannot both have an effect are wrong usage, with what to do."""
    done = inferd("bench", *args)
    assert done.returncode == 2
    assert said in done.stderr


def test_who_may_not_gets_4(served: Served) -> None:
    """A wrong token, none over TCP, and one without the scope."""
    where = ("--url", served.https, "--ca", served.daemon.ca)
    reader = served.daemon.token("cli-reader", "read")
    assert inferd("models", *where, "--token", "ifd_00000000_" + "0" * 64).returncode == 4
    assert inferd("models", *where).returncode == 4
    assert inferd("models", *where, "--token", reader).returncode == 0
    done = inferd("bench", "digits", *where, "--token", reader)
    assert done.returncode == 4
    assert "inferd token create" in done.stderr


def test_no_trust_is_3(served: Served) -> None:
    """Without the daemon's CA nothing is sent, and the error says which file to trust."""
    done = inferd("models", "--url", served.https, "--token", served.token)
    assert done.returncode == 3
    assert "--ca FILE" in done.stderr


@pytest.mark.parametrize("command", ["models", "bench", "infer"])
def test_no_such_model_is_5(here: Path, command: str) -> None:
    """The model is named, and so is the way to see what there is."""
    done = inferd(command, "nope")
    assert done.returncode == 5
    assert "'nope'" in done.stderr
    assert "inferd models" in done.stderr


def test_the_demo_proves_itself_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 0 with at least 97 % right, the engine and why; no process and no file stays."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = inferd("demo", "--requests", 100)
    assert done.returncode == 0, done.stderr
    match = re.search(r"^accuracy +([0-9.]+)%", done.stdout, re.MULTILINE)
    assert match is not None
    assert float(match[1]) >= 97
    for word in ("daemon", "engine", "latency", "throughput"):
        assert re.search(rf"^{word} ", done.stdout, re.MULTILINE)
    assert "█" in done.stdout
    assert not list(tmp_path.glob("inferd*"))
    assert not [command for command in commands_that_run() if str(tmp_path).encode() in command]


def commands_that_run() -> Iterator[bytes]:
    """The command lines of all processes, as far as these do not end meanwhile."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_bytes()


def test_the_demo_speaks_json(tmp_path: Path) -> None:
    """The same figures for machines, and nothing else on standard output."""
    found = json.loads(inferd("demo", "--requests", 100, "--json").stdout)
    assert found["accuracy"] >= 0.97
    assert {"digits", "latency_us", "requests_per_s", "ready_s", "plan"} <= set(found)


def test_a_daemon_that_cannot_start_ends_the_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A socket path that is too long: the demo fails with the daemon's own words."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    done = inferd("demo", "--requests", 100)
    assert done.returncode == 1
    assert "the daemon ended" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(folder.glob("inferd*"))


def test_module_and_script_are_one() -> None:
    """`python -m inferd_agent` is `inferd`."""
    done = subprocess.run(
        [sys.executable, "-m", "inferd_agent", "version"], capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout == inferd("version").stdout
