"""Rate limits that all processes share, one row of the table for each identity. Locks: none."""

import functools
import logging
import math
import random
import re
from collections.abc import Callable
from datetime import timedelta
from time import monotonic, sleep
from typing import Any, Final, Literal, NamedTuple, ParamSpec, TypeVar, cast

from ..exceptions import (
    HandlerSocketError,
    KeyTooLongError,
    RateLimitExceededError,
    UnsupportedError,
)
from .expiry import checked
from .lease import checked_wait
from .outage import Need, Outage
from .plans import Plan, clear_range, good
from .strategies import (
    MAX_LIMIT,
    Decision,
    FixedWindow,
    GenericCellRate,
    SlidingWindow,
    Strategy,
    WindowCounts,
)
from .verbs import Delete

_log = logging.getLogger("hskv")

P = ParamSpec("P")
T = TypeVar("T")

StrategyName = Literal["fixed-window", "sliding-window", "gcra"]
Fail = Literal["raise", "open", "closed"]
Clock = Callable[[], float]

StrategyMaker = Callable[[int, int, Clock], Strategy]
"""Makes one of a limit, a period in milliseconds, and a clock."""

STRATEGIES: Final[dict[StrategyName, StrategyMaker]] = {
    "fixed-window": FixedWindow,
    "sliding-window": SlidingWindow,
    "gcra": GenericCellRate,
}
# What a limiter says that refuses since it cannot ask: the server may be back by then.
_RETRY_SECONDS: Final = 1.0
_SHORTEST_PERIOD_SECONDS: Final = 0.001
_HASHED_BYTES: Final = 1 + 32


class LimiterRows(NamedTuple):
    """What of a KeyValueStore a limiter needs."""

    run: Callable[[Plan[Any]], Any]
    reserved: Callable[[bytes], bytes]
    name_bytes: int
    wrote: Callable[[int], None]


