"""The ServingRuntime: valid by the schema, and a configuration that the daemon takes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from inferd_agent.cli.serve import command
from inferd_agent.config import load

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def manifest() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "packaging/kubernetes/servingruntime.yaml").read_text())
    return found


def validate(manifest: dict[str, Any]) -> None:
    schema = json.loads(Path(__file__).with_name("servingruntime.schema.json").read_text())
    jsonschema.validate(manifest, schema, cls=jsonschema.Draft202012Validator)


def test_it_is_valid(manifest: dict[str, Any]) -> None:
    """Every field is one that the CRD has, with a value of its type."""
    validate(manifest)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "supportedModelFormat"), []),
        (("spec", "protocolVersions"), ["v3"]),
        (("spec", "containers"), []),
        (("spec", "containers", 0, "readinesProbe"), {}),
        (("spec", "containers", 0, "ports", 0, "containerPort"), "8080"),
        (("kind",), "InferenceService"),
    ],
)
def test_the_schema_sees_mistakes(manifest: dict[str, Any], path: tuple[Any, ...], value: object) -> None:
    """A misspelt field, a wrong type, a value that is none: a schema that takes anything would prove nothing."""
    broken = copy.deepcopy(manifest)
    place: Any = broken
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(broken)


def test_the_daemon_takes_its_arguments_and_environment(manifest: dict[str, Any]) -> None:
    """Arguments parse, settings are accepted, and the probes call the port that is listened on."""
    (container,) = manifest["spec"]["containers"]
    verb, *args = container["args"]
    assert verb == "serve"
    given = command.make_context("serve", list(args)).params
    env = {each["name"]: each["value"] for each in container["env"]}
    loaded = load(env=env, flags={"models.path": given["models"], "server.listen": given["listen"]}, uid=470)
    (tcp,) = (listener for listener in loaded.listeners if listener.kind == "tcp")
    ports = {container[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe")}
    assert ports == {tcp.port} == {port["containerPort"] for port in container["ports"]}
    assert manifest["spec"]["annotations"]["prometheus.kserve.io/port"] == str(tcp.port)
    assert loaded.config.metrics.open
    assert {each["name"] for each in container["volumeMounts"]} == {
        each["name"] for each in manifest["spec"]["volumes"]
    }


def test_it_has_no_more_rights_than_it_needs(manifest: dict[str, Any]) -> None:
    """The user of the image, no capability, nothing written but its volumes."""
    context = manifest["spec"]["containers"][0]["securityContext"]
    containerfile = (ROOT / "packaging/container/Containerfile").read_text()
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}" in containerfile
    assert context["readOnlyRootFilesystem"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert not context["allowPrivilegeEscalation"]
