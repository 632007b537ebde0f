"""Planning: which engine, device, precision, threads and batch a model version runs with on this machine, and why.

Knows engines and what the probe found, and nothing of folders, queues or protocols. `static` opens a safe plan at once.
`measured` finds a better one beside it: `candidates` lists what there is, `search` tries it as far as `promise` and the
time go, `choose` chooses, and `store` keeps the evidence.
"""

from inferd_runtime.planning.plan import Ground, Planned, Wishes
from inferd_runtime.planning.static import plan_version

__all__ = ["Ground", "Planned", "Wishes", "plan_version"]
