"""The command as a user calls it, in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from inferd_agent.cli import main


class Done(NamedTuple):
    """What a command left behind."""

    exit_code: object
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def inferd(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `inferd ARGS` through its entry point."""

    def run(*args: object) -> Done:
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        return Done(ended.value.code, *capsys.readouterr())

    return run
