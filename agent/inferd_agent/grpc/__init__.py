"""The gRPC front end: messages in, the runtime's answers out.

Needs the extra `grpc`, and is imported only when asked for. The only room that knows grpcio and protobuf. Bridge,
identity, decoding checks, views and the table of errors are those that REST uses.
"""

import os

# Without this, threads of gRPC's own wait for the sockets and hand on what they find: half as much work again for a
# small call (bench/grpc_overhead.py). Read when gRPC is imported; what the environment says goes first.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")

from inferd_agent.grpc.front import GrpcFront

__all__ = ["GrpcFront"]
