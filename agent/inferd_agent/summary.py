"""What a person sees when the daemon is up: where it listens, how to call it, which models serve and on what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from inferd_agent.config import Loaded
from inferd_agent.sockets import Bound
from inferd_runtime import ModelDescription, State

_EVERYWHERE = ("0.0.0.0", "[::]")  # noqa: S104  what to listen on, which nobody can call


def summary(
    loaded: Loaded, bound: Sequence[Bound], models: Sequence[ModelDescription], ca: Path, *, fingerprint: str = ""
) -> str:
    """The start-up text. `ca` is the local CA's certificate, `fingerprint` what the LAN sees."""
    lines = ["inferd is up", *(f"  listening  {each.url}" for each in bound)]
    lines += [f"  model      {_model(model)}" for model in models]
    if not models:
        lines.append(f"  no models  put one at {loaded.config.models.path[0]}/<name>.onnx; it is served as it lands")
    if fingerprint:
        lines.append(f"  lan        found by `inferd discover`, fingerprint {fingerprint}")
    lines.append(f"  state      {loaded.config.state.dir}")
    if door := next((each for each in bound if each.listener.is_rest), None):
        lines.append(f"  try        {curl(door, ca)}")
    return "\n".join(lines)


def status_line(models: Sequence[ModelDescription]) -> str:
    """`models: 3 ready, 1 failed`."""
    counts = Counter(model.state for model in models)
    return "models: " + (
        ", ".join(f"{counts[state]} {state.value.lower()}" for state in State if counts[state]) or "none"
    )


def curl(bound: Bound, ca: Path) -> str:
    """A line that works as it stands: on a Unix socket the caller is known, elsewhere only health is open."""
    listener = bound.listener
    scheme = "https" if listener.tls else "http"
    if listener.kind == "unix":
        trust = f" --cacert {quote(f'{listener.path}.ca.pem')}" if listener.tls else ""
        return f"curl --unix-socket {quote(listener.path)}{trust} {scheme}://localhost/v2"
    host, _, port = bound.url.removeprefix("tcp:").partition("?")[0].rpartition(":")
    host = "localhost" if host in _EVERYWHERE else host
    trust = f" --cacert {quote(str(ca))}" if listener.tls else ""
    return f"curl{trust} {scheme}://{host}:{port}/v2/health/ready"


def _model(model: ModelDescription) -> str:
    """`digits 1: ready on openvino cpu, int8 qdq per-channel`, or why not."""
    name = f"{model.name} {model.version}: {model.state.value.lower()}"
    if model.plan is None:
        return f"{name}{f': {model.reason}' if model.reason else ''}"
    found = model.quantisation
    words = " ".join(word for word in (found.kind, found.layout, found.granularity) if word) if found else ""
    return f"{name} on {model.plan.engine} {model.plan.device}{f', {words}' if words else ''}"