class RateLimiter:
    """At most `limit` hits in `per` seconds for each identity, counted by all processes together.

    Made by `KeyValueStore.limiter`. Strategies:

    - "fixed-window": never more than `limit` in one window; windows are numbered by the clock, and
      over the border of two there may be twice as many. The cheapest.
    - "sliding-window": the hits of this window, and those of the one before by the part of it that
      lies within the last `per` seconds, never pass `limit`.
    - "gcra": never more than `limit` + t x limit / per in any time t: a burst of `limit`, then an
      even flow.

    Exact whatever processes do at the same time; a refused hit changes nothing. Threads may share
    one, and it may be used after a fork. `fail` says what a hit gets where the table cannot be
    asked: the error ("raise"), or a `Decision` that allows ("open") or refuses ("closed") it,
    with the `error`, which is logged; a server that is away is then asked once a second at first
    and once in ten seconds later, so that only those hits wait for it. Clocks of clients matter:
    one that is ahead of others by s seconds ends windows s seconds early.

    >>> limiter = store.limiter("login", limit=2, per=60, strategy="gcra")
    >>> [limiter.hit("ann").allowed for _ in range(3)], limiter.hit("bob").remaining
    ([True, True, False], 1)
    """

    def __init__(
        self,
        rows: LimiterRows,
        name: str,
        limit: int,
        per: float | timedelta,
        *,
        clock: Clock,
        strategy: StrategyName | StrategyMaker = "fixed-window",
        fail: Fail = "raise",
    ) -> None:
        self.name = name
        self.quota = _checked_limit(limit)
        self.per = _checked_per(per)
        make = STRATEGIES.get(strategy) if isinstance(strategy, str) else strategy
        if not callable(make):
            raise ValueError(f"strategy is one of {', '.join(STRATEGIES)}, not {strategy!r}")
        if fail not in ("raise", "open", "closed"):
            raise ValueError(f"fail is 'raise', 'open' or 'closed', not {fail!r}")
        self.strategy = strategy if isinstance(strategy, str) else strategy.__name__
        self._fail = fail
        self._outage = Outage()
        self._rows = rows
        per_ms = round(self.per * 1000)
        self._strategy = make(self.quota, per_ms, clock)
        # Rows of another period or strategy would be misread, so they are other rows.
        self._name = _checked_name(name) + b"\x00"
        self._stem = b"%b%b%d:" % (self._name, self._strategy.code, per_ms)
        self._longest = rows.name_bytes - len(self._stem)
        if self._longest < _HASHED_BYTES:
            raise KeyTooLongError(
                f"the name {name!r} leaves too little of the key column for identities: shorten "
                "it, or make the column wider"
            )
        self._row_key(b"")

    def __repr__(self) -> str:
        return f"<RateLimiter {self.name!r}, {self.quota} in {self.per:g} s, {self.strategy}>"

    def hit(self, identity: str | bytes, cost: int = 1) -> Decision:
        """Count a hit if the limit has room for its `cost`. Atomic; a refused one changes nothing.

        One round trip, two for the first hit of a period and, in a fixed window, for the first that
        is refused. An identity is of any length and any bytes; a str is the same as its UTF-8.
        Raises ValueError for a cost below 1 or above the limit. OutcomeUnknownError means that the
        hit may have been counted.

        >>> store.limiter("api", 100, 60).hit("ann", cost=10).remaining
        90
        """
        key, cost = self._row_key(_encoded(identity)), self._checked_cost(cost)
        decision = self._decided(self._strategy.hit(key, cost))
        if decision.allowed and decision.error is None:
            self._rows.wrote(1)
        return decision

    def peek(self, identity: str | bytes, cost: int = 1) -> Decision:
        """What a hit would get now; counts nothing. One round trip, to the read port.

        >>> store.limiter("api", 100, 60).peek("ann").remaining
        100
        """
        key, cost = self._row_key(_encoded(identity)), self._checked_cost(cost)
        return self._decided(self._strategy.peek(key, cost), Need.PRIMARY)

    def reset(self, identity: str | bytes) -> bool:
        """Forget the hits of an identity; was there anything to forget? One round trip.

        >>> limiter = store.limiter("login", 1, 60)
        >>> limiter.hit("ann").allowed, limiter.reset("ann"), limiter.hit("ann").allowed
        (True, True, True)
        """
        return cast(bool, self._rows.run(_removed(self._row_key(_encoded(identity)))))

    def clear(self) -> int:
        """Forget the hits of every identity, in all limiters of this name; of how many.

        One round trip for each 1,000. Hits that come in meanwhile may stay.

        >>> limiter = store.limiter("login", 1, 60)
        >>> limiter.hit("ann").allowed, limiter.clear(), limiter.hit("ann").allowed
        (True, 1, True)
        """
        start = self._rows.reserved(self._name)
        end = start[:-1] + b"\x01"
        # Rows that have expired are forgotten and counted as well.
        return cast(int, self._rows.run(clear_range(start, end, lambda: 0)))

    def counts(self, identity: str | bytes) -> WindowCounts:
        """What a sliding window has counted, as `WindowCounts`. One round trip, to the read port.

        Raises UnsupportedError for other strategies.

        >>> limiter = store.limiter("login", 5, 3600, "sliding-window")
        >>> _ = limiter.hit("ann", cost=2)
        >>> limiter.counts("ann").current
        2
        """
        if not isinstance(self._strategy, SlidingWindow):
            raise UnsupportedError("only a sliding window has two counts: use peek")
        key = self._row_key(_encoded(identity))
        return cast(WindowCounts, self._rows.run(self._strategy.counts(key)))

    def acquire(self, identity: str | bytes, cost: int = 1, wait: bool | float = True) -> bool:
        """Hit until it is allowed; False when that takes longer than `wait` seconds.

        For those who call something that is limited elsewhere. Waits for ever (True), not at all
        (False), or for so many seconds; not even a part of them where they cannot suffice.

        >>> limiter = store.limiter("mails", 1, 60)
        >>> limiter.acquire("smtp"), limiter.acquire("smtp", wait=0.1)
        (True, False)
        """
        deadline = monotonic() + checked_wait(wait)
        while not (decision := self.hit(identity, cost)).allowed:
            if monotonic() + decision.retry_after > deadline:
                return False
            # Those who wait for the same moment would all ask at once.
            sleep(max(decision.retry_after * random.uniform(1, 1.1), 0.001))
        return True

    def limit(
        self, key: Callable[..., str | bytes] | str | bytes, cost: int = 1
    ) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """A decorator: calls beyond the limit raise RateLimitExceededError and are not made.

        `key` is the identity, or takes the arguments of the call and gives it.

        >>> @store.limiter("mails", 1, 60).limit(key=lambda to: to)
        ... def mail(to): return "sent"
        >>> mail("ann"), mail("bob")
        ('sent', 'sent')
        >>> mail("ann")
        Traceback (most recent call last):
        hskv.exceptions.RateLimitExceededError: mails: 1 in 60 s are allowed; try again in ... s
        """
        self._checked_cost(cost)

        def decorate(function: Callable[P, T]) -> Callable[P, T]:
            import inspect  # slow to import, and only wanted here

            if inspect.iscoroutinefunction(function):
                raise TypeError(
                    "a hit waits for the server and would stop the event loop: use "
                    "`await asyncio.to_thread(limiter.hit, identity)` in a coroutine"
                )

            @functools.wraps(function)
            def limited(*args: P.args, **kwargs: P.kwargs) -> T:
                identity = key(*args, **kwargs) if callable(key) else key
                self._refuse(self.hit(identity, cost))
                return function(*args, **kwargs)

            return limited

        return decorate

    def headers(self, decision: Decision) -> dict[str, str]:
        """What an HTTP answer tells of a decision: RateLimit, its policy, Retry-After if refused.

        As of draft-ietf-httpapi-ratelimit-headers-10; seconds are rounded up. Empty where the table
        could not be asked.

        >>> limiter = store.limiter("api", 100, 60, strategy="gcra")
        >>> limiter.headers(limiter.hit("ann"))
        {'RateLimit-Policy': '"api";q=100;w=60', 'RateLimit': '"api";r=99;t=1'}
        """
        headers = {}
        if decision.error is None:
            # A string of RFC 9651 is printable ASCII.
            name = re.sub(r'(["\\\\])', r"\\\1", re.sub(r"[^ -~]", "?", self.name))
            headers["RateLimit-Policy"] = f'"{name}";q={self.quota};w={math.ceil(self.per)}'
            reset = math.ceil(decision.reset_after)
            headers["RateLimit"] = f'"{name}";r={decision.remaining};t={reset}'
        if not decision.allowed:
            headers["Retry-After"] = str(max(math.ceil(decision.retry_after), 1))
        return headers

    def _refuse(self, decision: Decision) -> None:
        if decision.allowed:
            return
        message = f"{self.name}: {self.quota} in {self.per:g} s are allowed; "
        message += f"try again in {decision.retry_after:.3f} s"
        raise RateLimitExceededError(
            message,
            limit=self.quota,
            retry_after=decision.retry_after,
            reset_after=decision.reset_after,
        ) from decision.error

    def _row_key(self, identity: bytes) -> bytes:
        if len(identity) > self._longest or identity[:1] == b"\x00":
            from hashlib import sha256  # slow to import, and seldom wanted

            # What begins with NUL is a digest, so that nobody can pass off one as an identity.
            identity = b"\x00" + sha256(identity).digest()
        return self._rows.reserved(self._stem + identity)

    def _checked_cost(self, cost: int) -> int:
        if type(cost) is not int:
            raise TypeError(f"cost is an int, not {type(cost).__name__}")
        if not 0 < cost <= self.quota:
            raise ValueError(f"cost is from 1 to the limit of {self.quota}, not {cost}")
        return cost

    def _decided(self, plan: Plan[Decision], need: Need = Need.WRITE) -> Decision:
        """What the table says; or, where it cannot be asked, what `fail` says."""
        if self._fail == "raise":
            return cast(Decision, self._rows.run(plan))
        if reason := self._outage.reason(need):
            return self._without_table(reason)
        try:
            decision = cast(Decision, self._rows.run(plan))
        except HandlerSocketError as error:
            self._outage.failed(error, need)
            _log.warning("%r fails %s: %s", self, self._fail, error)
            return self._without_table(error)
        self._outage.ended(need)
        return decision

    def _without_table(self, error: HandlerSocketError) -> Decision:
        if self._fail == "open":
            return Decision(True, self.quota, 0, 0.0, 0.0, error)
        return Decision(False, self.quota, 0, _RETRY_SECONDS, _RETRY_SECONDS, error)


