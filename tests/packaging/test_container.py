"""The Containerfile as it is written; `make test-packages` builds and runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

_FILE = Path(__file__).resolve().parents[2] / "packaging/container/Containerfile"


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, str]]:
    """Its instructions with their words."""
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", _FILE.read_text(), flags=re.MULTILINE))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in text.splitlines() if line.strip()]


def _all(steps: list[tuple[str, str]], name: str) -> list[str]:
    return [words for step, words in steps if step == name]


def test_it_runs_as_a_number_that_is_not_root(steps: list[tuple[str, str]]) -> None:
    """The last word on the user is a number, as Kubernetes wants, and nothing is done as root after it."""
    (user,) = _all(steps, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert f"--uid {user.split(':')[0]} " in " ".join(_all(steps, "RUN"))
    after = steps[steps.index(("USER", user)) :]
    assert "RUN" not in [step for step, _ in after]


def test_what_is_written_is_a_volume(steps: list[tuple[str, str]]) -> None:
    """With a root that is read-only, state, cache and sockets have their place, and the daemon is told of it."""
    (volumes,) = _all(steps, "VOLUME")
    folders = dict(word.split("=", 1) for word in " ".join(_all(steps, "ENV")).split())
    for name in ("STATE_DIRECTORY", "CACHE_DIRECTORY", "RUNTIME_DIRECTORY"):
        assert folders[name] in json.loads(volumes)


def test_its_health_is_asked_for(steps: list[tuple[str, str]]) -> None:
    """The check asks the daemon itself, with a deadline below its own timeout."""
    (check,) = _all(steps, "HEALTHCHECK")
    assert "--timeout=10s" in check
    command = json.loads(check.partition("CMD ")[2])
    compile(command[-1], "healthcheck", "exec")
    assert "is_live(timeout_s=5)" in command[-1]


def test_nothing_is_fetched_but_from_the_distribution(steps: list[tuple[str, str]]) -> None:
    """No address, no ADD, no secret among the arguments."""
    text = _FILE.read_text()
    assert "://" not in text
    assert not _all(steps, "ADD")
    assert [words.partition("=")[0] for words in _all(steps, "ARG")] == ["BASE"]
