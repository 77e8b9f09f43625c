"""Integers that clients count together."""

from typing import overload

from . import plans
from .base import K, StoreBase, V
from .expiry import DEFAULT, TtlOrDefault, not_keep, now_ms
from .plans import UNBOUNDED, Bounds
from .table import NEVER
from .values import Kind, bound, check_int64
from .verbs import Row
from .versions import new_version


class Counters(StoreBase[K, V]):
    """Add to an integer, and subtract from it."""

    @overload
    def incr(
        self, key: K, amount: int = 1, *, initial: int = 0, ttl: TtlOrDefault = DEFAULT
    ) -> int: ...
    @overload
    def incr(
        self,
        key: K,
        amount: int = 1,
        *,
        initial: int = 0,
        ttl: TtlOrDefault = DEFAULT,
        ceiling: int | None,
    ) -> int | None: ...
    def incr(
        self,
        key: K,
        amount: int = 1,
        *,
        initial: int = 0,
        ttl: TtlOrDefault = DEFAULT,
        ceiling: int | None = None,
    ) -> int | None:
        """Add to an integer, and give the new value; `initial + amount` where the key is missing.

        None where it would pass `ceiling`: then nothing is changed. `ttl` is for a key that is
        made; a live one keeps its own. Atomic, and never done twice whatever fails; one round
        trip, two for a new key and for a refusal. TypeError for a value that is no 64-bit
        integer, OverflowError past 64 bits: then nothing is changed.

        >>> store.incr("visits"), store.incr("visits", 10), store.incr("visits", ceiling=11)
        (1, 11, None)
        """
        bounds = UNBOUNDED if ceiling is None else Bounds(ceiling=bound("ceiling", ceiling))
        return self._increment(key, amount, initial, ttl, bounds)

    @overload
    def decr(
        self, key: K, amount: int = 1, *, initial: int = 0, ttl: TtlOrDefault = DEFAULT
    ) -> int: ...
    @overload
    def decr(
        self,
        key: K,
        amount: int = 1,
        *,
        initial: int = 0,
        ttl: TtlOrDefault = DEFAULT,
        floor: int | None,
    ) -> int | None: ...
    def decr(
        self,
        key: K,
        amount: int = 1,
        *,
        initial: int = 0,
        ttl: TtlOrDefault = DEFAULT,
        floor: int | None = None,
    ) -> int | None:
        """Subtract from an integer: `incr` with the amount negated; None below `floor`.

        >>> store["stock"] = 2
        >>> store.decr("stock", 2, floor=0), store.decr("stock", floor=0), store["stock"]
        (0, None, 0)
        """
        check_int64("amount", amount)
        bounds = UNBOUNDED if floor is None else Bounds(floor=bound("floor", floor))
        return self._increment(key, -amount, initial, ttl, bounds)

    def _increment(
        self, key: K, amount: int, initial: int, ttl: TtlOrDefault, bounds: Bounds
    ) -> int | None:
        if not self._counts:
            self._need("number", "counting")
            self._need("kind", "counting")
        check_int64("amount", amount)
        check_int64("initial", initial)
        row_key = self._keys.row_key(key)
        never = ttl is DEFAULT and self._default_ttl is None
        expires = NEVER if never else self._expires(not_keep(ttl, "a counter"))
        at, furthest = now_ms(self._clock), bounds.furthest(amount)
        before = self._executor.count(row_key, at, amount, *furthest) if furthest else None
        if before is not None:
            self._writes_to_cull -= 1
            if self._writes_to_cull <= 0:
                self._cull(1)
            return before + amount
        version = new_version()
        row = Row(row_key, b"", initial + amount, Kind.INTEGER, version, expires)
        return self._write(row, plans.increment(row, amount, bounds, self._now, at))
