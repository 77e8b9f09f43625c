"""dogpile.cache on a MariaDB table: `make_region().configure("hskv", arguments={"url": ...})`.

Cached values are rows of a `KeyValueStore`, locks are leases in the same table, where no key of the
cache can be; so is the time of the last invalidation. Locks: `_Invalidation._lock` is
never held across I/O.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeVar

from dogpile.cache.api import NO_VALUE, BytesBackend, CacheMutex
from dogpile.cache.api import NoValue as DogpileNoValue
from dogpile.cache.region import CacheRegion, RegionInvalidationStrategy

from ..exceptions import HandlerSocketError, LeaseLostError, UnsupportedError
from ..store.lease import Lease
from ..store.outage import Need, Outage
from ..store.plans import ROUNDS, contention
from ..store.store import KeyValueStore
from .arguments import fitted_keys, flag, open_store

__all__ = ["HandlerSocketBackend", "HandlerSocketInvalidator"]

T = TypeVar("T")

_log = logging.getLogger("hskv")

_Times = tuple[float, float]
"""When a region was invalidated last, hard and soft, in seconds since the epoch; 0 for never."""

_NEVER: Final[_Times] = (0.0, 0.0)
_DEFAULT_PREFIX: Final = "dogpile:"
_DEFAULT_LOCK_TIMEOUT_SECONDS: Final = 30.0


class _LockOptions(NamedTuple):
    """What the redis backend calls the same."""

    timeout: float
    sleep: float
    blocking: bool
    blocking_timeout: float | None
    prefix: str


class HandlerSocketBackend(BytesBackend):
    """A backend of dogpile.cache, in which a region's values outlive processes and crashes.

    Arguments, each of which may come as a string:

    - `url`: as for `KeyValueStore`, `HSKV_URL` unless given; `table`, and the connection's
      `secret`, `write_secret`, `secret_file`, `write_secret_file`, `timeout`, `connect_timeout`,
      `pool_size`, `pool_timeout` beat it.
    - `prefix`: of the rows in the table, "dogpile:" unless given. Keys that do not fit are hashed.
    - `hskv_expiration_time`: seconds after which a value is gone for good, 0 for never; should be
      longer than the region's own expiration_time.
    - `distributed_lock`: one creator among all processes, by a lease. With it `lock_timeout`
      (30 s: a holder that died delays others by so much), `lock_sleep` (0.1 s), `lock_blocking`,
      `lock_blocking_timeout` and `lock_prefix`, as in dogpile's redis backend.
    - `ignore_errors`: an unreachable server is a miss, and what is set is lost; it is logged, and
      counted in the attribute `errors`. It is asked again after a second at first and ten at most,
      so that only those calls wait for it. Off unless given.

    Others are ignored. The constructor does no I/O; raises ValueError for what cannot be meant.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.store: KeyValueStore[bytes, Any] = open_store(arguments, _DEFAULT_PREFIX)
        self._fitted = fitted_keys(self.store)
        self._ttl = float(arguments.get("hskv_expiration_time") or 0) or None
        is_ignored = flag(arguments.get("ignore_errors", False))
        self._outage = Outage() if is_ignored else None
        self.errors = 0
        self._lock_options = _lock_options(arguments)

    def __repr__(self) -> str:
        return f"<HandlerSocketBackend over {self.store!r}>"

    def get_serialized(self, key: str) -> bytes | Literal[DogpileNoValue.NO_VALUE]:
        """The bytes of a key. One round trip."""
        if self._outage is None:
            value = self.store.get(self._fitted(key), NO_VALUE)
        else:
            value = self.safely(
                lambda: self.store.get(self._fitted(key), NO_VALUE), NO_VALUE, Need.VALUES
            )
        # Of another writer: a region could not read it.
        return value if isinstance(value, bytes) else NO_VALUE

    def get_serialized_multi(
        self, keys: Iterable[str]
    ) -> Sequence[bytes | Literal[DogpileNoValue.NO_VALUE]]:
        """The bytes of several keys, in their order. One round trip for each 1,000."""
        row_keys = [self._fitted(key) for key in keys]
        nothing: dict[bytes, Any] = {}
        found = self.safely(lambda: self.store.get_many(row_keys), nothing, Need.VALUES)
        values = [found.get(key) for key in row_keys]
        return [value if isinstance(value, bytes) else NO_VALUE for value in values]

    def set_serialized(self, key: str, value: bytes) -> None:
        """Store bytes. One round trip, two for a new key."""
        self.safely(lambda: self.store.set(self._fitted(key), value, self._ttl), None)

    def set_serialized_multi(self, mapping: Mapping[str, bytes]) -> None:
        """Store several, not atomically. One round trip for each 1,000, two with new keys."""
        items = {self._fitted(key): value for key, value in mapping.items()}
        self.safely(lambda: self.store.set_many(items, self._ttl), None)

    def delete(self, key: str) -> None:
        """Remove a key, if it is there. One round trip."""
        self.safely(lambda: self.store.delete(self._fitted(key)), False)

    def delete_multi(self, keys: Iterable[str]) -> None:
        """Remove several keys. One round trip for each 1,000."""
        row_keys = [self._fitted(key) for key in keys]
        self.safely(lambda: self.store.delete_many(row_keys), 0)

    def get_mutex(self, key: str) -> "CacheMutex | None":
        """A lock among all processes, with `distributed_lock`; else None: dogpile's own."""
        if self._lock_options is None:
            return None
        name = (self._lock_options.prefix + key).encode("utf-8", "surrogatepass")
        options = self._lock_options
        lease = self.store.lease(name, options.timeout, poll=options.sleep)
        return _Mutex(lease, options, self.safely)

    def has_lock_timeout(self) -> bool:
        """True where locks end by themselves."""
        return self._lock_options is not None

    def close(self) -> None:
        """Close the connections; dogpile itself does not, so a forgotten backend does."""
        self.store.close()

    def __del__(self) -> None:
        # The constructor may have failed before.
        if "store" in self.__dict__:
            self.store.close()

    def safely(self, action: Callable[[], T], otherwise: T, need: Need = Need.WRITE) -> T:
        """What the action, which needs so much, gives.

        With `ignore_errors`, something else where hskv fails.
        """
        if self._outage is None:
            return action()
        if self._outage.reason(need):
            self.errors += 1
            return otherwise
        try:
            result = action()
        except HandlerSocketError as error:
            self._outage.failed(error, need)
            self.errors += 1
            _log.warning("the cache goes on without the table: %s", error)
            return otherwise
        self._outage.ended(need)
        return result


