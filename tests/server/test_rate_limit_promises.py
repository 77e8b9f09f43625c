"""What rate limits promise, from logs of every hit of 8 processes on one identity.

A log has what the clock of the process said when it decided, and when by the one clock of the
machine the call began and ended: what had ended before another began came first in the table.
"""

import math
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

import pytest

from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

from .test_exchange import Crowd

Logs = Callable[..., "list[Hit]"]

LIMIT = 50
PER = 0.2
PER_MS = 200
SECONDS = 1.5
# Windows that neither end while a test runs nor free a hit.
LONG = 50 * 365 * 86_400.0
# How far ahead and behind the clocks of two thirds of the processes are.
SKEWS = pytest.mark.parametrize("skew", [0.0, 0.03, 1.0])


class Hit(NamedTuple):
    """What became of it; `at` by the clock that decided, `began` and `ended` by the machine's."""

    at: float
    cost: int
    allowed: bool
    reset_after: float
    began: float
    ended: float


class Gate(NamedTuple):
    """What each process is told."""

    url: str
    strategy: Any
    limit: int
    per: float
    seconds: float
    skew: float


def hammer(number: int, gate: Gate) -> list[Hit]:
    """Hit one identity without a break, and keep a log."""
    said = [0.0]
    ahead = gate.skew * (number % 3 - 1)

    def clock() -> float:
        said[0] = time.time() + ahead
        return said[0]

    log: list[Hit] = []
    # A cull would ask the clock as well.
    with KeyValueStore[str, Any](gate.url, clock=clock, cull=False) as store:
        name = f"hammered by clocks {gate.skew} s apart"
        limiter = store.limiter(name, gate.limit, gate.per, gate.strategy)
        refused = 0
        end = time.monotonic() + gate.seconds
        # On a machine that is busy it takes longer until enough have been refused.
        while (began := time.monotonic()) < end or (refused < 10 and began < end + 5):
            cost = 1 + (len(log) + number) % 2
            hit = limiter.hit("one", cost)
            refused += not hit.allowed
            log.append(Hit(said[0], cost, hit.allowed, hit.reset_after, began, time.monotonic()))
    return log


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    with Crowd() as crowd:
        yield crowd


@pytest.fixture(scope="module")
def log_of(crowd: Crowd, hskv_server: PrivateServer) -> Logs:
    """The hits of all processes with a strategy, by a skew; hammered once for all tests."""

    @cache
    def log_of(strategy: str, skew: float = 0.0, limit: int = LIMIT, per: float = PER) -> list[Hit]:
        gate = Gate(hskv_server.url, strategy, limit, per, SECONDS, skew)
        hits = sorted(hit for log in crowd(hammer, gate) for hit in log)
        # It says nothing where few were refused, or few passed.
        assert sum(not hit.allowed for hit in hits) > 20
        assert sum(hit.cost for hit in admissions(hits)) >= limit
        return hits

    return log_of


def admissions(hits: list[Hit]) -> list[Hit]:
    return [hit for hit in hits if hit.allowed]


def before_end_of(hit: Hit, passed: list[Hit]) -> Iterator[Hit]:
    """The admissions that may have been in the table when this one was decided."""
    return (one for one in passed if one.began <= hit.ended)


class TestFixedWindow:
    @SKEWS
    def test_no_window_has_more_than_the_limit(self, log_of: Logs, skew: float) -> None:
        """With clocks apart, too: a window is that of the clock which is ahead, and no wider."""
        hits = log_of("fixed-window", skew)
        counts = Counter[int]()
        for hit in admissions(hits):
            counts[fixed_window(hit)] += hit.cost
            assert fixed_window(hit) >= own_window(hit)
        assert max(counts.values()) <= LIMIT
        span = max(hit.ended for hit in hits) - min(hit.began for hit in hits)
        assert len(counts) <= (span + 2 * skew) / PER + 2

    @SKEWS
    def test_none_is_refused_while_there_is_room(self, log_of: Logs, skew: float) -> None:
        hits = log_of("fixed-window", skew)
        passed = admissions(hits)
        by_window: dict[int, list[Hit]] = {}
        for hit in passed:
            by_window.setdefault(fixed_window(hit), []).append(hit)
        for hit in hits:
            if not hit.allowed:
                inside = by_window[fixed_window(hit)]
                assert sum(one.cost for one in before_end_of(hit, inside)) + hit.cost > LIMIT


