"""Threads that stand back, and all that they start, leave the CPU to others first."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from inferd_runtime.scheduling.courtesy import NICE, stand_back

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities by thread")


def nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_a_thread_hands_its_priority_down() -> None:
    """The thread itself, the threads and the processes that it starts stand back; everybody else stays as he was."""
    before = nice()
    found: list[int] = []

    def work() -> None:
        stand_back()
        stand_back()
        found.append(nice())
        inner = threading.Thread(target=lambda: found.append(nice()))
        inner.start()
        inner.join()
        found.append(int(subprocess.check_output(["nice"])))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [max(before, NICE)] * 3
    assert nice() == before