class _Mutex(CacheMutex):
    """A lease as dogpile wants a lock; any thread may release it."""

    def __init__(
        self,
        lease: Lease,
        options: _LockOptions,
        safely: Callable[..., bool],
    ) -> None:
        self._lease = lease
        self._options = options
        self._safely = safely

    def acquire(self, wait: bool = True) -> bool:
        """Take the lock; False when it is not to be had, or not in time."""
        patience: bool | float = wait and self._options.blocking
        if patience and self._options.blocking_timeout is not None:
            patience = self._options.blocking_timeout
        return self._safely(lambda: self._lease.acquire(patience), False)

    def release(self) -> None:
        """Give it back. Never raises: dogpile would lose the value that was made under it."""
        try:
            self._lease.release()
        except RuntimeError:
            # dogpile calls it also where acquire gave up waiting.
            _log.info("%r was released without being held", self._lease)
        except LeaseLostError:
            _log.warning("%r ended before it was released: raise lock_timeout", self._lease)
        except HandlerSocketError as error:
            _log.warning("%r could not be released, it ends by itself: %s", self._lease, error)

    def locked(self) -> bool:
        """True while anybody holds it."""
        return self._safely(self._lease.locked, False, Need.PRIMARY)


class HandlerSocketInvalidator(RegionInvalidationStrategy):
    """Lets `region.invalidate()` reach every process that uses the same backend table.

    `region = make_region(); region.configure("hskv", ..., region_invalidator=
    HandlerSocketInvalidator(region))`. Regions with the same `name` and prefix are invalidated
    together. Others see it after at most `max_age` seconds, for which the time of the last
    invalidation is kept in memory: one more round trip in so many. Where the server cannot be
    reached and the backend ignores errors, what was known last holds, and what this process
    invalidated meanwhile is told to others when the server is back.
    """

    def __init__(self, region: CacheRegion, name: str = "region", max_age: float = 1.0) -> None:
        self._region = region
        self._name = name
        self._max_age = max_age
        self._lock = threading.Lock()
        self._known: _Times = _NEVER
        self._known_until = 0.0
        self._untold: _Times | None = None
        self._rows: KeyValueStore[Any, Any] | None = None

    def invalidate(self, hard: bool = True) -> None:
        """Everything older than now is invalid. Two round trips."""
        now = time.time()
        with self._lock:
            self._untold = _merged(self._untold or _NEVER, (now, 0.0) if hard else (0.0, now))
        self._know(self._told(self._backend()))

    def was_hard_invalidated(self) -> bool:
        """True where it was ever invalidated by a hard one."""
        return self._times()[0] > 0

    def is_hard_invalidated(self, timestamp: float) -> bool:
        """True where there was a hard one later than this."""
        return timestamp < self._times()[0]

    def was_soft_invalidated(self) -> bool:
        """True where a soft one came after the last hard one."""
        return self._times()[1] > 0

    def is_soft_invalidated(self, timestamp: float) -> bool:
        """True where there was a soft one later than this."""
        return timestamp < self._times()[1]

    def is_invalidated(self, timestamp: float) -> bool:
        """True where there was an invalidation later than this."""
        return timestamp < max(self._times())

    def _times(self) -> _Times:
        if time.monotonic() >= self._known_until:
            self._know(self._told(self._backend()))
        return self._known

    def _told(self, backend: HandlerSocketBackend) -> _Times:
        """What the table says, once it was told what this process has yet to tell."""

        def tell() -> _Times:
            kept = self._kept(backend)
            for _ in range(ROUNDS):
                found, version = _found(kept, self._name)
                untold = self._untold
                times = _merged(found, untold or _NEVER)
                if untold is None or _replaced(kept, self._name, times, version):
                    self._forget(untold)
                    return times
            raise contention()

        untold = self._untold
        otherwise = _merged(self._known, untold or _NEVER)
        return backend.safely(tell, otherwise, Need.WRITE if untold else Need.PRIMARY)

    def _forget(self, told: _Times | None) -> None:
        with self._lock:
            # Unless there was another meanwhile.
            if self._untold is told:
                self._untold = None

    def _kept(self, backend: HandlerSocketBackend) -> KeyValueStore[Any, Any]:
        if self._rows is None or self._rows.client is not backend.store.client:
            self._rows = backend.store.reserved(b"I")
        return self._rows

    def _know(self, times: _Times) -> None:
        with self._lock:
            self._known = times
            self._known_until = time.monotonic() + self._max_age

    def _backend(self) -> HandlerSocketBackend:
        backend = self._region.actual_backend
        if not isinstance(backend, HandlerSocketBackend):
            raise UnsupportedError("HandlerSocketInvalidator needs a region on the backend 'hskv'")
        return backend


