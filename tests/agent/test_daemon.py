"""The composition root: what the configuration says reaches the runtime."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from inferd_agent.config import Config
from inferd_agent.config.schema import Models, Runtime, State
from inferd_agent.daemon import _options
from inferd_runtime import RuntimeOptions

CONFIG = Config(
    models=Models(path=("/m",), watch=False, load="none"),
    runtime=Runtime(
        cores=3,
        core_floor=2,
        governor="fixed",
        inline="off",
        engine="openvino",
        max_jobs=7,
        max_queue_bytes=9,
        headroom=1.5,
        max_temperature_c=80,
        battery_share=0.7,
    ),
    state=State(dir="/s", cache_dir="/c"),
)


def test_every_setting_of_the_runtime_reaches_it() -> None:
    """No key of [models] and [runtime] is without effect: each differs from its default here, and arrives."""
    options = _options(CONFIG)
    assert options == RuntimeOptions(
        models=(Path("/m"),), cache_dir=Path("/c"), watch=False, load="none", max_jobs=7, max_queue_bytes=9, cores=3,
        core_floor=2, governor="fixed", inline="off", engine="openvino",
        headroom=1.5, max_temperature_c=80, battery_share=0.7,
    )  # fmt: skip
    default = asdict(RuntimeOptions(models=(), cache_dir=Path()))
    assert [name for name, value in asdict(options).items() if value == default[name]] == []
    told = {*Runtime.__struct_fields__, *Models.__struct_fields__} - {"path"}
    assert told <= set(default)
