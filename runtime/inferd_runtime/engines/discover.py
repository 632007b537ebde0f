"""Which engines are installed. Looking does not import: a library costs its memory only once a model needs it."""

from __future__ import annotations

import importlib.util

from inferd_runtime.engines import Engine
from inferd_runtime.engines.ort import OrtEngine
from inferd_runtime.engines.ov import OvEngine


def open_engines() -> tuple[dict[str, Engine], dict[str, str]]:
    """The engines installed here by name, and for each missing one the reason."""
    found: dict[str, Engine] = {}
    missing: dict[str, str] = {}
    candidates: tuple[Engine, ...] = (OrtEngine(), OvEngine())
    for engine in candidates:
        if _is_installed(engine.name):
            found[engine.name] = engine
        else:
            missing[engine.name] = f"{engine.name} is not installed (pip install 'inferd[cpu]')"
    return found, missing


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
