"""How a rate limiter counts: three strategies, as plans over one row for each identity.

Rows are never filtered by whether they are alive, and `expires` lies a whole period after they
stop to matter, so that neither a cull nor another client's clock takes one away that still
counts. A refused hit changes nothing. Proofs of the promises: the class docstrings.
"""

from collections.abc import Callable
from typing import ClassVar, Final, Generic, NamedTuple, Protocol, TypeVar

from ..exceptions import DuplicateKeyError, HandlerSocketError
from .plans import ROUNDS, Plan, contention, found, good
from .values import Kind
from .verbs import Add, Column, Condition, Find, Found, Insert, Row, Update

T = TypeVar("T")

# Two counts stand in one number of 63 bits, and one more must not overflow either.
MAX_LIMIT: Final = (1 << 30) - 1
_HALF: Final = 32
_NS_PER_MS: Final = 1_000_000
_KNOWN_IDENTITIES: Final = 10_000


class Decision(NamedTuple):
    """What became of a hit; true when it was allowed.

    `remaining` is how much more would be allowed now. Seconds: `retry_after` until this hit would
    be allowed if no others came, 0 when it was; `reset_after` until all of the limit is there
    again if none came. `error` is why the table could not be asked, where a limiter was told to
    decide without it.

    >>> limiter = store.limiter("login", limit=1, per=60)
    >>> decision = limiter.hit("ann")
    >>> bool(decision), decision.limit, decision.remaining, decision.retry_after
    (True, 1, 0, 0.0)
    """

    allowed: bool
    limit: int
    remaining: int
    retry_after: float
    reset_after: float
    error: HandlerSocketError | None = None

    def __bool__(self) -> bool:
        return self.allowed


class WindowCounts(NamedTuple):
    """The hits of two windows, and for how many seconds from now they still count."""

    before: int
    before_left: float
    current: int
    current_left: float


