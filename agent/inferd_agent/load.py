"""How busy the daemon is, in the two forms of ORCA's load reports, for balancers that ask with each request.

`application_utilization` is the share of our cores that batches hold; `queue_utilization` the share of the bytes that
may wait. Names and forms are ORCA's. Pure.
"""

from __future__ import annotations

import msgspec

from inferd_runtime import RuntimeFigures


def load_report(figures: RuntimeFigures, form: str) -> str:
    """The report as `text` or `json`, in any case; empty for other forms, which are nobody's yet."""
    busy = round(figures.core_used / max(figures.core_size, 1), 4)
    named = {
        "queue_utilization": round(figures.held_bytes / max(figures.max_held_bytes, 1), 4),
        "queued_jobs": figures.queued_jobs,
        "running_jobs": figures.running_jobs,
    }
    match form.strip().lower():
        case "text":
            fields = [f"named_metrics.{name}={value}" for name, value in named.items()]
            return "TEXT " + ", ".join([f"application_utilization={busy}", *fields])
        case "json":
            report = {"application_utilization": busy, "named_metrics": named}
            return f"JSON {msgspec.json.encode(report).decode()}"
    return ""
