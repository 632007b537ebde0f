"""The generated messages, and their numbers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2, service_pb2

from inferd_agent.grpc import messages

ROOT = Path(__file__).parents[3]


def test_the_messages_are_those_of_the_proto_files() -> None:
    """`make stubs` would change nothing."""
    spec = importlib.util.spec_from_file_location("stubs", ROOT / "packaging" / "stubs.py")
    assert spec is not None
    assert spec.loader is not None
    stubs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stubs)
    assert stubs.render() == stubs.OUTPUT.read_text()


def fields(descriptor: Any) -> dict[str, tuple[int, int, bool]]:
    found = {each.name: (each.number, each.type, each.is_repeated) for each in descriptor.fields}
    for nested in descriptor.nested_types:
        found |= {f"{nested.name}.{name}": fact for name, fact in fields(nested).items()}
    for enum in descriptor.enum_types:
        found |= {f"{enum.name}.{value.name}": (value.number, 0, False) for value in enum.values}
    return found


OURS = [name for name, kind in vars(messages).items() if hasattr(kind, "DESCRIPTOR") and "Health" not in name]


@pytest.mark.parametrize("name", OURS)
def test_names_and_numbers_are_the_protocols(name: str) -> None:
    """Every field that we have is the same field to tritonclient."""
    theirs = {**service_pb2.DESCRIPTOR.message_types_by_name, **model_config_pb2.DESCRIPTOR.message_types_by_name}
    assert fields(getattr(messages, name).DESCRIPTOR).items() <= fields(theirs[name]).items()