def own_window(hit: Hit) -> int:
    """The window by the clock of the process."""
    return math.floor(hit.at * 1000) // PER_MS


def fixed_window(hit: Hit) -> int:
    """The window that the row named: it ends when all of the limit is there again."""
    return round((math.floor(hit.at * 1000) + hit.reset_after * 1000) / PER_MS) - 1


class TestSlidingWindow:
    @SKEWS
    def test_the_estimate_never_passes_the_limit(self, log_of: Logs, skew: float) -> None:
        hits = log_of("sliding-window", skew)
        passed = sorted((sliding_window(hit), elapsed(hit), hit.cost) for hit in admissions(hits))
        counts = Counter[int]()
        for window, so_far, cost in passed:
            # Whoever was last in the table had no later a clock than the last of this order.
            counts[window] += cost
            assert counts[window] + counts[window - 1] * (PER_MS - so_far) / PER_MS <= LIMIT

    def test_none_is_refused_while_there_is_room(self, log_of: Logs) -> None:
        hits = log_of("sliding-window")
        by_window: dict[int, list[Hit]] = {}
        for hit in admissions(hits):
            by_window.setdefault(sliding_window(hit), []).append(hit)
        for hit in hits:
            if not hit.allowed:
                # Another process may have begun the next window after this one asked the clock.
                assert any(
                    estimate(hit, window, by_window) + hit.cost > LIMIT
                    for window in (own_window(hit), own_window(hit) + 1)
                )


def sliding_window(hit: Hit) -> int:
    """The window of the row: of one that was allowed all is there again a window later."""
    return round((math.floor(hit.at * 1000) + hit.reset_after * 1000) / PER_MS) - 2


def elapsed(hit: Hit) -> int:
    """Milliseconds of the row's window, which may not have begun by the clock of the process."""
    return max(math.floor(hit.at * 1000) - sliding_window(hit) * PER_MS, 0)


def estimate(hit: Hit, window: int, by_window: dict[int, list[Hit]]) -> int:
    """What may have counted at most when it was refused."""
    current, older = (
        sum(one.cost for one in before_end_of(hit, by_window.get(number, [])))
        for number in (window, window - 1)
    )
    left = min((window + 1) * PER_MS - math.floor(hit.at * 1000), PER_MS)
    return current + math.ceil(older * left / PER_MS)


class TestGcra:
    @SKEWS
    def test_no_time_has_more_than_a_burst_and_the_rate(self, log_of: Logs, skew: float) -> None:
        """By the clocks that decided; clocks s seconds apart let so much more pass in all."""
        passed = admissions(log_of("gcra", skew))
        # What a leaky bucket holds after each admission.
        level, last = 0.0, passed[0].at
        for hit in passed:
            level = max(level - (hit.at - last) * LIMIT / PER, 0.0) + hit.cost
            last = hit.at
            assert level <= LIMIT * (1 + 1e-6) + 1e-3
        span = max(hit.ended for hit in passed) - min(hit.began for hit in passed)
        assert sum(hit.cost for hit in passed) <= LIMIT + (span + 2 * skew) * LIMIT / PER

    def test_none_is_refused_while_there_is_room(self, log_of: Logs) -> None:
        hits = log_of("gcra")
        passed = admissions(hits)
        refused = [hit for hit in hits if not hit.allowed]
        for hit in refused[:: max(len(refused) // 300, 1)]:
            latest = latest_arrival(list(before_end_of(hit, passed)))
            assert latest > hit.at + PER - hit.cost * PER / LIMIT - 1e-6

    def test_exactly_the_limit_passes(self, log_of: Logs) -> None:
        hits = log_of("gcra", limit=200, per=LONG)
        assert sum(hit.cost for hit in admissions(hits)) == 200


def latest_arrival(passed: list[Hit]) -> float:
    """The largest theoretical arrival time that these can have led to, in any order there was."""
    by_end = sorted(passed, key=lambda one: one.ended)
    ends = [one.ended for one in by_end]
    costs = [0, *accumulate(one.cost for one in by_end)]
    # After the first of a time without a rest come all that had not ended when it began.
    return max(
        one.at + (costs[-1] - costs[bisect_left(ends, one.began)]) * PER / LIMIT for one in passed
    )
