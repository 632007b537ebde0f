"""A daemon killed while it loads a version: real processes, a real kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from inferd_runtime.errors import ModelNotReady
from tests import onnx_models
from tests.runtime.repository.stage import Stage

# A process that begins to load, says so, and never ends by itself.
DAEMON = """
import sys, threading
from pathlib import Path
from inferd_runtime.repository.repository import Repository

def hang(files, settings, digest):
    if files.name == "bad":
        print("opening", flush=True)
        threading.Event().wait()
    raise RuntimeError("not in this test")

root, cache = map(Path, sys.argv[1:])
repository = Repository([root], open_version=hang, cache_dir=cache, watch=False, settle_s=0.01)
repository.start()
if repository.wait_loaded(60):
    print(repository.describe("bad").reason, flush=True)
threading.Event().wait()
"""


def say(stage: Stage) -> str:
    """Start a daemon, return the first thing that it says, and kill it."""
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(stage.root), str(stage.cache)], stdout=subprocess.PIPE, text=True
    ) as daemon:
        assert daemon.stdout is not None
        line = daemon.stdout.readline().strip()
        os.kill(daemon.pid, signal.SIGKILL)
    assert daemon.returncode == -signal.SIGKILL
    return line


@pytest.fixture
def killed(stage: Stage) -> Stage:
    """A repository whose last daemon was killed while it loaded `bad`."""
    stage.install("bad")
    stage.install("good")
    assert say(stage) == "opening"
    return stage


def test_a_version_that_killed_the_daemon_stays_out(killed: Stage) -> None:
    """The next daemons start, serve the rest and tell why; they do not die again, however often they start."""
    for _ in range(2):
        assert "died while loading this version the last time (once)" in say(killed)
    stage = killed
    stage.repository = stage.build()
    stage.settle()
    assert stage.states("good") == {1: "READY"}
    assert stage.states("bad") == {1: "FAILED"}
    with pytest.raises(ModelNotReady, match="load it explicitly"):
        stage.repository.get("bad")
    assert ("bad", 1) not in stage.opener.opened


def test_asking_tries_again(killed: Stage) -> None:
    """An explicit load opens it, and once that went well nothing is held against it."""
    killed.repository = killed.build()
    killed.settle()
    killed.order(lambda: killed.repository.load("bad"))
    assert killed.states("bad") == {1: "READY"}
    killed.repository.close()
    killed.repository = killed.build()
    killed.settle()
    assert killed.states("bad") == {1: "READY"}


def test_other_content_is_tried_again(killed: Stage) -> None:
    """New files, or other settings, are another thing to load."""
    onnx_models.identity(killed.root / "bad/1/model.onnx", shape=("N", 9))
    killed.repository = killed.build()
    killed.settle()
    assert killed.states("bad") == {1: "READY"}


def test_the_version_before_takes_over(stage: Stage) -> None:
    """Where the newest version killed the daemon, the one before it serves."""
    stage.install("bad", 2)
    assert say(stage) == "opening"
    stage.install("bad", 1)
    stage.repository = stage.build()
    stage.settle()
    assert stage.states("bad") == {1: "READY", 2: "FAILED"}
