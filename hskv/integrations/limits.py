"""Storage for the `limits` package, and so for Flask-Limiter and others: import this, use "hskv://".

Counters of fixed windows are rows of a `KeyValueStore`, so are the times of moving windows, each
changed by compare-and-set; sliding windows are those of `RateLimiter`. All of them are exact
whatever processes do at the same time.
"""

import random
import time
from functools import lru_cache
from struct import Struct
from typing import Any, ClassVar, Final

from limits.storage import MovingWindowSupport, SlidingWindowCounterSupport, Storage

from ..exceptions import ContentionError, HandlerSocketError
from ..store.ratelimit import RateLimiter
from ..store.store import KeyValueStore
from ..store.strategies import SlidingWindow
from .arguments import fitted_keys, open_store

__all__ = ["HandlerSocketStorage"]

_DEFAULT_PREFIX: Final = "limits:"
_LIMITER: Final = "limits"
# No key of a counter begins so.
_MOVING: Final = b"\xfe"
_TIME: Final = Struct(">d")
_CONTENTION_SECONDS: Final = 5.0
_LONGEST_PAUSE_SECONDS: Final = 0.005


class RoundedDown(SlidingWindow):
    """Counts as `limits` does: what `test` allows and `get_window_stats` has left, a hit gets."""

    def _weight(self, before: int, window: int, at: int) -> int:
        return before * self._left(window, at) // self._per


class HandlerSocketStorage(Storage, MovingWindowSupport, SlidingWindowCounterSupport):
    """A storage of `limits`, of the schemes "hskv" and "hskv+unix".

    `storage_from_string("hskv://:secret@host:9998,9999/database/table", **options)`; the URI and
    the options `secret`, `write_secret`, `secret_file`, `write_secret_file`, `timeout`,
    `connect_timeout`, `pool_size`, `pool_timeout`, `table` are those of `KeyValueStore`, and may
    all be text. `prefix` stands before the keys in the table, "limits:" unless given. With
    `wrap_exceptions` errors of hskv come as `limits.errors.StorageError`. No I/O before it is used.

    Fixed window: one round trip for a hit; two for the first of a window. Sliding window: as
    `RateLimiter`, but that the part of the older window is rounded down, as `limits` does. Moving
    window: two, and more where others hit the same key; a row holds the times of all hits that
    count, eight bytes each, so it is for small limits.
    """

    STORAGE_SCHEME: ClassVar[list[str]] = ["hskv", "hskv+unix"]  # type: ignore[misc]

    def __init__(
        self, uri: str | None = None, wrap_exceptions: bool = False, **options: Any
    ) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        arguments = {**options, "url": uri}
        self.store: KeyValueStore[bytes, Any] = open_store(arguments, _DEFAULT_PREFIX)
        self._fitted = fitted_keys(self.store, len(_MOVING))
        # What a limiter remembers of a window saves a round trip.
        self._limiter = lru_cache(maxsize=1024)(self._new_limiter)

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        """What `wrap_exceptions` wraps."""
        return HandlerSocketError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count; the new value. A counter that is made ends after `expiry` seconds. Atomic."""
        return self.store.incr(self._fitted(key), amount, ttl=expiry)

    def get(self, key: str) -> int:
        """The value of a counter, 0 where there is none. One round trip."""
        return int(self.store.get(self._fitted(key), 0))

    def get_expiry(self, key: str) -> float:
        """When a counter ends, in seconds since the epoch; now where there is none."""
        try:
            left = self.store.ttl(self._fitted(key))
        except KeyError:
            left = 0.0
        return time.time() + (left or 0.0)

    def check(self) -> bool:
        """Does the table answer? Never raises."""
        try:
            self.store.check()
        except HandlerSocketError:
            return False
        return True

    def reset(self) -> int | None:
        """Remove every count under the prefix; how many."""
        return self.store.delete_prefix(b"") + self._limiter(1, 1).clear()

    def clear(self, key: str) -> None:
        """Forget a fixed or a moving window. Two round trips."""
        self.store.delete(self._fitted(key))
        self.store.delete(self._moving(key))

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Hit a moving window, if it has room: fewer than `limit` in the last `expiry` seconds."""
        if amount > limit:
            return False
        row = self._moving(key)
        deadline = time.monotonic() + _CONTENTION_SECONDS
        while time.monotonic() < deadline:
            now = time.time()
            times, version = self._times(row, now - expiry)
            if len(times) + amount > limit:
                return False
            packed = b"".join(map(_TIME.pack, [*times, *[now] * amount]))
            if version is None:
                if self.store.add(row, packed, ttl=expiry):
                    return True
            elif self.store.compare_and_set(row, packed, version, ttl=expiry):
                return True
            time.sleep(random.uniform(0, _LONGEST_PAUSE_SECONDS))
        raise ContentionError(
            f"others hit this key for {_CONTENTION_SECONDS} s without a break; nothing was "
            "counted: use a sliding window for keys that are hit this often"
        )

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """The time of the oldest hit that counts, now where there is none, and how many."""
        now = time.time()
        times, _ = self._times(self._moving(key), now - expiry)
        return min(times, default=now), len(times)

    def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Hit a sliding window, if its estimate has room. Atomic, one round trip for most."""
        if amount > limit:
            return False
        return self._limiter(limit, expiry).hit(key, amount).allowed

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Both counts of a sliding window, each with how many seconds it still counts."""
        return self._limiter(1, expiry).counts(key)

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget a sliding window. One round trip."""
        self._limiter(1, expiry).reset(key)

    def _new_limiter(self, limit: int, expiry: int) -> RateLimiter:
        return self.store.limiter(_LIMITER, limit, expiry, RoundedDown)

    def _moving(self, key: str) -> bytes:
        return _MOVING + self._fitted(key)

    def _times(self, row: bytes, since: float) -> tuple[list[float], int | None]:
        """The times of hits later than this, and the version of the row."""
        try:
            packed, version = self.store.get_versioned(row)
        except KeyError:
            return [], None
        return [at for (at,) in _TIME.iter_unpack(packed) if at > since], version
