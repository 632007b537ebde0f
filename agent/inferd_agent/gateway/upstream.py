"""The fleet as Envoy sees it: one cluster, and an endpoint for each device. Pure: devices in, configuration out.

Invariants: a device is spoken to only over TLS 1.3 with exactly what it is trusted by; an endpoint whose trust the
cluster does not know yet meets a context that accepts nobody. A request for a model goes to devices that serve it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from inferd.fleet.record import Device

Json = dict[str, Any]

CLUSTER = "devices"
MODELS = "models"
HEALTH = "/v2/health/ready"
CONNECT_S, HEALTH_S = 2, 1
MAX_MODELS = 1024
MAX_REQUESTS, MAX_WAITING, MAX_CONNECTIONS_EACH = 4096, 1024, 512
_TYPES = "type.googleapis.com/"
_NOBODY = "0" * 64


@dataclass(frozen=True, slots=True)
class Member:
    """A trusted device. `anchors`: the certificates (PEM) that end its chain; `models` None: not known."""

    device: Device
    anchors: str
    models: frozenset[str] | None = None

    @property
    def trust(self) -> str:
        """A name for the anchors: devices of one CA share it."""
        return hashlib.sha256(self.anchors.encode()).hexdigest()[:16]


def cluster(members: Iterable[Member], discovery: Json | None) -> Json:
    """The cluster; its endpoints by `discovery` (a config source), or written into it."""
    found = list(members)
    own = {"type": "STATIC", "load_assignment": assignment(found)}
    followed = {"type": "EDS", "eds_cluster_config": {"eds_config": discovery}}
    return {
        "name": CLUSTER,
        **(own if discovery is None else followed),
        "connect_timeout": f"{CONNECT_S}s",
        "lb_policy": "LEAST_REQUEST",
        # Only when nobody is well, all are tried: better than refusing everybody because health checks are wrong.
        "common_lb_config": {"healthy_panic_threshold": {"value": 1}},
        "lb_subset_config": {
            # A model that nobody is known to serve: any device can say so better than Envoy.
            "fallback_policy": "ANY_ENDPOINT",
            "subset_selectors": [{"keys": [MODELS], "fallback_policy": "ANY_ENDPOINT"}],
            "list_as_any": True,
        },
        "health_checks": [_health_check()],
        "outlier_detection": _outlier_detection(),
        "circuit_breakers": _circuit_breakers(),
        "transport_socket_matches": [_match(trust, anchors) for trust, anchors in sorted(_anchors(found).items())],
        "transport_socket": _tls({"verify_certificate_hash": [_NOBODY]}),
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _http()},
    }


def assignment(members: Iterable[Member]) -> Json:
    """The endpoints, by name so that equal fleets are equal bytes."""
    ordered = sorted(members, key=lambda member: (member.device.name, member.device.instance_id))
    return {"cluster_name": CLUSTER, "endpoints": [{"lb_endpoints": [_endpoint(member) for member in ordered]}]}


def _endpoint(member: Member) -> Json:
    device = member.device
    metadata: Json = {"envoy.transport_socket_match": {"trust": member.trust}}
    if member.models is not None:
        # As names stand in paths; a client that writes them otherwise is served by any device.
        names = sorted(quote(name, safe="") for name in member.models)[:MAX_MODELS]
        metadata["envoy.lb"] = {MODELS: names}
    return {
        "endpoint": {
            "address": {"socket_address": {"address": device.addresses[0], "port_value": device.port}},
            "hostname": device.name,
        },
        "health_status": "DRAINING" if device.state == "draining" else "UNKNOWN",
        "metadata": {"filter_metadata": metadata},
    }


def _anchors(members: Iterable[Member]) -> dict[str, str]:
    return {member.trust: member.anchors for member in members}


def _match(trust: str, anchors: str) -> Json:
    validation = {"trusted_ca": {"inline_string": anchors}}
    return {"name": trust, "match": {"trust": trust}, "transport_socket": _tls(validation)}


def _tls(validation: Json) -> Json:
    """Names are not compared: devices change their addresses, and the anchors say who it is."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPES}envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                "alpn_protocols": ["http/1.1"],
                "validation_context": validation,
            },
        },
    }


def _health_check() -> Json:
    """Any answer but 200 counts at once, silence twice; a device that says it is ready again is taken at its word."""
    return {
        "timeout": f"{HEALTH_S}s",
        "interval": f"{HEALTH_S}s",
        "no_traffic_interval": f"{HEALTH_S}s",
        "interval_jitter": "0.1s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "http_health_check": {"path": HEALTH, "host": "inferd-gateway"},
    }


def _outlier_detection() -> Json:
    """Only what the network does counts: a caller could provoke 500 and 504 with a bad input or a short deadline, and
    so have devices ejected that others need."""
    never = (
        "enforcing_consecutive_5xx", "enforcing_consecutive_gateway_failure", "enforcing_success_rate",
        "enforcing_local_origin_success_rate", "enforcing_failure_percentage",
        "enforcing_failure_percentage_local_origin",
    )  # fmt: skip
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 3,
        "enforcing_consecutive_local_origin_failure": 100,
        **dict.fromkeys(never, 0),
        "interval": "1s",
        "base_ejection_time": "2s",
        "max_ejection_time": "30s",
        "max_ejection_percent": 80,
    }


def _circuit_breakers() -> Json:
    """Half of what is under way may be repeats: so many devices may vanish at once and nothing is lost, while in a
    fleet that is overloaded repeats die out."""
    return {
        "thresholds": [
            {
                "max_connections": MAX_REQUESTS,
                "max_pending_requests": MAX_WAITING,
                "max_requests": MAX_REQUESTS,
                "retry_budget": {"budget_percent": {"value": 50}, "min_retry_concurrency": 32},
            }
        ],
        "per_host_thresholds": [{"max_connections": MAX_CONNECTIONS_EACH}],
    }


def _http() -> Json:
    """HTTP/1.1; idle connections are closed before a device does it, which waits 75 s by default."""
    return {
        "@type": f"{_TYPES}envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http_protocol_options": {}},
        "common_http_protocol_options": {"idle_timeout": "60s"},
    }
