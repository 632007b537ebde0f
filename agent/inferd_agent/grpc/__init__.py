"""The gRPC front end: messages in, the runtime's answers out.

Needs the extra `grpc`, and is imported only when asked for. The only room that knows grpcio and protobuf. Bridge,
identity, decoding checks, views and the table of errors are those that REST uses.
"""

from inferd_agent.grpc.front import GrpcFront

__all__ = ["GrpcFront"]
