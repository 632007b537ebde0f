"""Both engines' libraries report to their makers by default. A local daemon reports to nobody: to be called before
either is imported. Nothing is then written to the home or the temporary folder, and nothing is sent.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType


def silence_telemetry() -> None:
    """Turn off the telemetry of ONNX Runtime (wheels since 1.29) and of OpenVINO's Python package, for this process."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    # Where its telemetry package cannot be imported, OpenVINO takes a stub of its own.
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]  # None: "not to be imported"
    modules.setdefault("openvino_telemetry", None)
