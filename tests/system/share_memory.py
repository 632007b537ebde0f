"""Runs in the container as root, on inferd's own Python: as many regions of shared memory as one caller gets, beside
many connections, and an inference through them.

Takes the daemon's process id and prints how many descriptors the daemon then has open.
"""

from __future__ import annotations

import resource
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from inferd import Client
from inferd_agent.demo.digits import INPUT, MODEL, OUTPUT, held_out

SOCKET = "/run/inferd/inferd.sock"
REGIONS, CONNECTIONS, ROWS = 128, 900, 8


def main(pid: str) -> None:
    """Fill the daemon up, call, and count."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    digits = held_out()
    with ExitStack() as stack:
        client = stack.enter_context(Client())
        memories = [stack.enter_context(client.share(64 << 10)) for _ in range(REGIONS)]
        for _ in range(CONNECTIONS):
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(SOCKET)
        images = memories[0].empty((ROWS, 1, 8, 8), np.float32)
        images[:] = digits.inputs()[:ROWS]
        scores = memories[-1].empty((ROWS, 10), np.float32)
        with Client() as last:
            assert last.is_live(), "who came after all the others was not taken"
        client.infer(MODEL, {INPUT: images}, outputs={OUTPUT: scores})
        assert scores.argmax(axis=1).tolist() == digits.labels[:ROWS].tolist()
        print(len([*Path(f"/proc/{pid}/fd").iterdir()]))


main(sys.argv[1])
