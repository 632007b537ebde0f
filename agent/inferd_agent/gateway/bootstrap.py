"""Envoy's whole configuration: the bootstrap that follows files, those files, or all in one piece with no files at all.

Pure. Envoy watches `clusters.json`, `endpoints.json` and `certificate.json` and takes what is renamed into their place.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from inferd_agent.gateway import front, upstream
from inferd_agent.gateway.settings import Settings
from inferd_agent.gateway.upstream import Member

Json = dict[str, Any]

CLUSTERS, ENDPOINTS, CERTIFICATE, BOOTSTRAP, ADMIN = (
    "clusters.json", "endpoints.json", "certificate.json", "bootstrap.json", "admin.sock",
)  # fmt: skip
SECRET = "front"  # noqa: S105  a name
_TYPES = "type.googleapis.com/envoy"


def following(settings: Settings, folder: Path) -> Json:
    """The bootstrap of an Envoy that follows the files in `folder`."""
    secret = {"name": SECRET, "sds_config": _source(folder / CERTIFICATE)}
    return {
        **_frame(settings, {"tls_certificate_sds_secret_configs": [secret]}),
        "admin": {"address": {"pipe": {"path": str(folder / ADMIN), "mode": 0o600}}},
        "dynamic_resources": {"cds_config": _source(folder / CLUSTERS)},
    }


def clusters(members: Iterable[Member], folder: Path) -> Json:
    """What `clusters.json` holds: changes only with whom to trust."""
    found = upstream.cluster(members, _source(folder / ENDPOINTS))
    return {"resources": [{"@type": f"{_TYPES}.config.cluster.v3.Cluster", **found}]}


def endpoints(members: Iterable[Member]) -> Json:
    """What `endpoints.json` holds: the devices, their models and whether they drain."""
    kind = f"{_TYPES}.config.endpoint.v3.ClusterLoadAssignment"
    return {"resources": [{"@type": kind, **upstream.assignment(members)}]}


def certificate(settings: Settings) -> Json:
    """What `certificate.json` holds; Envoy watches the files that it names, too."""
    kind = f"{_TYPES}.extensions.transport_sockets.tls.v3.Secret"
    return {"resources": [{"@type": kind, "name": SECRET, "tls_certificate": _pair(settings)}]}


def whole(settings: Settings, members: Iterable[Member]) -> Json:
    """Everything in one piece, for an Envoy of somebody's own and the devices as they are now."""
    found = _frame(settings, {"tls_certificates": [_pair(settings)]})
    found["static_resources"]["clusters"] = [upstream.cluster(members, None)]
    return found


def _frame(settings: Settings, certificates: Json) -> Json:
    listener = front.listener(settings, certificates if settings.listen.tls else None)
    return {
        "node": {"id": "inferd-gateway", "cluster": "inferd"},
        "overload_manager": front.overload_manager(),
        "static_resources": {"listeners": [listener]},
    }


def _pair(settings: Settings) -> Json:
    return {"certificate_chain": {"filename": settings.cert}, "private_key": {"filename": settings.key}}


def _source(path: Path) -> Json:
    """A file that Envoy follows; it sees renames in the folder."""
    watched = {"path": str(path), "watched_directory": {"path": str(path.parent)}}
    return {"path_config_source": watched, "resource_api_version": "V3"}
