"""What processes share beside values: leases, and limits of rates."""

from datetime import timedelta
from functools import partial
from typing import Any, Final

from .base import K, StoreBase, V
from .lease import Lease
from .ratelimit import Fail, LimiterRows, RateLimiter, StrategyMaker, StrategyName
from .verbs import Column

_ALL: Final[tuple[Column, ...]] = ("number", "kind", "version", "expires")


class LeasesAndLimiters(StoreBase[K, V]):
    """Hold a lease, count hits against a limit."""

    def lease(
        self,
        name: str | bytes,
        ttl: float = 30.0,
        *,
        max_skew: float = 1.0,
        renew: bool = False,
        fence: bool = False,
        poll: float = 0.1,
        wait: bool | float = True,
    ) -> Lease:
        """A lock of all processes that ends by itself, for `ttl` seconds: see `hskv.Lease`.

        `renew` extends it in the background while the process lives, `fence` numbers its holders.
        `max_skew` is by how many seconds clients' clocks may differ, `poll` how often a waiter
        looks; `with` waits for ever, not at all (False), or for so many seconds, and then raises
        LeaseTimeoutError. No I/O; no key of the mapping is taken.

        >>> with store.lease("nightly", ttl=60, wait=5) as lease:
        ...     lease.held
        True
        """
        options = {
            "max_skew": max_skew,
            "renew": renew,
            "fence": fence,
            "poll": poll,
            "wait": wait,
        }
        return self._lease(b"L", name, ttl, **options)

    def computing(self, key: K, ttl: float, poll: float) -> Lease:
        """The lease under which the value of a key is computed: for what is like `get_or_set`.

        >>> store.computing("answer", ttl=10, poll=0.05).locked()
        False
        """
        name = key if isinstance(key, bytes) else str(key)
        return self._lease(b"C", name, ttl, renew=True, poll=poll)

    def limiter(
        self,
        name: str,
        limit: int,
        per: float | timedelta,
        strategy: StrategyName | StrategyMaker = "fixed-window",
        *,
        fail: Fail = "raise",
    ) -> RateLimiter:
        """A limit of so many hits in `per` seconds that all processes share: `hskv.RateLimiter`.

        Limiters of the same name, period and strategy share their counts; a changed `limit` applies
        at once. `strategy` may be what makes one of your own, a `hskv.store.strategies.Strategy`.
        No I/O; no key of the mapping is taken. Raises TypeError, ValueError, and UnsupportedError
        on a table without all columns.

        >>> limiter = store.limiter("login", limit=5, per=60)
        >>> limiter.hit("ann").remaining
        4
        """
        for column in _ALL:
            self._need(column, "a limiter")
        reserved = partial(self._keys.reserved, b"R")
        longest = self.table.key_bytes - len(reserved(b"x")) + 1
        rows = LimiterRows(self._run, reserved, longest, self._after_writes)
        return RateLimiter(rows, name, limit, per, clock=self._clock, strategy=strategy, fail=fail)

    def _lease(self, letter: bytes, name: str | bytes, ttl: float, **options: Any) -> Lease:
        for column in _ALL:
            self._need(column, "a lease")
        row_key = self._keys.reserved(letter, name)
        return Lease(self._executor, row_key, ttl, clock=self._clock, **options)
