"""The fleet in Envoy's words: who is called, for which models, and by what each is believed."""

from __future__ import annotations

import json
from typing import Any

from inferd_agent.gateway.upstream import assignment, cluster
from tests.agent.gateway.devices import member


def endpoints(*members: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = assignment(members)["endpoints"][0]["lb_endpoints"]
    return found


def validation(socket: dict[str, Any]) -> dict[str, Any]:
    context = socket["typed_config"]["common_tls_context"]
    assert context["tls_params"]["tls_minimum_protocol_version"] == "TLSv1_3"
    found: dict[str, Any] = context["validation_context"]
    return found


def test_each_device_is_believed_by_its_own_anchors() -> None:
    """A pinned device by its pin alone, the devices of one CA by one entry."""
    members = [member("pinned", anchors="PIN"), member("two", anchors="CA"), member("three", anchors="CA")]
    matches = {
        each["match"]["trust"]: each["transport_socket"] for each in cluster(members, {})["transport_socket_matches"]
    }
    assert sorted(validation(each)["trusted_ca"]["inline_string"] for each in matches.values()) == ["CA", "PIN"]
    for found, expected in zip(endpoints(*members), ("PIN", "CA", "CA"), strict=True):
        trust = found["metadata"]["filter_metadata"]["envoy.transport_socket_match"]["trust"]
        assert validation(matches[trust])["trusted_ca"]["inline_string"] == expected


def test_an_endpoint_of_unknown_trust_accepts_nobody() -> None:
    """Files change one after the other; in between, nothing may be sent to whom nobody has verified."""
    assert validation(cluster([], {})["transport_socket"]) == {"verify_certificate_hash": ["0" * 64]}


def test_models_stand_as_they_do_in_paths() -> None:
    """Percent-encoded; a device whose models are not known is nobody's choice for a model."""
    known, unknown = endpoints(member("a", models=("digits", "a b/c")), member("b", models=None))
    assert known["metadata"]["filter_metadata"]["envoy.lb"] == {"models": ["a%20b%2Fc", "digits"]}
    assert "envoy.lb" not in unknown["metadata"]["filter_metadata"]


def test_draining_devices_get_nothing_new() -> None:
    """Envoy is told at once, without waiting for a health check."""
    found = endpoints(member("a"), member("b", state="draining"), member("c", state="loading"))
    assert [each["health_status"] for each in found] == ["UNKNOWN", "DRAINING", "UNKNOWN"]


def test_equal_fleets_are_equal_bytes() -> None:
    """The order of discovery does not matter, or files would change for nothing."""
    one, two = member("a", models=("x", "y")), member("b")
    assert json.dumps(assignment([one, two])) == json.dumps(assignment([two, one]))
    assert json.dumps(cluster([one, two], {})) == json.dumps(cluster([two, one], {}))


def test_the_cluster_changes_with_trust_alone() -> None:
    """Load, models and states come and go without a new cluster, which would mean new connections."""
    before = cluster([member("a", anchors="CA")], {})
    assert (
        cluster([member("a", anchors="CA", models=("new",), state="draining"), member("b", anchors="CA")], {}) == before
    )
    assert cluster([member("a", anchors="CA"), member("b", anchors="PIN")], {}) != before


def test_callers_cannot_have_devices_ejected() -> None:
    """Only what the network does counts: answers, whatever their status, never do."""
    found = cluster([], {})["outlier_detection"]
    enforced = {name for name, share in found.items() if name.startswith("enforcing") and share}
    assert enforced == {"enforcing_consecutive_local_origin_failure"}
