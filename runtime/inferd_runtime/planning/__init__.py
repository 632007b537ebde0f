"""Planning: which engine, device, precision, threads and batch a model version runs with on this machine, and why.

Knows engines and what the probe found, and nothing of folders, queues or protocols. `plan_version` is the one door: it
returns an open, warm session with its plan. Today the choice is a static rule (`static`); a measured one takes its
place behind the same door.
"""

from inferd_runtime.planning.plan import Ground, Planned, Wishes
from inferd_runtime.planning.static import plan_version

__all__ = ["Ground", "Planned", "Wishes", "plan_version"]
