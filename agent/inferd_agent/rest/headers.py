"""The request headers that are looked at, spelled as aiohttp's header maps find them fastest.

A plain string is folded to lower case at every look-up, which takes longer than finding it.
"""

from __future__ import annotations

from multidict import istr

ACCEPT_ENCODING = istr("Accept-Encoding")
AUTHORIZATION = istr("Authorization")
CONTENT_ENCODING = istr("Content-Encoding")
HEADER_LENGTH = istr("Inference-Header-Content-Length")
# "text" or "json" asks how busy the daemon is, as ORCA has it; the answer's Endpoint-Load-Metrics tells.
LOAD_FORMAT = istr("Endpoint-Load-Metrics-Format")
REQUEST_ID = istr("X-Request-Id")
# The deadline of one request in milliseconds, beside the protocol's `timeout` parameter; the nearer one counts.
TIMEOUT = istr("X-Request-Timeout-Ms")
# "1" asks where an inference's time went; the answer's header of the same name tells.
TIMING = istr("Inferd-Timing")