class Remembered(Generic[T]):
    """What a strategy saw last of each identity; of very many it forgets all, and begins anew."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, T] = {}
        self.get = self._by_key.get

    def keep(self, key: bytes, seen: T) -> None:
        """Remember it."""
        if len(self._by_key) >= _KNOWN_IDENTITIES:
            self._by_key.clear()
        self._by_key[key] = seen

    def forget(self, key: bytes) -> None:
        """Know nothing of it any more."""
        self._by_key.pop(key, None)


class Strategy(Protocol):
    """Decides about hits. Times of the clock are seconds since the epoch."""

    code: ClassVar[bytes]
    """Tells its rows from those of other strategies."""

    def hit(self, key: bytes, cost: int) -> Plan[Decision]: ...  # noqa: D102 the implementations say it

    def peek(self, key: bytes, cost: int) -> Plan[Decision]: ...  # noqa: D102 as above


class FixedWindow:
    """At most `limit` in each window of the clock; up to twice as many over a border of two.

    `number` counts the window that `version` names. Of the three changes at most one applies:
    the first asks for a row of this window with room, the second makes a row, the third asks for
    one of an older window; each leaves a row of this window. Where another's clock is ahead, its
    window is taken: a window is never gone back to.
    """

    code: ClassVar[bytes] = b"f"

    def __init__(self, limit: int, per_ms: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._per = per_ms
        self._clock = clock
        # A row's window as it was seen last, and whether a hit was refused in it.
        self._seen = Remembered[tuple[int, bool]]()

    def hit(self, key: bytes, cost: int) -> Plan[Decision]:
        """Count a hit. One round trip for one that passes in a window that has begun.

        And for a refusal; but two for the first of a window.
        """
        seen = 0
        for _ in range(ROUNDS):
            at = int(self._clock() * 1000)
            window = max(at // self._per, seen)
            before, rows = yield from self._added(key, window, cost)
            if before:
                self._seen.keep(key, (window, False))
                return self._decision(at, window, int(before[0][0]) + cost)
            if not rows:
                first = Row(key, b"", cost, Kind.LIMITER, window, self._expires(window))
                (made,) = yield [Insert(first)]
                if is_made(made):
                    self._seen.keep(key, (window, False))
                    return self._decision(at, window, cost)
                continue
            count, seen = map(int, rows[0])
            if seen < window:
                older, cells = (_is("version", "<", window),), (cost, window, self._expires(window))
                (begun,) = yield [Update(key, older, _ROW, cells)]
                if good(begun) == 1:
                    self._seen.keep(key, (window, False))
                    return self._decision(at, window, cost)
            elif seen == window and count + cost > self._limit:
                self._seen.keep(key, (window, True))
                return self._decision(at, window, count, refused=True)
            else:
                self._seen.forget(key)
        raise contention()

    def _added(self, key: bytes, window: int, cost: int) -> Plan[tuple[Found, Found]]:
        """The row as it was before the hit was counted; or, where it was not, as it is.

        Where a hit passed before, it mostly passes again, and where one was refused, the next is
        as well: then one request is enough, and a look goes to the read port.
        """
        room = (_is("version", "=", window), _is("number", "<=", self._limit - cost))
        change, look = Add(key, room, ("number",), (cost,)), Find((key,), _COUNTED)
        known, is_full = self._seen.get(key) or (-1, False)
        if known != window:
            added, rows = yield [change, look]
            return found(added), found(rows)
        if not is_full:
            (added,) = yield [change]
            if before := found(added):
                return before, []
        (rows,) = yield [look]
        return [], found(rows)

    def peek(self, key: bytes, cost: int) -> Plan[Decision]:
        """What a hit would get now; counts nothing."""
        at = int(self._clock() * 1000)
        (rows,) = yield [Find((key,), _COUNTED)]
        window, count = at // self._per, 0
        if found(rows):
            stored, seen = map(int, found(rows)[0])
            if seen >= window:
                window, count = seen, stored
        return self._decision(at, window, count, refused=count + cost > self._limit)

    def _expires(self, window: int) -> int:
        return (window + 2) * self._per

    def _decision(self, at: int, window: int, count: int, *, refused: bool = False) -> Decision:
        left = ((window + 1) * self._per - at) / 1000 if count else 0.0
        remaining = max(self._limit - count, 0)
        return Decision(not refused, self._limit, remaining, left if refused else 0.0, left)


class SlidingWindow:
    """The hits of this window, and those of the one before by the part of it that still counts.

    That estimate never passes `limit`. `number` holds both counts, the older in the upper half;
    `version` names the window. The older count of a window never changes but by a reset, which
    makes it 0: the lower bound of the filter sees that. To begin a window is a compare-and-set of
    both columns. Where another's clock is ahead, its window is taken, and all of the one before
    counts: that is the stricter way.
    """

    code: ClassVar[bytes] = b"s"

    def __init__(self, limit: int, per_ms: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._per = per_ms
        self._clock = clock
        # The window and the older count that a row had: a filter needs both.
        self._known = Remembered[tuple[int, int]]()

    def hit(self, key: bytes, cost: int) -> Plan[Decision]:
        """Count a hit. One round trip for most; two for an identity's first of a window.

        And for the first by this limiter, which has yet to see the window's row.
        """
        seen = 0
        for _ in range(ROUNDS):
            at = int(self._clock() * 1000)
            window = max(at // self._per, seen)
            known, before = self._known.get(key) or (0, 0)
            room = self._limit - cost - self._weight(before, window, at)
            if known == window and room >= 0:
                low = before << _HALF
                has_room = (
                    _is("version", "=", window),
                    _is("number", ">=", low),
                    _is("number", "<=", low + room),
                )
                change = Add(key, has_room, ("number",), (cost,))
                added, rows = yield [change, Find((key,), _COUNTED)]
                if originals := found(added):
                    current = int(originals[0][0]) - low + cost
                    return self._decision(at, window, before, current, cost)
            else:
                (rows,) = yield [Find((key,), _COUNTED)]
            if not found(rows):
                first = Row(key, b"", cost, Kind.LIMITER, window, self._expires(window))
                (made,) = yield [Insert(first)]
                if is_made(made):
                    self._known.keep(key, (window, 0))
                    return self._decision(at, window, 0, cost, cost)
                continue
            number, seen = map(int, found(rows)[0])
            window = max(window, seen)
            before, current = self._counts(number, seen, window)
            if current + cost + self._weight(before, window, at) > self._limit:
                return self._decision(at, window, before, current, cost, refused=True)
            if seen == window:
                self._known.keep(key, (window, before))
                continue
            same = (_is("version", "=", seen), _is("number", "=", number))
            cells = ((before << _HALF) + cost, window, self._expires(window))
            (begun,) = yield [Update(key, same, _ROW, cells)]
            if good(begun) == 1:
                self._known.keep(key, (window, before))
                return self._decision(at, window, before, cost, cost)
        raise contention()

    def peek(self, key: bytes, cost: int) -> Plan[Decision]:
        """What a hit would get now; counts nothing."""
        at = int(self._clock() * 1000)
        (rows,) = yield [Find((key,), _COUNTED)]
        window, before, current = at // self._per, 0, 0
        if found(rows):
            number, seen = map(int, found(rows)[0])
            window = max(window, seen)
            before, current = self._counts(number, seen, window)
        over = current + cost + self._weight(before, window, at) > self._limit
        return self._decision(at, window, before, current, cost, refused=over)

    def counts(self, key: bytes) -> Plan[WindowCounts]:
        """Both counts; the part of the older one that counts shrinks evenly until its end."""
        at = int(self._clock() * 1000)
        (rows,) = yield [Find((key,), _COUNTED)]
        window, before, current = at // self._per, 0, 0
        if found(rows):
            number, seen = map(int, found(rows)[0])
            window = max(window, seen)
            before, current = self._counts(number, seen, window)
        left = self._left(window, at) / 1000
        return WindowCounts(before, left if before else 0.0, current, left + self._per / 1000)

    @staticmethod
    def _counts(number: int, seen: int, window: int) -> tuple[int, int]:
        """The older and the current count, as they are in this window."""
        older, newer = divmod(number, 1 << _HALF)
        if seen == window:
            return older, newer
        return (newer if seen == window - 1 else 0), 0

    def _left(self, window: int, at: int) -> int:
        """Milliseconds of a window that are still to come, all where it has not begun here."""
        return min((window + 1) * self._per - at, self._per)

    def _weight(self, before: int, window: int, at: int) -> int:
        """The part of the older count that still counts, rounded up."""
        return -(-before * self._left(window, at) // self._per)

    def _expires(self, window: int) -> int:
        return (window + 3) * self._per

    def _decision(
        self, at: int, window: int, before: int, current: int, cost: int, *, refused: bool = False
    ) -> Decision:
        end = (window + 1) * self._per
        retry = 0
        if refused:
            if current + cost <= self._limit:
                retry = end - at - (self._limit - cost - current) * self._per // before
            else:
                retry = end - at + self._per - (self._limit - cost) * self._per // current
        reset = end + self._per - at if current else end - at if before else 0
        remaining = max(self._limit - current - self._weight(before, window, at), 0)
        return Decision(not refused, self._limit, remaining, retry / 1000, reset / 1000)


class GenericCellRate:
    """GCRA, a leaky bucket: never more than `limit` + t * limit / per in any time t.

    `number` is the theoretical arrival time in nanoseconds. It never goes back: one change adds
    to a time that is not past, the other, to one that is past, sets now and a step. At most one of
    them applies, since both leave a time that is not past. Both admit only what leaves it within
    a burst from now: that is the leaky bucket itself.
    """

    code: ClassVar[bytes] = b"g"

    def __init__(self, limit: int, per_ms: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._per = per_ms
        self._clock = clock
        self._step = -(-per_ms * _NS_PER_MS // limit)
        self._burst = self._step * limit

    def hit(self, key: bytes, cost: int) -> Plan[Decision]:
        """Count a hit. One round trip, two for the first of an identity."""
        step = self._step * cost
        later = -(-step // _NS_PER_MS)
        for _ in range(ROUNDS):
            now = int(self._clock() * 1_000_000_000)
            top, arrival = now + self._burst - step, now + step
            room = (_is("number", ">=", now), _is("number", "<=", top))
            past, cells = (_is("number", "<", now),), (arrival, self._expires(arrival))
            added, begun, rows = yield [
                Add(key, room, _ARRIVAL, (step, later)),
                Update(key, past, _ARRIVAL, cells),
                Find((key,), ("number",)),
            ]
            if before := found(added):
                return self._decision(now, int(before[0][0]) + step)
            if good(begun) == 1:
                return self._decision(now, arrival)
            if not found(rows):
                first = Row(key, b"", arrival, Kind.LIMITER, 0, self._expires(arrival))
                (made,) = yield [Insert(first)]
                if is_made(made):
                    return self._decision(now, arrival)
            elif (stored := int(found(rows)[0][0])) > top:
                return self._decision(now, stored, stored - top)
        raise contention()

    def peek(self, key: bytes, cost: int) -> Plan[Decision]:
        """What a hit would get now; counts nothing."""
        now = int(self._clock() * 1_000_000_000)
        (rows,) = yield [Find((key,), ("number",))]
        arrival = max(now, int(found(rows)[0][0])) if found(rows) else now
        top = now + self._burst - self._step * cost
        return self._decision(now, arrival, max(arrival - top, 0))

    def _expires(self, arrival: int) -> int:
        return -(-arrival // _NS_PER_MS) + self._per

    def _decision(self, now: int, arrival: int, early: int = 0) -> Decision:
        remaining = max(now + self._burst - arrival, 0) // self._step
        return Decision(not early, self._limit, remaining, early / 1e9, (arrival - now) / 1e9)


def is_made(outcome: object) -> bool:
    """Was the row inserted? False where another was first."""
    if isinstance(outcome, DuplicateKeyError):
        return False
    good(outcome)  # type: ignore[arg-type]
    return True


def _is(column: Column, operation: str, value: int) -> Condition:
    return Condition(column, operation, value)


_COUNTED: Final[tuple[Column, ...]] = ("number", "version")
_ROW: Final[tuple[Column, ...]] = ("number", "version", "expires")
_ARRIVAL: Final[tuple[Column, ...]] = ("number", "expires")
