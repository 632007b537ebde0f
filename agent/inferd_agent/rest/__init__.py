"""The REST front end: the Open Inference Protocol over HTTP/1.1 on aiohttp's low-level server.

Knows paths, headers, bodies and answers; models are reached through the bridge only. `RestApp` is what a daemon starts.
"""

from inferd_agent.rest.app import RestApp

__all__ = ["RestApp"]
