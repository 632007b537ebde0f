"""The device on the LAN: what it tells of itself by mDNS, and to keep that true.

Speaks only once the daemon listens, says goodbye before it drains, and tells nothing that a stranger may not know.
"""

from inferd_agent.discovery.advertiser import Advertiser
from inferd_agent.discovery.facts import Survey
from inferd_agent.discovery.instance import default_name, instance_id
from inferd_agent.discovery.reach import find_lan

__all__ = ["Advertiser", "Survey", "default_name", "find_lan", "instance_id"]
