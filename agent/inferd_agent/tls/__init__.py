"""Certificates: a local CA made at the first start, the certificate it keeps fresh, and own ones that are given.

The only room that knows cryptography. Knows nothing of HTTP or of who calls.
"""

from inferd_agent.tls.host import HostNames, find_host
from inferd_agent.tls.material import Pem, TlsMaterial

__all__ = ["HostNames", "Pem", "TlsMaterial", "find_host"]