def _found(kept: KeyValueStore[Any, Any], name: str) -> tuple[_Times, int | None]:
    try:
        (hard, soft), version = kept.get_versioned(name)
    except KeyError:
        return _NEVER, None
    return (hard, soft), version


def _replaced(kept: KeyValueStore[Any, Any], name: str, times: _Times, version: int | None) -> bool:
    """Store it, unless another was first."""
    if version is None:
        return kept.add(name, [*times])
    return kept.compare_and_set(name, [*times], version)


def _merged(one: _Times, other: _Times) -> _Times:
    """The later of both, so that no clock that is behind takes back what another invalidated."""
    hard, soft = max(one[0], other[0]), max(one[1], other[1])
    # A hard one leaves nothing for an earlier soft one to say.
    return hard, soft if soft > hard else 0.0


def _lock_options(arguments: Mapping[str, Any]) -> _LockOptions | None:
    if not flag(arguments.get("distributed_lock", False)):
        return None
    blocking_timeout = arguments.get("lock_blocking_timeout")
    return _LockOptions(
        timeout=float(arguments.get("lock_timeout") or _DEFAULT_LOCK_TIMEOUT_SECONDS),
        sleep=float(arguments.get("lock_sleep") or 0.1),
        blocking=flag(arguments.get("lock_blocking", True)),
        blocking_timeout=None if blocking_timeout is None else float(blocking_timeout),
        prefix=str(arguments.get("lock_prefix") or "_lock"),
    )
