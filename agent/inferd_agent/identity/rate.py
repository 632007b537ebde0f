"""Token buckets, one for each principal with a rate. Single-threaded: it lives on the event loop."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from inferd_agent.errors import RateLimited
from inferd_agent.identity.principals import Rate


class RateLimiter:
    """Charges requests to buckets that refill with time; the least recently used bucket is dropped when there are too
    many, which only ever favours its owner."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, max_buckets: int = 4096) -> None:
        self._clock = clock
        self._max_buckets = max_buckets
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> (left, when)

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, key: str, rate: Rate) -> float:
        """Take one request from the bucket: 0.0 if it was there, else how long until it will be."""
        now = self._clock()
        left, when = self._buckets.get(key, (float(rate.burst), now))
        left = min(float(rate.burst), left + (now - when) * rate.per_s)
        is_allowed = left >= 1.0
        self._buckets[key] = (left - 1.0 if is_allowed else left, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._max_buckets:
            self._buckets.popitem(last=False)
        return 0.0 if is_allowed else (1.0 - left) / rate.per_s

    def charge(self, key: str, rate: Rate) -> None:
        """Take one request, or raise RateLimited with the time to wait."""
        wait_s = self.wait_s(key, rate)
        if wait_s > 0:
            raise RateLimited(
                f"over the rate of {rate.per_s:g} requests/s (burst {rate.burst}); try again in {wait_s:.3g} s",
                retry_after_s=max(wait_s, math.ulp(1.0)),
            )
