"""Load samples made up for tests of the governor."""

from __future__ import annotations

from inferd_runtime.probe.load import LoadSample

WINDOW_S = 0.25


def load(others: float, own: float = 0.0, callers: float = 0.0, cores: int = 8) -> LoadSample:
    """A window in which others, we and our callers kept so many of `cores` busy; nothing else is known."""
    return LoadSample(
        window_s=WINDOW_S,
        host_busy_cores=others + own + callers,
        own_busy_cores=own,
        callers_busy_cores=callers,
        core_count=cores,
        physical_count=cores,
        pressure=None,
        throttled=None,
        temperature_c=None,
        hot_c=None,
        on_battery=None,
        memory_available_bytes=0,
    )
