"""Plans over REST: what was measured, the order to measure, and where a request's time went."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests import onnx_models
from tests.agent.plans import CHOSEN, EVIDENCE, MEASURED, Planner
from tests.agent.rest.serving import ROW, Reply, Serving, infer_bytes, outputs, read_reply, request

FLOAT = onnx.TensorProto.FLOAT
PLAN = "/inferd/v1/models/mlp/plan"


def tile(path: Path) -> Path:
    """x FP32 [N, 1] -> y FP32 [N, 1024], each row's number over and over."""
    node = onnx.helper.make_node("Tile", ["x", "times"], ["y"])
    x, y = onnx_models.value("x", FLOAT, ["N", 1]), onnx_models.value("y", FLOAT, ["N", 1024])
    return onnx_models.save(path, [node], [x], [y], {"times": np.array([1, 1024], np.int64)})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A front end with mlp, wide, tiled (one number a row in, many out) and two versions of versioned."""
    folder = tmp_path_factory.mktemp("r")
    models = folder / "models"
    onnx_models.mlp(models / "mlp" / "1" / "model.onnx")
    onnx_models.dynamic_width(models / "wide.onnx")
    tile(models / "tiled.onnx")
    for version in (1, 2):
        onnx_models.mlp(models / "versioned" / str(version) / "model.onnx")
    for path in (models / "mlp" / "model.toml", models / "wide.toml"):
        path.write_text('engine = "onnxruntime"\n')
    (models / "versioned" / "model.toml").write_text('engine = "onnxruntime"\nversions = "all"\n')
    serving = Serving(folder, models)
    serving.start()
    yield serving
    serving.stop()


@pytest.fixture
def planner(served: Serving, monkeypatch: pytest.MonkeyPatch) -> Planner:
    """Answers in place of the runtime's planning."""
    return Planner(served.runtime, monkeypatch, MEASURED)


def test_a_measured_plan_is_told_with_its_evidence(served: Serving, planner: Planner) -> None:
    """The plan in service, every trial with the name that the choice uses, and nothing left out."""
    found = served.get(PLAN).json()
    assert (found["model"], found["version"], found["state"]) == ("mlp", 1, "measured")
    assert found["plan"]["engine"] == "onnxruntime"
    evidence = found["evidence"]
    assert (evidence["chosen"], evidence["reason"]) == (str(CHOSEN), EVIDENCE.reason)
    assert [trial["name"] for trial in evidence["trials"]] == [str(trial.candidate) for trial in EVIDENCE.trials]
    assert evidence["trials"][2]["curve"] == [[1, 8200], [2, 12300]]
    assert planner.asked == [("mlp", 1)]


def test_every_version_has_its_own_plan(served: Serving, planner: Planner) -> None:
    """A version in the path is the one that is told of; unknown models and versions are 404."""
    assert served.get("/inferd/v1/models/versioned/versions/1/plan").json()["version"] == 1
    assert served.get("/inferd/v1/models/versioned/plan").json()["version"] == 2
    assert planner.asked == [("versioned", 1), ("versioned", 2)]
    assert served.get("/inferd/v1/models/nobody/plan").status == 404
    assert served.get("/inferd/v1/models/mlp/versions/7/plan").status == 404


def test_an_order_to_measure_is_taken_at_once(served: Serving, planner: Planner) -> None:
    """202 with the state as it is then; the body is optional, and a slip in it is told."""
    reply = served.post(PLAN, {"budget_s": 60, "thorough": True})
    assert reply.status == 202
    assert (reply.json()["state"], reply.json()["done"], reply.json()["total"]) == ("measuring", 3, 9)
    assert served.post(PLAN).status == 202
    assert planner.orders == [{"budget_s": 60.0, "thorough": True}, {"budget_s": None, "thorough": False}]
    for slip in ({"budget": 60}, {"budget_s": 0}, {"thorough": "yes"}):
        assert "measure: " in served.post(PLAN, slip).error
    assert served.post("/inferd/v1/models/nobody/plan").status == 404
    assert len(planner.orders) == 2


def test_who_may_only_read_may_not_order(served: Serving, planner: Planner) -> None:
    """`read` shows plans, `admin` orders and follows, `infer` does neither; a third method is told of both."""
    for scope, shown, ordered in (("read", 200, 403), ("infer", 403, 403), ("admin", 200, 202)):
        token, _ = served.tokens.create(f"plan-{scope}", (scope,))
        served.identity.follow()
        headers = {"Authorization": f"Bearer {token}"}
        assert served.get(PLAN, headers, tcp=True).status == shown
        assert served.post(PLAN, b"", headers, tcp=True).status == ordered
    reply = served.ask(request("DELETE", PLAN))
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, POST, OPTIONS")
    assert "use GET or POST" in reply.error
    reply = served.post("/inferd/v1/models/mlp/versions/1/plan")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


def figures(reply: Reply) -> dict[str, float]:
    """The header's figures by name."""
    pairs = (part.split("=") for part in reply.headers["inferd-timing"].split(";"))
    return {name: float(value) for name, value in pairs}


@pytest.mark.parametrize("more", [{}, {"Accept-Encoding": "gzip"}], ids=["express", "ordinary"])
def test_a_request_may_ask_where_its_time_went(served: Serving, more: dict[str, str]) -> None:
    """Microseconds in the queue, gathering, running and splitting, and the rows of the batch; on both ways."""
    with served.connected() as connection:
        for rows in (1, 3):
            connection.sendall(infer_bytes("mlp", ROW.repeat(rows, 0), {"inferd-timing": "1", **more}))
            found = figures(read_reply(connection))
            assert list(found) == ["queue", "gather", "run", "split", "rows"]
            assert found.pop("rows") == rows
            assert found["run"] > 0
            assert min(found.values()) >= 0


def test_a_long_json_answer_tells_its_time_too(served: Serving) -> None:
    """An answer that is written off the loop has the header as well, whatever way its request took."""
    json = {"parameters": {"binary_data_output": False}}
    for model, columns, answered in (("wide", 40_000, 40_000), ("tiled", 1, 1024)):
        rows = np.ones((1 if model == "wide" else 64, columns), np.float32)
        asked = infer_bytes(model, rows, {"Inferd-Timing": "1"}, **json)
        with served.connected() as connection:
            for _ in range(2):  # the express way is for connections that are idle and paths that are known
                connection.sendall(asked)
                reply = read_reply(connection)
                assert figures(reply)["rows"] == len(rows)
                assert outputs(reply)["y"].shape == (len(rows), answered)


def test_nobody_is_told_who_did_not_ask(served: Serving) -> None:
    """Without the header, with another value, and for a refusal there are no figures."""
    assert "inferd-timing" not in served.ask(infer_bytes("mlp", ROW)).headers
    assert "inferd-timing" not in served.ask(infer_bytes("mlp", ROW, {"Inferd-Timing": "0"})).headers
    assert "inferd-timing" not in served.ask(infer_bytes("nobody", ROW, {"Inferd-Timing": "1"})).headers
