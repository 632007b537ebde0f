"""What the gateway offers its callers: one listener, the calls that any device can answer, and how they are repeated.

Everything that is about one device (loading, measuring, counters) is refused: which device it met would be chance. The
callers' tokens pass through, so devices decide who may do what; the gateway holds no rights of its own.
"""

from __future__ import annotations

from typing import Any

from inferd_agent.config import Listener
from inferd_agent.gateway.settings import Settings
from inferd_agent.gateway.upstream import CLUSTER, MODELS

Json = dict[str, Any]

# Requests up to this size can be repeated on another device; larger ones pass through once.
REPEATED_BYTES = 16 << 20
MAX_CONNECTIONS, MAX_HEAP_BYTES = 2048, 2 << 30
RETRIES = 3
_TYPES = "type.googleapis.com/envoy.extensions"
_MODEL = "^/v2/models/[^/]+(/versions/[0-9]+)?"
_LIVE = '{"live":true}'
_ELSEWHERE = "the gateway passes inference, metadata and readiness on; for everything else call the device itself"


def listener(settings: Settings, certificates: Json | None) -> Json:
    """The listener; `certificates` says in Envoy's words where its certificate comes from, None without TLS."""
    chain: Json = {"filters": [_connection_manager(settings)]}
    if certificates is not None:
        chain["transport_socket"] = _tls(certificates)
    return {
        "name": "front",
        "address": _address(settings.listen),
        # How much of a request is kept for repeating it.
        "per_connection_buffer_limit_bytes": REPEATED_BYTES,
        "filter_chains": [chain],
    }


def overload_manager() -> Json:
    """Bounds on connections and memory."""
    monitors, heap = f"{_TYPES}.resource_monitors", "envoy.resource_monitors.fixed_heap"
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": f"{monitors}.downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": MAX_CONNECTIONS,
                },
            },
            {
                "name": heap,
                "typed_config": {
                    "@type": f"{monitors}.fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": MAX_HEAP_BYTES,
                },
            },
        ],
        "actions": [
            {"name": f"envoy.overload_actions.{name}", "triggers": [{"name": heap, "threshold": {"value": share}}]}
            for name, share in (("shrink_heap", 0.9), ("stop_accepting_requests", 0.95))
        ],
    }


def _address(listen: Listener) -> Json:
    if listen.kind == "unix":
        return {"pipe": {"path": listen.path, "mode": 0o600}}
    return {"socket_address": {"address": listen.host, "port_value": listen.port}}


def _connection_manager(settings: Settings) -> Json:
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "front",
            "use_remote_address": True,
            "normalize_path": True,
            "path_with_escaped_slashes_action": "REJECT_REQUEST",
            "server_header_transformation": "PASS_THROUGH",
            "preserve_external_request_id": True,
            "common_http_protocol_options": {"idle_timeout": "75s"},
            "request_headers_timeout": "10s",
            "stream_idle_timeout": f"{settings.timeout_s + 5:g}s",
            "http_filters": [_name_the_model(), _router()],
            "local_reply_config": _own_answers(),
            "route_config": {
                "name": "front",
                "validate_clusters": False,  # the cluster comes from a file, a moment later
                "virtual_hosts": [{"name": "v2", "domains": ["*"], "routes": _routes(settings)}],
            },
        },
    }


def _name_the_model() -> Json:
    """The model's name from the path becomes what the balancer looks for among the endpoints' models."""
    return {
        "name": "envoy.filters.http.header_to_metadata",
        "typed_config": {
            "@type": f"{_TYPES}.filters.http.header_to_metadata.v3.Config",
            "request_rules": [
                {
                    "header": ":path",
                    "on_header_present": {
                        "metadata_namespace": "envoy.lb",
                        "key": MODELS,
                        "type": "STRING",
                        "regex_value_rewrite": {
                            "pattern": {"regex": "^/v2/models/([^/?#]+).*$"},
                            "substitution": "\\1",
                        },
                    },
                }
            ],
        },
    }


def _router() -> Json:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router", "suppress_envoy_headers": True},
    }


def _own_answers() -> Json:
    """What Envoy refuses by itself, in the protocol's words."""
    at_least_400 = {"comparison": {"op": "GE", "value": {"default_value": 400, "runtime_key": "unused"}}}
    return {
        "mappers": [
            {
                "filter": {"status_code_filter": at_least_400},
                "body_format_override": {
                    "json_format": {"error": "gateway: %LOCAL_REPLY_BODY%"},
                    "content_type": "application/json",
                },
            }
        ]
    }


def _routes(settings: Settings) -> list[Json]:
    """Each repeatable: inference and reading have no lasting effect."""
    onward = {
        "cluster": CLUSTER,
        "timeout": f"{settings.timeout_s:g}s",
        "retry_policy": _retry_policy(settings.patience_s),
        "hedge_policy": {"hedge_on_per_try_timeout": True},
    }
    reads = f"{_MODEL}(/ready|/config)?$"
    return [
        {"match": _method("GET", {"path": "/v2/health/live"}), "direct_response": _direct(200, _LIVE)},
        {"match": _method("POST", {"safe_regex": {"regex": f"{_MODEL}/infer$"}}), "route": onward},
        *(
            {"match": _method("GET", where), "route": onward}
            for where in ({"path": "/v2/health/ready"}, {"path": "/v2"}, {"safe_regex": {"regex": reads}})
        ),
        {"match": {"prefix": "/"}, "direct_response": _direct(404, _ELSEWHERE)},
    ]


def _retry_policy(patience_s: float) -> Json:
    """What a device did not answer, or refused because it was full, not ready or had just dropped the model, another
    may answer. An engine's fault (500) is passed on, or one bad request would fail on several devices.

    A device that hangs or is cut off breaks no connection: after `patience_s` a second one is asked, while the first
    may still answer, for it may just be slow.
    """
    return {
        "per_try_timeout": f"{patience_s:g}s",
        "retry_on": "connect-failure,refused-stream,reset,retriable-status-codes",
        "retriable_status_codes": [404, 429, 503],
        "num_retries": RETRIES,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
        # A device that refuses connections has nothing under way, so the balancer likes it best: it must be asked again
        # and again for another one.
        "host_selection_retry_max_attempts": 64,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"{_TYPES}.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ],
    }


def _method(method: str, where: Json) -> Json:
    return {**where, "headers": [{"name": ":method", "string_match": {"exact": method}}]}


def _direct(status: int, body: str) -> Json:
    return {"status": status, "body": {"inline_string": body}}


def _tls(certificates: Json) -> Json:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
                "alpn_protocols": ["http/1.1"],
                **certificates,
            },
        },
    }
