"""The trace and log settings that Triton's clients read and may set.

They are told as they are. Saying again what is so already is no error; any other wish is refused, with the place where
it is done. Knows neither HTTP nor gRPC.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from inferd_runtime import Unsupported

# Requests are never traced. Numbers are texts here, as Triton has them.
_TRACE: dict[str, tuple[str, ...]] = {
    "trace_level": ("OFF",),
    "trace_rate": ("1000",),
    "trace_count": ("-1",),
    "log_frequency": ("0",),
    "trace_file": ("",),
    "trace_mode": ("triton",),
}
LogSetting = bool | int | str


def trace_settings(wanted: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """What tracing is set to; a wish without values asks for what is so without it. Raises Unsupported."""
    for key, values in wanted.items():
        if key not in _TRACE:
            raise Unsupported(f"there is no trace setting {key[:80]!r}")
        if values and tuple(values) != _TRACE[key]:
            raise Unsupported(f"requests are not traced here: {key} stays {', '.join(_TRACE[key])!r}")
    return dict(_TRACE)


def log_settings(wanted: Mapping[str, LogSetting]) -> dict[str, LogSetting]:
    """What is logged now. Raises Unsupported."""
    level = logging.getLogger().getEffectiveLevel()
    settings: dict[str, LogSetting] = {
        "log_file": "",
        "log_info": level <= logging.INFO,
        "log_warning": level <= logging.WARNING,
        "log_error": level <= logging.ERROR,
        "log_verbose_level": int(level <= logging.DEBUG),
        "log_format": "default",
    }
    for key, value in wanted.items():
        if key not in settings:
            raise Unsupported(f"there is no log setting {key[:80]!r}")
        if value != settings[key]:
            raise Unsupported(
                f"{key} stays {settings[key]!r}: the log is set by log.level in the configuration, live with a reload"
            )
    return settings