def _removed(key: bytes) -> Plan[bool]:
    (removed,) = yield [Delete((key,))]
    return good(removed) == 1


def _checked_limit(limit: int) -> int:
    if type(limit) is not int:
        raise TypeError(f"limit is an int, not {type(limit).__name__}")
    if not 0 < limit <= MAX_LIMIT:
        raise ValueError(f"limit is from 1 to {MAX_LIMIT}, not {limit}")
    return limit


def _checked_per(per: float | timedelta) -> float:
    seconds = checked(per)
    if seconds is None or seconds < _SHORTEST_PERIOD_SECONDS:
        raise ValueError(f"per is a number of seconds, {_SHORTEST_PERIOD_SECONDS} or more")
    return seconds


def _checked_name(name: str) -> bytes:
    if not isinstance(name, str):
        raise TypeError(f"a limiter's name is a str, not {type(name).__name__}")
    if not name or "\0" in name:
        raise ValueError("a limiter has a name, without NUL: that ends it in the table")
    return _encoded(name)


def _encoded(identity: str | bytes) -> bytes:
    if isinstance(identity, bytes):
        return identity
    if not isinstance(identity, str):
        raise TypeError(f"an identity is str or bytes, not {type(identity).__name__}")
    # Any str will do: what a client sent may hold lone surrogates.
    return identity.encode("utf-8", "surrogatepass")
