"""Engines in a child process: whatever native code does there, this process lives on and says what happened.

`HostProcess` is one child with one engine, for trials; `isolated_engine` makes an engine whose sessions each live in a
child that is restarted when it dies. Control goes over pipes in small frames, tensors through shared memory. A death is
seen at once as the end of the pipes, every wait has a deadline, and a child never outlives its parent.
"""

from inferd_runtime.engines.host.isolated import IsolatedSession, isolated_engine
from inferd_runtime.engines.host.process import HostProcess
from inferd_runtime.engines.host.session import HostedSession
from inferd_runtime.engines.host.words import Measured

__all__ = ["HostProcess", "HostedSession", "IsolatedSession", "Measured", "isolated_engine"]
