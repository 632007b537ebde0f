"""Standing back: threads that work for us let everybody else go first where a CPU is wanted by both.

Permits alone are too coarse and too late: a neighbour that wakes up would wait for its turn behind our batches until
the governor has seen it, and would look smaller than it is. Threads hand their priority down to those they start, the
engines' pools too, so that whoever opens sessions stands back first.
"""

from __future__ import annotations

import logging
import os
import sys
import threading

# A tenth of the weight of an ordinary thread: enough to go first, and where everybody is busy we still get something.
NICE = 10

_log = logging.getLogger(__name__)


def stand_back() -> None:
    """Lower the priority of this thread, and of those that it starts from now on; there is no way back.

    Only Linux has priorities by thread; elsewhere this does nothing.
    """
    if sys.platform != "linux":
        return
    thread = threading.get_native_id()
    try:
        if os.getpriority(os.PRIO_PROCESS, thread) < NICE:
            os.setpriority(os.PRIO_PROCESS, thread, NICE)
    except OSError as error:
        _log.warning("batches run at the usual priority: %s", error.strerror)
