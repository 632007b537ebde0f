"""The composition root: what the configuration says reaches the runtime."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from inferd_agent.config import Config
from inferd_agent.config.schema import Models, Planning, Runtime, State
from inferd_agent.daemon import _options
from inferd_runtime import RuntimeOptions

CONFIG = Config(
    models=Models(path=("/m",), watch=False, load="none"),
    runtime=Runtime(
        cores=3,
        core_floor=2,
        governor="fixed",
        headroom=1.5,
        max_temperature_c=80,
        battery_share=0.7,
        inline="off",
        engine="openvino",
        max_jobs=7,
        max_queue_bytes=9,
    ),
    planning=Planning(mode="off", budget_s=5, objective="latency"),
    state=State(dir="/s", cache_dir="/c"),
)


def test_every_setting_of_the_runtime_reaches_it() -> None:
    """No key of [models], [runtime] and [planning] is without effect: each is no default here, and arrives."""
    options = _options(CONFIG)
    assert options == RuntimeOptions(
        models=(Path("/m"),), cache_dir=Path("/c"), watch=False, load="none", max_jobs=7, max_queue_bytes=9, cores=3,
        core_floor=2, governor="fixed", inline="off", engine="openvino",
        headroom=1.5, max_temperature_c=80, battery_share=0.7,
        planning="off", budget_s=5, objective="latency",
    )  # fmt: skip
    default = asdict(RuntimeOptions(models=(), cache_dir=Path()))
    assert [name for name, value in asdict(options).items() if value == default[name]] == []
    told = {*Runtime.__struct_fields__, *Models.__struct_fields__} - {"path"}
    assert told <= set(default)
