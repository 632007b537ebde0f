"""The engine host: `python -m inferd_runtime.engines.host BIRTH`, started by `HostProcess` and by nobody else."""

from __future__ import annotations

import sys

from inferd_runtime.engines.discover import open_engines
from inferd_runtime.engines.host.child import serve

if __name__ == "__main__":
    serve(sys.argv[1], open_engines()[0])
