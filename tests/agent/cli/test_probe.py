"""`inferd probe`: this machine, and a recorded one."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.agent.cli.conftest import Run
from tests.fixtures.machines.replay import load_tree, materialise


def test_this_machine(inferd: Run) -> None:
    """The same facts for machines and for people: CPU, cores, memory, engines with their devices."""
    done = inferd("probe", "--json")
    found = json.loads(done.out)
    assert (done.exit_code, done.err) == (0, "")
    assert found["cpu"]["model"]
    assert 0 < found["usable_cores"] <= len(os.sched_getaffinity(0))
    assert {engine["name"] for engine in found["engines"]} == {"onnxruntime", "openvino"}
    assert all("cpu" in engine["devices"] for engine in found["engines"])
    lines = inferd("probe").out.splitlines()
    told = dict(line.split(maxsplit=1) for line in lines if len(line.split(maxsplit=1)) == 2)
    assert found["cpu"]["model"] in told["cpu"]
    assert found["core_reason"] in told["cores"]
    assert told["digest"] == found["digest"]


def test_a_recorded_machine(inferd: Run, tmp_path: Path) -> None:
    """--root reads another machine's files, and they say what its CPU is."""
    materialise(load_tree("intel-n100"), tmp_path)
    found = json.loads(inferd("probe", "--root", tmp_path, "--json").out)
    assert "N100" in found["cpu"]["model"]
    assert "avx_vnni" in " ".join(found["cpu"]["flags"]).lower().replace("-", "_")
