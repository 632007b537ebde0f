"""Triton's perf_analyzer, as it is in a wheel of its Python client, over REST and gRPC: it finds out about a model,
measures, and its counts are the daemon's. The number of requests is fixed, so that nothing here depends on speed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import tritonclient.grpc as triton

from tests.clients.conftest import Site

Run = Callable[..., subprocess.CompletedProcess[str]]
# So many that it reads the daemon's counters well before the last of them, which it does some requests late.
REQUESTS = 1000
SHARED = "--shared-memory=system"
# It forgets the requests that are answered before its main thread first looks, as happens on a busy machine, and then
# waits for ever for as many more: it is begun anew.
TRIES, TRY_S = 4, 90
JSON = ("--input-tensor-format=json", "--output-tensor-format=json")


@pytest.fixture
def analyse(perf_analyzer: Path, site: Site, tmp_path: Path) -> Run:
    """Runs it against a door of the daemon, with the token; `note` is called before."""

    def run(
        door: str, model: str, *args: str, token: str = site.token, note: Callable[[], object] = lambda: None
    ) -> subprocess.CompletedProcess[str]:
        command = [str(perf_analyzer / "perf_analyzer"), "-m", model, *address(site, door), *args]
        if token:
            command += ["-H", f"authorization:Bearer {token}"]
        for _ in range(TRIES):
            note()
            with contextlib.suppress(subprocess.TimeoutExpired):
                return subprocess.run(
                    command, env={**os.environ, "LD_LIBRARY_PATH": str(perf_analyzer)}, cwd=tmp_path,
                    capture_output=True, text=True, timeout=TRY_S, check=False,
                )  # fmt: skip
        pytest.fail(f"it did not end within {TRY_S} s, {TRIES} times over")

    return run


def address(site: Site, door: str) -> list[str]:
    """The options that lead to a door."""
    ca = str(site.daemon.ca)
    match door:
        case "loopback":
            return ["-u", f"127.0.0.1:{site.ports[door]}"]
        case "tls":
            verify = ["--ssl-https-verify-peer", "1", "--ssl-https-verify-host", "2"]
            return ["-u", f"https://localhost:{site.ports[door]}", "--ssl-https-ca-certificates-file", ca, *verify]
        case "grpc-loopback":
            return ["-i", "grpc", "-u", f"127.0.0.1:{site.ports[door]}"]
        case "grpc-unix":
            return ["-i", "grpc", "-u", f"unix:{site.path(door)}"]
    secure = ["--ssl-grpc-use-ssl", "--ssl-grpc-root-certifications-file", ca]
    return ["-i", "grpc", "-u", f"localhost:{site.ports[door]}", *secure]


def success(site: Site, model: str) -> tuple[int, int]:
    """Requests and rows that the daemon counts for a model."""
    with site.daemon.client() as client:
        [found] = client.stats(model)["model_stats"]
    return found["inference_stats"]["success"]["count"], found["inference_count"]


def told(done: subprocess.CompletedProcess[str], what: str) -> int:
    """A count in the report."""
    found = re.search(rf"^ *{what}: (\d+)", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return int(found[1])


@pytest.mark.parametrize(
    ("door", "args"),
    [
        ("loopback", ()),
        ("loopback", ("-a",)),
        ("loopback", ("-b", "8")),
        ("loopback", JSON),
        ("loopback", (*JSON, "-b", "8", "-a")),
        ("loopback", ("-x", "1")),
        ("loopback", (SHARED,)),
        ("tls", ()),
        ("tls", ("-a", "-b", "8")),
        ("tls", JSON),
        ("tls", (SHARED, "-a", "-b", "8")),
        ("grpc-loopback", ()),
        ("grpc-loopback", ("-a",)),
        ("grpc-loopback", ("--streaming",)),
        ("grpc-loopback", ("--grpc-compression-algorithm=gzip",)),
        ("grpc-loopback", (SHARED, "-b", "8")),
        ("grpc-tls", ()),
        ("grpc-tls", ("-a", "-b", "8")),
        ("grpc-tls", ("--streaming", "-b", "8")),
        ("grpc-tls", (SHARED,)),
        ("grpc-unix", ("-b", "8")),
        ("grpc-unix", ("-a",)),
        ("grpc-unix", ("--streaming", "-a")),
        ("grpc-unix", (SHARED, "--streaming", "-a")),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) or "sync",
)
def test_its_counts_are_the_daemons(analyse: Run, site: Site, door: str, args: tuple[str, ...]) -> None:
    """Each way of sending, and by itself and in batches: what it sent, what it read and what was counted
    agree."""
    rows = int(args[args.index("-b") + 1]) if "-b" in args else 1
    counts: list[tuple[int, int]] = []
    fixed = ("--request-count", str(REQUESTS), "--concurrency-range", "2")
    done = analyse(door, "mlp", *fixed, *args, note=lambda: counts.append(success(site, "mlp")))
    assert done.returncode == 0, done.stdout + done.stderr
    assert told(done, "Request count") == REQUESTS
    assert 0 < told(done, "Successful request count") <= REQUESTS
    assert told(done, "Inference count") == told(done, "Successful request count") * rows
    requests, inferences = counts[-1]
    assert success(site, "mlp") == (requests + REQUESTS, inferences + REQUESTS * rows)


@pytest.mark.parametrize("door", ["tls", "grpc-unix"])
def test_its_regions_are_used(analyse: Run, site: Site, door: str) -> None:
    """With shared memory an input and an output are registered, and given back at the end."""
    counts: list[int] = []
    done = analyse(door, "mlp", "--request-count", str(REQUESTS), SHARED, note=lambda: counts.append(registered(site)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert registered(site) == counts[-1] + 2
    with triton.InferenceServerClient(f"127.0.0.1:{site.ports['grpc-loopback']}") as client:
        status = client.get_system_shared_memory_status(headers={"authorization": f"Bearer {site.token}"})
    assert not status.regions


def registered(site: Site) -> int:
    """Regions that were ever registered."""
    with site.daemon.client() as client:
        lines = [line for line in client.metrics().splitlines() if line.startswith("inferd_requests_total{")]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if re.search(r'"register"|MemoryRegister"', line))


@pytest.mark.parametrize("door", ["loopback", "grpc-tls"])
def test_it_settles_over_windows(analyse: Run, door: str) -> None:
    """Without a fixed number it reads statistics between windows until they are alike."""
    windows = ("--measurement-mode", "count_windows", "--measurement-request-count", "30", "-s", "1000000")
    done = analyse(door, "mlp", *windows)
    assert done.returncode == 0, done.stdout + done.stderr
    assert told(done, "Successful request count") >= 30


@pytest.mark.parametrize("door", ["tls", "grpc-unix"])
@pytest.mark.parametrize(
    ("model", "args"), [("wide", ("--shape", "x:16", "-b", "2")), ("same_bytes", ("--string-length", "20", "-b", "3"))]
)
def test_free_shapes_and_strings(analyse: Run, door: str, model: str, args: tuple[str, ...]) -> None:
    """Shapes that the caller chooses, and tensors of bytes."""
    done = analyse(door, model, "--request-count", str(REQUESTS), *args)
    assert done.returncode == 0, done.stdout + done.stderr
    assert told(done, "Request count") == REQUESTS


@pytest.mark.parametrize("door", ["tls", "grpc-loopback"])
@pytest.mark.parametrize("is_right", [True, False])
def test_it_checks_answers(analyse: Run, tmp_path: Path, door: str, is_right: bool) -> None:
    """Answers that it is told to expect are the ones it gets, and it would notice others."""
    sent, expected = [1, -2, 3, 127], [1, -2, 3, 127 if is_right else 126]
    data = {"data": [{"x": {"content": sent}}], "validation_data": [{"y": {"content": expected}}]}
    (tmp_path / "data.json").write_text(json.dumps(data))
    done = analyse(door, "same_int8", "--request-count", str(REQUESTS), "--input-data", "data.json")
    assert (done.returncode == 0) is is_right, done.stdout + done.stderr


@pytest.mark.parametrize("door", ["loopback", "tls", "grpc-loopback", "grpc-tls", "grpc-unix"])
@pytest.mark.parametrize(
    ("model", "has_token", "says"), [("nope", True, "there is no model 'nope'"), ("mlp", False, "a token is needed")]
)
def test_it_shows_what_is_wrong(analyse: Run, door: str, model: str, has_token: bool, says: str) -> None:
    """Our words reach its user."""
    done = analyse(door, model, **({} if has_token else {"token": ""}))
    assert done.returncode != 0
    assert says in done.stdout + done.stderr
