"""The configuration: one frozen tree from file < environment < flag, with the origin of every value.

Built once at the start; nothing below this room knows files, environment or flags.
"""

from inferd_agent.config.listeners import Listener, is_lan_listener, is_loopback, parse_listener
from inferd_agent.config.load import Changes, Loaded, Origin, diff, load
from inferd_agent.config.page import render_docs
from inferd_agent.config.paths import SYSTEM_SOCKET, Paths
from inferd_agent.config.schema import SCOPES, Config, PeerRule, Scope, SharedMemory

__all__ = [
    "SCOPES",
    "SYSTEM_SOCKET",
    "Changes",
    "Config",
    "Listener",
    "Loaded",
    "Origin",
    "Paths",
    "PeerRule",
    "Scope",
    "SharedMemory",
    "diff",
    "is_lan_listener",
    "is_loopback",
    "load",
    "parse_listener",
    "render_docs",
]
