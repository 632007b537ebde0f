"""The house's rules about who may import whom."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_import_contracts_hold() -> None:
    """Every import contract of pyproject.toml is kept."""
    script = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(script), "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("package", "heavy"),
    [
        ("inferd", ("onnxruntime", "openvino", "aiohttp", "psutil", "inferd_runtime", "inferd_agent")),
        ("inferd_runtime", ("onnxruntime", "openvino", "asyncio", "psutil")),
        ("inferd_agent.cli", ("onnxruntime", "openvino", "aiohttp", "prometheus_client", "nncf")),
    ],
)
def test_import_is_light(package: str, heavy: tuple[str, ...]) -> None:
    """Importing a package does not drag in engines or servers that the caller may never need."""
    code = f"import sys, {package}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=110)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
