"""KeyValueStore: keys and values of Python over the rows of a table."""

import logging
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from itertools import islice, repeat
from types import TracebackType
from typing import Any, Final, Generic, Literal, ParamSpec, Self, TypeVar, cast, overload

from .. import client as wire
from ..client import Client
from ..exceptions import (
    BatchError,
    HandlerSocketError,
    KeyMismatchError,
    OperationalError,
    OutcomeUnknownError,
    UnsupportedError,
)
from ..manager import Manager
from ..wire.requests import INT64_MAX, INT64_MIN
from . import memo, plans
from .executors import Read, store_executor
from .expiry import DEFAULT, KEEP, Keep, TtlOrDefault, TtlOrKeep, checked, expires_ms, now_ms
from .keys import ReservedKeys, keys_of
from .lease import Lease
from .mapping import MISSING, Missing, TableMapping
from .plans import UNBOUNDED, Bounds, Plan, Progress, Readable
from .ratelimit import Fail, LimiterRows, RateLimiter, StrategyMaker, StrategyName
from .serializers import Serializer
from .table import NEVER, Table
from .values import Kind, KindValues, RawValues, Values
from .verbs import (
    Cells,
    Column,
    Condition,
    Delete,
    DeleteExpired,
    Find,
    Found,
    Insert,
    Outcome,
    Row,
    Scan,
    Update,
    Verb,
    live,
)

K = TypeVar("K", str, bytes, int)
V = TypeVar("V")
T = TypeVar("T")
P = ParamSpec("P")

_log = logging.getLogger("hskv")

_VALUE: Final[tuple[Column, ...]] = ("value", "number", "kind")
_ITEM: Final[tuple[Column, ...]] = ("key", *_VALUE)
_KEYS_PER_REQUEST: Final = 1000
_PAGE_BYTES: Final = 1 << 20
# What comes behind small values may be large ones: more rows would save little.
_PAGE_ROWS: Final = 128
_CHECKS: Final = 20
_CHECK_AGAIN_SECONDS: Final = 0.05
_CULL_EVERY_WRITES: Final = 100
_CULL_AGAIN_WRITES: Final = 10
_CULL_ROWS: Final = 20
# Rows are removed only when other clients' clocks, too, must have passed their end.
_GRACE_MS: Final = 60_000
# A lease may count its holders in its row, which then has to stay.
_NO_LEASE: Final = (Condition("kind", "!=", Kind.LEASE),)

# An own generator, so that seeding the module's one does not repeat versions.
_versions = random.Random()
os.register_at_fork(after_in_child=_versions.seed)
_random_bits: Final = _versions.getrandbits
# A counter's version goes up by 1 and must never wrap.
_VERSION_BITS: Final = 62


class KeyValueStore(TableMapping[K, V]):
    """A dict whose items live in a MariaDB table, shared by every process that opens it.

    `source` is a URL, a `Client` (then left open by `close`), or None for the URL in
    `HSKV_URL`; keyword arguments beat the URL. `table` is a name or a `Table`. `prefix` stands
    before every key in the table: a store sees the keys that begin with it, those of longer
    prefixes included. `key_type` is str (UTF-8), bytes, or int for an integer column.

    Values are bytes, str, int of 64 bits, and whatever `serializer` holds: "json", "msgpack",
    "pickle", or an object with dumps, loads and a kind from 6 to 15. Rows of other serializers
    are read when they are named in `also_read`, those of JSON and msgpack always. Values of
    `compress_min_bytes` and more are compressed by zlib. On a table without a kind column values
    are all of `value_type`, bytes or str, or all go through the serializer.

    `writes="sql"`, with `sql` the servers, has writes go by SQL, `reads="sql"` reads too; `read` is
    "primary", or "replica" for reads that may be a little old: see docs/replication.md.

    `default_ttl` is the ttl of writes that name none: seconds or timedelta, None for ever.
    `clock` gives seconds since the epoch. `cull` lets about every hundredth write, and every
    tenth while there are more, remove 20 rows that expired more than a minute ago. Timeouts and
    `on_request` are as for `Client`.

    Threads may share a store; it may be used after a fork, and pickled. The constructor does no
    I/O. Every method may raise ConnectionError, OperationalError and ProtocolError; a method
    that writes, OutcomeUnknownError too, when the reply to what it sent was lost. What needs a
    column that the table lacks is UnsupportedError.

    >>> store["greeting"] = {"en": "hello"}
    >>> store["greeting"], "farewell" in store
    ({'en': 'hello'}, False)
    """

    @overload
    def __init__(
        self: "KeyValueStore[str, Any]",
        source: str | Client | None = None,
        table: Table | str | None = None,
        *,
        prefix: str | None = None,
        key_type: type[str] = str,
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: "KeyValueStore[bytes, Any]",
        source: str | Client | None = None,
        table: Table | str | None = None,
        *,
        prefix: str | bytes | None = None,
        key_type: type[bytes],
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: "KeyValueStore[int, Any]",
        source: str | Client | None = None,
        table: Table | str | None = None,
        *,
        key_type: type[int],
        **options: Any,
    ) -> None: ...
    def __init__(
        self,
        source: str | Client | None = None,
        table: Table | str | None = None,
        *,
        prefix: str | bytes | None = None,
        key_type: type[str] | type[bytes] | type[int] = str,
        serializer: str | Serializer | None = None,
        also_read: Iterable[str | Serializer] = (),
        value_type: type[bytes] | type[str] | None = None,
        compress_min_bytes: int | None = None,
        default_ttl: TtlOrDefault = DEFAULT,
        clock: Callable[[], float] = time.time,
        cull: bool = True,
        read: Read | None = None,
        **options: Any,
    ) -> None:
        self._arguments: dict[str, Any] = {
            "prefix": prefix,
            "key_type": key_type,
            "serializer": serializer,
            "also_read": tuple(also_read),
            "value_type": value_type,
            "compress_min_bytes": compress_min_bytes,
            "default_ttl": default_ttl,
            "clock": clock,
            "cull": cull,
            "read": read,
        }
        self._source = (source, table, options)
        self._owns_client = not isinstance(source, Client)
        self.client = _client(source, options)
        settings = self.client.settings
        self.table = _table(table, settings.table)
        self.key_type = key_type
        self._clock = clock
        prefix = settings.store.get("prefix", "") if prefix is None else prefix
        self._keys = keys_of(self.table, key_type, prefix)
        self._values = _values(
            self.table,
            serializer or settings.store.get("serializer"),
            self._arguments["also_read"],
            value_type,
            compress_min_bytes,
        )
        self._readable = Readable(self._values.readable, self._values.reads)
        default = settings.store.get("default_ttl") if default_ttl is DEFAULT else default_ttl
        self._default_ttl = checked(default)
        if self._default_ttl is not None:
            self._need("expires", "default_ttl")
        self._executor = store_executor(self.client, self.table, key_type, read)
        self._counts = bool(self.table.number and self.table.kind)
        culls = cull and self.table.expires and self.table.expires_index
        self._writes_to_cull = random.randrange(_CULL_EVERY_WRITES) if culls else float("inf")

    def __repr__(self) -> str:
        prefix = f", prefix {self._keys.prefix!r}" if self._keys.prefix else ""
        return f"<KeyValueStore in {self.table.name} by {self.client!r}{prefix}>"

    def __reduce__(self) -> tuple[Any, ...]:
        source, table, options = self._source
        return _restored, (type(self), source, table, {**self._arguments, **options})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, unless the store was given a Client. Idempotent.

        >>> store.namespace("a:").close()
        """
        if self._owns_client:
            self.client.close()

    def namespace(self, prefix: str | bytes) -> "KeyValueStore[K, V]":
        """A store of those keys that begin with a further prefix, on the same connections.

        >>> users = store.namespace("user:")
        >>> users["ann"] = 1
        >>> store["user:ann"], list(users)
        (1, ['ann'])
        """
        encoded = prefix.encode() if isinstance(prefix, str) else prefix
        arguments = {**self._arguments, "prefix": self._keys.prefix + encoded}
        return cast("KeyValueStore[K, V]", type(self)(self.client, self.table, **arguments))

    def reading(self, read: Read) -> "KeyValueStore[K, V]":
        """The same store, which reads from the "primary", or from a "replica"; on its connections.

        >>> store["a"] = 1
        >>> store.reading("primary")["a"]
        1
        """
        store = object.__new__(type(self))
        store.__dict__ |= self.__dict__
        store._arguments = {**self._arguments, "read": read}
        store._owns_client = False
        store._executor = store_executor(self.client, self.table, self.key_type, read)
        return store

    def row_key(self, key: K) -> bytes:
        """The key as it stands in the table, for `find` and `modify`. No I/O.

        Raises TypeError, KeyTooLongError, and ValueError for a key that no item can have.

        >>> store.namespace("user:").row_key("ann")
        b'user:ann'
        """
        return self._keys.row_key(key)

    def reserved(self, letter: bytes) -> "KeyValueStore[Any, Any]":
        """A store of rows beside the mapping, by names of any length, for what builds on hskv.

        No iteration, `len` or `clear` of any mapping meets them. `letter` tells one use from
        another: b"L" leases, b"C" computations, b"R" rate limits, b"I" invalidations of dogpile,
        b"T" checks.

        >>> versions = store.reserved(b"I")
        >>> versions["a name"] = 1
        >>> versions["a name"], len(store)
        (1, 0)
        """
        store: KeyValueStore[Any, Any] = self.namespace("")
        store._keys = ReservedKeys(self._keys, letter)
        return store

    @property
    def manager(self) -> Manager:
        """A `Manager`, pyhs's API, on the same connections.

        >>> store["a"] = 1
        >>> store.manager.get("hskv", "kv", ["k", "n"], "a")
        [('k', 'a'), ('n', '1')]
        """
        return Manager.over(self.client)

    def get(self, key: K, default: Any = None) -> Any:
        """The value of a key, else the default. One round trip, to the read port.

        >>> store["a"] = 1
        >>> store.get("a"), store.get("b"), store.get("b", 0)
        (1, None, 0)
        """
        rows = self._executor.find_value(self._keys.row_key(key), now_ms(self._clock))
        if not rows:
            return default
        value, number, kind = rows[0]
        return self._values.loads(value, number, kind)  # type: ignore[arg-type]

    def __contains__(self, key: object) -> bool:
        """Is there such a key? Reads no value; one round trip. TypeError for another type."""
        return bool(self._executor.find_kind(self._keys.row_key(key), now_ms(self._clock)))

    def get_versioned(self, key: K) -> tuple[V, int]:
        """The value of a key and its version, for `compare_and_set`. KeyError; one round trip.

        The version is another number after each change of the value.

        >>> store["a"] = 1
        >>> value, version = store.get_versioned("a")
        >>> store.compare_and_set("a", value + 1, version), store["a"]
        (True, 2)
        """
        self._need("version", "get_versioned")
        columns: tuple[Column, ...] = (*_VALUE, "version")
        rows = cast(Found, self._do(Find((self._keys.row_key(key),), columns, live(self._now()))))
        if not rows:
            raise KeyError(key)
        *cells, version = rows[0]
        return self._values.loads(*cells), int(version)

    def set(self, key: K, value: V, ttl: TtlOrKeep = DEFAULT, *, resolve: bool = False) -> None:
        """Store a value, whatever was there; with `KEEP` it expires when the old one would have.

        Atomic for a key that exists (one round trip); a new key takes two, between which it is
        still missing. OutcomeUnknownError carries the `version` that the row would have; with
        `resolve` the row is looked at first, and where it has it the write is known to be done.

        >>> store.set("session", "abc", ttl=1800)
        >>> store.set("session", "def", ttl=hskv.KEEP)
        >>> 1799 < store.ttl("session") <= 1800
        True
        """
        cells = self._cells(self._keys.row_key(key), value, ttl)
        try:
            if ttl is KEEP:
                self._run(plans.keep_row(Row(*cells), self._now))
            elif not self._executor.replace(cells):
                self._run(plans.set_row(Row(*cells), missing=True))
        except OutcomeUnknownError as error:
            row = Row(*cells)
            error.version = row.version
            if not (resolve and self._is_there(row, error)):
                raise
        self._writes_to_cull -= 1
        if self._writes_to_cull <= 0:
            self._cull(1)

    def add(self, key: K, value: V, ttl: TtlOrDefault = DEFAULT) -> bool:
        """Store a value where the key is missing; was it stored? Atomic, one round trip.

        >>> store.add("a", 1), store.add("a", 2), store["a"]
        (True, False, 1)
        """
        row = self._row(key, value, _not_keep(ttl, "add"))
        return self._write(row, plans.add_row(row, self._now))

    def replace(self, key: K, value: V, ttl: TtlOrKeep = DEFAULT) -> bool:
        """Store a value where the key exists; was it stored? Atomic, one round trip.

        >>> store.replace("a", 1), "a" in store
        (False, False)
        """
        row = self._row(key, value, ttl)
        return self._change(row, live(self._now()), ttl)

    def compare_and_set(self, key: K, value: V, version: int, ttl: TtlOrKeep = KEEP) -> bool:
        """Store a value where the key has this version still.

        Was it stored? False too for a key that is gone. Of several clients that know the same
        version one wins. Atomic, one round trip.

        >>> store["a"] = 1
        >>> _, version = store.get_versioned("a")
        >>> store.compare_and_set("a", 2, version), store.compare_and_set("a", 3, version)
        (True, False)
        """
        self._need("version", "compare_and_set")
        _check_int64("version", version)
        row = self._row(key, value, ttl)
        return self._change(row, (Condition("version", "=", version), *live(self._now())), ttl)

    def swap(
        self,
        key: K,
        value: V,
        ttl: TtlOrKeep = DEFAULT,
        *,
        default: V | T | Literal[Missing.MISSING] = MISSING,
    ) -> V | T:
        """Store a value and give the one it replaces, else the default, else KeyError.

        The new one is stored all the same. Atomic: what one client puts in, one gets out. One
        round trip, two where the key is missing. SerializationError for a value that cannot be
        read: then nothing is stored.

        >>> store["a"] = 1
        >>> store.swap("a", 2), store.swap("b", 3, default=None)
        (1, None)
        """
        row = self._row(key, value, ttl)
        plan = plans.swap_row(row, self._readable, self._now, keep=ttl is KEEP)
        old = self._write(row, plan).old
        if old is not None:
            return cast(V, self._values.loads(*old))
        if default is MISSING:
            raise KeyError(key)
        return cast(T, default)

    def setdefault(self, key: K, default: V = None, ttl: TtlOrDefault = DEFAULT) -> V:  # type: ignore[assignment]
        """The value of a key; where it is missing, the default is stored and given.

        Atomic, one round trip.

        >>> store.setdefault("a", 1), store.setdefault("a", 2)
        (1, 1)
        """
        row = self._row(key, default, _not_keep(ttl, "setdefault"))
        found = self._write(row, plans.default_row(row, self._now, _VALUE))
        return default if found is None else cast(V, self._values.loads(*found))

    def delete(self, key: K) -> bool:
        """Remove a key; was it there? Atomic, one round trip.

        >>> store["a"] = 1
        >>> store.delete("a"), store.delete("a")
        (True, False)
        """
        return self._do(Delete((self._keys.row_key(key),), live(self._now()))) == 1

    def touch(self, key: K, ttl: TtlOrDefault = DEFAULT) -> bool:
        """Set when a key expires, leaving its value; was it there? Atomic, one round trip.

        >>> store["a"] = 1
        >>> store.touch("a", ttl=60), store.touch("b", ttl=60)
        (True, False)
        """
        self._need("expires", "touch")
        row_key, where = self._keys.row_key(key), live(self._now())
        expires = self._expires(_not_keep(ttl, "touch"))
        return self._do(Update(row_key, where, ("expires",), (expires,))) == 1

    def ttl(self, key: K) -> float | None:
        """Seconds that a key has left, None for ever. KeyError; one round trip.

        >>> store.set("a", 1)
        >>> print(store.ttl("a"))
        None
        """
        self._need("expires", "ttl")
        verb = Find((self._keys.row_key(key),), ("expires",), live(self._now()))
        rows = cast(Found, self._do(verb))
        if not rows:
            raise KeyError(key)
        expires = int(rows[0][0])
        return None if expires == NEVER else max(expires / 1000 - self._clock(), 0.0)

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """The items of those keys that are there, in the order given.

        One round trip for each 1,000 keys; each of them is one snapshot.

        >>> store.set_many({"a": 1, "b": 2})
        >>> store.get_many(["b", "a", "c"])
        {'b': 2, 'a': 1}
        """
        asked = self._keys.row_keys(keys)
        found: dict[K, V] = {}
        for chunk in _chunks(list(asked)):
            rows = self._executor.find_items(chunk, self._now())
            try:
                found |= self._values.loads_items(cast(Found, rows), asked)
            except KeyError as error:
                raise _another_key(error.args[0]) from None
        return found

    def set_many(
        self, items: Mapping[K, V] | Iterable[tuple[K, V]], ttl: TtlOrDefault = DEFAULT
    ) -> None:
        """Store many values; each as `set` does, the whole not atomically.

        All keys of a mapping are checked before the first value is sent; from an iterator items
        are taken as they are sent. Packets of at most 1,000 rows and about 1 MiB take one round
        trip, two where they hold new keys; of several values for a key the last counts. Raises
        BatchError with `stored`, `failed` and `unknown` keys when it cannot finish (of an
        iterator, those that were taken from it); when nothing was sent, the error itself.

        >>> store.set_many({"a": 1, "b": 2}, ttl=3600)
        >>> store.set_many((f"square:{n}", n * n) for n in range(3))
        >>> len(store)
        5
        """
        ttl = _not_keep(ttl, "set_many")
        self._expires(ttl)
        # Another store is gone through as it is sent: its items may change meanwhile.
        if isinstance(items, Mapping) and not isinstance(items, TableMapping):
            batch: _Batch[K] = _Batch(items)
            packets = self._packets(self._keys.row_keys(items), items.values(), ttl)
        else:
            batch = _Batch()
            taken = batch.taken(items.items() if isinstance(items, Mapping) else items)
            pairs = ((self._keys.row_key(key), value) for key, value in taken)
            packets = plans.packets(self._rows(pairs, ttl))
        try:
            for packet in packets:
                batch.begin(len(packet))
                self._run(plans.set_rows(packet, batch.progress))
                self._after_writes(len(packet))
        except (HandlerSocketError, TypeError, ValueError) as error:
            if not batch.sent:
                raise
            raise batch.error(error) from error

    def delete_many(self, keys: Iterable[K]) -> int:
        """Remove keys; how many were there. One round trip for each 1,000, not atomic as a whole.

        Raises BatchError when it cannot finish; `stored` are then the keys that are gone.

        >>> store.set_many({"a": 1, "b": 2})
        >>> store.delete_many(["a", "b", "c"])
        2
        """
        row_keys = list(self._keys.row_keys(keys))
        batch: _Batch[K] = _Batch(map(self._keys.key, row_keys))
        count = 0
        try:
            for chunk in _chunks(row_keys):
                batch.begin(len(chunk))
                batch.progress.sent = set(range(len(chunk)))
                count += cast(int, self._do(Delete(chunk, live(self._now()))))
                batch.progress.stored = batch.progress.sent
        except OperationalError as error:
            # Those in front of the row that could not be deleted are gone.
            raise batch.error(error, half_done=True) from error
        except HandlerSocketError as error:
            raise batch.error(error) from error
        return count

    def delete_prefix(self, prefix: K) -> int:
        """Remove every key that begins with a prefix; how many were there.

        One round trip for each 1,000. Keys added meanwhile may stay.

        >>> store.set_many({"user:ann": 1, "user:bob": 2, "other": 3})
        >>> store.delete_prefix("user:"), list(store)
        (2, ['other'])
        """
        return self._run(plans.clear_range(*self._keys.range(prefix), self._now))

    def clear(self) -> None:
        """Remove every key of this store (of its prefix); one round trip for each 1,000.

        >>> store["a"] = 1
        >>> store.clear()
        >>> len(store)
        0
        """
        self._run(plans.clear_range(*self._keys.range(), self._now))

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
        bounds = UNBOUNDED if ceiling is None else Bounds(ceiling=_bound("ceiling", ceiling))
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
        _check_int64("amount", amount)
        bounds = UNBOUNDED if floor is None else Bounds(floor=_bound("floor", floor))
        return self._increment(key, -amount, initial, ttl, bounds)

    def get_or_set(self, key: K, factory: Callable[[], V], ttl: TtlOrDefault = DEFAULT) -> V:
        """The value of a key; where it is missing, `factory()` is stored and given.

        One caller among all processes computes, under a lease; the others wait for the value.
        When it fails its error is raised there, and the next in turn computes. One round trip on
        a hit, about five where it is computed.

        >>> store.get_or_set("answer", lambda: 6 * 7, ttl=60)
        42
        """
        self._expires(_not_keep(ttl, "get_or_set"))
        return memo.get_or_set(self, key, factory, _not_keep(ttl, "get_or_set"))

    def memoize(
        self, ttl: TtlOrDefault = DEFAULT, *, key: Callable[..., K] | None = None
    ) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """A decorator that keeps a function's results, computed as by `get_or_set`.

        The key is the function's name and a digest of its arguments, which have to be str, bytes,
        numbers, None, and lists, tuples, dicts and sets of them; or what `key` makes of the
        arguments. The decorated function has `cache_key(*args)`, for `delete`.

        >>> @store.memoize(ttl=60)
        ... def square(n):
        ...     return n * n
        >>> square(3), store.delete(square.cache_key(3))
        (9, True)
        """
        self._expires(_not_keep(ttl, "memoize"))
        return memo.memoize(self, _not_keep(ttl, "memoize"), key)

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
        for column in ("number", "kind", "version", "expires"):
            self._need(cast(Column, column), "a limiter")
        reserved = partial(self._keys.reserved, b"R")
        longest = self.table.key_bytes - len(reserved(b"x")) + 1
        rows = LimiterRows(self._run, reserved, longest, self._after_writes)
        return RateLimiter(rows, name, limit, per, clock=self._clock, strategy=strategy, fail=fail)

    def _lease(self, letter: bytes, name: str | bytes, ttl: float, **options: Any) -> Lease:
        for column in ("number", "kind", "version", "expires"):
            self._need(cast(Column, column), "a lease")
        row_key = self._keys.reserved(letter, name)
        return Lease(self._executor, row_key, ttl, clock=self._clock, **options)

    def scan(
        self, prefix: K | None = None, start: K | None = None, batch: int = 1000
    ) -> Iterator[tuple[K, V]]:
        """Items in key order: of the keys that begin with `prefix`, from `start` on.

        Reads as it goes, in pages of about 1 MiB and at most `batch` (and 128) rows, one round trip
        each; who writes meanwhile does not disturb it: a key that stays is met exactly once.

        >>> store.set_many({"a:1": 1, "a:2": 2, "a:3": 3, "b": 4})
        >>> list(store.scan("a:", start="a:2"))
        [('a:2', 2), ('a:3', 3)]
        """
        if batch < 1:
            raise ValueError(f"batch is a number of rows, not {batch!r}")
        first, end = self._keys.range(prefix)
        if start is not None:
            asked = self._keys.row_key(start)
            # Decimal numbers do not compare as their text does, and have no prefix.
            first = asked if self.key_type is int else max(first, asked)
        return self._scanned(first, end, batch)

    def purge_expired(self, batch: int = 1000, limit: int | None = None) -> int:
        """Remove rows that expired more than a minute ago, of the whole table; how many.

        At most `limit`, `batch` in each round trip: other writers wait for the duration of one.
        Leases are left alone.

        >>> store.purge_expired()
        0
        """
        self._need("expires", "purge_expired")
        if not self.table.expires_index:
            raise UnsupportedError("purge_expired needs an index on the expires column")
        if batch < 1:
            raise ValueError(f"batch is a number of rows, not {batch!r}")
        removed = 0
        while limit is None or removed < limit:
            rows = batch if limit is None else min(batch, limit - removed)
            count = self._purge(rows)
            removed += count
            if count < rows:
                break
        return removed

    def find(
        self,
        operation: str,
        key: Sequence[wire.Value],
        columns: Sequence[str] | None = None,
        *,
        index_name: str | None = None,
        limit: int = 1,
        offset: int = 0,
        in_: tuple[int, Sequence[wire.Value]] | None = None,
        filters: Iterable[wire.Condition] = (),
        while_: Iterable[wire.Condition] = (),
    ) -> list[wire.Row]:
        """Rows of the store's table as they are: `Client.find` without an `Index`.

        `columns` are the table's own names, all that the store uses unless given; the index is
        that of the key. Row keys carry the prefix, and expired rows are found too.

        >>> store["a"] = 1
        >>> store.find("=", ["a"], ["n"])
        [(b'1',)]
        """
        conditions: dict[str, Any] = {"filters": tuple(filters), "while_": tuple(while_)}
        index = self._raw_index(columns, index_name, **conditions)
        conditions["in_"] = in_
        return self.client.find(index, operation, key, limit=limit, offset=offset, **conditions)

    def modify(
        self,
        operation: str,
        key: Sequence[wire.Value],
        modify_operation: str,
        changes: Mapping[str, wire.Value] | None = None,
        *,
        index_name: str | None = None,
        limit: int = 1,
        offset: int = 0,
        in_: tuple[int, Sequence[wire.Value]] | None = None,
        filters: Iterable[wire.Condition] = (),
        while_: Iterable[wire.Condition] = (),
    ) -> int:
        """Change rows of the store's table as they are; how many: `Client.modify`.

        `changes` maps the table's own column names to what is set (U), added (+) or subtracted
        (-); a delete (D) takes none. Nothing is done about versions and expiry.

        >>> store["a"] = 1
        >>> store.modify("=", ["a"], "+", {"n": 4}), store["a"]
        (1, 5)
        """
        columns = list(changes) if changes else None
        conditions: dict[str, Any] = {"filters": tuple(filters), "while_": tuple(while_)}
        index = self._raw_index(columns, index_name, **conditions)
        conditions["in_"] = in_
        values = list((changes or {}).values())
        arguments = (index, operation, key, modify_operation, values)
        return self.client.modify(*arguments, limit=limit, offset=offset, **conditions)

    def check(self) -> None:
        """Write a row, read it and remove it, to see whether the store is set up right.

        Raises what goes wrong: ReadOnlyError for swapped ports, AuthenticationError,
        TableNotFoundError, ColumnNotFoundError; OperationalError when the read port does not see
        what the write port wrote; KeyMismatchError when the key column is narrower than the Table
        says. Three round trips.

        >>> store.check()
        """
        # As wide as keys may be: a narrower column would cut it, and answer for other keys.
        canary = self._keys.reserved(b"T", os.urandom(16)).ljust(self.table.key_bytes, b"\0")
        version = _random_bits(_VERSION_BITS)
        row = Row(canary, b"canary", 0, Kind.BYTES, version, expires_ms(self._clock, 60.0))
        self._do(Insert(row))
        try:
            seen = self._sees(canary, b"canary")
        finally:
            self._do(Delete((canary,)))
        if not seen:
            raise OperationalError(
                "the read port does not see what the write port wrote: do both belong to the same "
                "server, and is autocommit=1 there?"
            )

    def _sees(self, row_key: bytes, value: bytes) -> bool:
        """Whether reads give a value; a replica is waited for."""
        for _ in range(_CHECKS):
            for found, cell, *_ in self._executor.find_items([row_key], now_ms(self._clock)):
                if found != row_key:
                    raise KeyMismatchError(
                        f"the key column of {self.table.name!r} is narrower than key_bytes="
                        f"{self.table.key_bytes}, and cuts keys in silence: one would answer for "
                        "another; make it wider, or give the Table its width"
                    )
                return cell == value
            if self.client.settings.writes != "sql":
                break
            time.sleep(_CHECK_AGAIN_SECONDS)
        return False

    def stats(self) -> dict[str, dict[str, int]]:
        """Counts of the connections: see `Client.stats`. No I/O.

        >>> store.stats()["read"]["waiting"]
        0
        """
        return self.client.stats()

    def _take(self, key: K) -> V | Literal[Missing.MISSING]:
        row = self._run(plans.take_row(self._keys.row_key(key), _VALUE, self._readable, self._now))
        return MISSING if row is None else cast(V, self._values.loads(*row))

    def _take_first(self) -> tuple[K, V] | None:
        plan = plans.take_first(*self._keys.range(), _ITEM, self._readable, self._now)
        row = self._run(plan)
        return None if row is None else (self._keys.key(row[0]), self._values.loads(*row[1:]))

    def _key_pages(self, rows: int) -> Iterator[list[K]]:
        for page in self._pages(("key",), *self._keys.range(), lambda _: rows):
            yield [self._keys.key(row[0]) for row in page]

    def _items(self) -> Iterator[tuple[K, V]]:
        return self._scanned(*self._keys.range(), _KEYS_PER_REQUEST)

    def _scanned(self, start: bytes, end: bytes | None, most: int) -> Iterator[tuple[K, V]]:
        for page in self._pages(_ITEM, start, end, lambda page: next_rows(page, most)):
            rows = deque(page)
            # Values that were given out are let go of before more are read.
            del page
            while rows:
                key, *cells = rows.popleft()
                yield self._keys.key(key), self._values.loads(*cells)
                del cells

    def _pages(
        self,
        columns: tuple[Column, ...],
        start: bytes,
        end: bytes | None,
        rows: Callable[[Found], int],
    ) -> Iterator[Found]:
        """Pages of live rows in key order; `rows` says how many to ask for after the last page."""
        after, limit = False, rows(())
        while True:
            where = live(self._now())
            page = cast(Found, self._do(Scan(start, end, columns, limit, where, after)))
            if len(page) < limit:
                if page:
                    yield page
                return
            start, after, limit = page[-1][0], True, rows(page)
            yield page
            del page

    def _increment(
        self, key: K, amount: int, initial: int, ttl: TtlOrDefault, bounds: Bounds
    ) -> int | None:
        if not self._counts:
            self._need("number", "counting")
            self._need("kind", "counting")
        _check_int64("amount", amount)
        _check_int64("initial", initial)
        row_key = self._keys.row_key(key)
        never = ttl is DEFAULT and self._default_ttl is None
        expires = NEVER if never else self._expires(_not_keep(ttl, "a counter"))
        at, furthest = now_ms(self._clock), bounds.furthest(amount)
        before = self._executor.count(row_key, at, amount, *furthest) if furthest else None
        if before is not None:
            self._writes_to_cull -= 1
            if self._writes_to_cull <= 0:
                self._cull(1)
            return before + amount
        version = _random_bits(_VERSION_BITS)
        row = Row(row_key, b"", initial + amount, Kind.INTEGER, version, expires)
        return self._write(row, plans.increment(row, amount, bounds, self._now, at))

    def _now(self) -> int:
        return now_ms(self._clock)

    def _need(self, column: Column, what: str) -> None:
        if not getattr(self.table, column):
            raise UnsupportedError(
                f"{what} needs the column {column!r}, which the Table does not name"
            )

    def _row(self, key: K, value: object, ttl: TtlOrKeep) -> Row:
        return Row(*self._cells(self._keys.row_key(key), value, ttl))

    def _cells(self, row_key: bytes, value: object, ttl: TtlOrKeep) -> Cells:
        """What a `Row` has, which takes longer to make than all of this."""
        kind, number, data = self._values.dumps(value)
        never = ttl is DEFAULT and self._default_ttl is None
        expires = NEVER if never else self._expires(ttl)
        return row_key, data, number, kind, _random_bits(_VERSION_BITS), expires

    def _packets(
        self, row_keys: Iterable[bytes], values: Iterable[V], ttl: TtlOrDefault
    ) -> Iterator[list[Cells]]:
        """What to send of a mapping; small texts, or bytes, without a look at each of them."""
        keys, rest = iter(row_keys), iter(values)
        while some := list(islice(rest, plans.PACKET_ROWS)):
            theirs = islice(keys, len(some))
            alike = self._values.dumps_alike(some)
            if alike is None:
                yield from plans.packets(self._rows(zip(theirs, some, strict=True), ttl))
                continue
            kind, cells = alike
            versions = map(_random_bits, repeat(_VERSION_BITS, len(cells)))
            same = repeat(0), repeat(kind), versions, repeat(self._expires(ttl))
            yield list(zip(theirs, cells, *same, strict=False))

    def _rows(self, pairs: Iterable[tuple[bytes, V]], ttl: TtlOrDefault) -> Iterator[Cells]:
        dumps = self._values.dumps
        ends = self._expires(ttl) != NEVER
        for row_key, value in pairs:
            kind, number, data = dumps(value)
            expires = self._expires(ttl) if ends else NEVER
            yield row_key, data, number, kind, _random_bits(_VERSION_BITS), expires

    def _expires(self, ttl: TtlOrKeep) -> int:
        seconds = self._default_ttl if ttl in (DEFAULT, KEEP) else checked(ttl)
        if seconds is not None:
            self._need("expires", "ttl")
        return expires_ms(self._clock, seconds)

    def _change(self, row: Row, where: tuple[Condition, ...], ttl: TtlOrKeep) -> bool:
        columns, cells = row.content() if ttl is KEEP else row.changes()
        try:
            changed = self._do(Update(row.key, where, columns, cells)) == 1
        except OutcomeUnknownError as error:
            error.version = row.version
            raise
        self._after_writes(1)
        return changed

    def _is_there(self, row: Row, error: OutcomeUnknownError) -> bool:
        """True when the table holds the row whose reply was lost."""
        if not self.table.version:
            return False
        try:
            found = cast(Found, self._do(Find((row.key,), ("version",))))
        except HandlerSocketError as again:
            error.add_note(f"the row could not be looked at either: {again}")
            return False
        return any(int(version) == row.version for (version,) in found)

    def _do(self, verb: Verb) -> Outcome:
        """Carry out one verb; raises what the server said against it."""
        (outcome,) = self._executor.execute([verb])
        if isinstance(outcome, OperationalError):
            raise outcome
        return outcome

    def _write(self, row: Row, plan: Plan[T]) -> T:
        try:
            result = self._run(plan)
        except OutcomeUnknownError as error:
            error.version = row.version
            raise
        self._after_writes(1)
        return result

    def _run(self, plan: Plan[T]) -> T:
        """Drive a plan; a broken connection never enters it."""
        try:
            verbs = next(plan)
            while True:
                verbs = plan.send(self._executor.execute(verbs))
        except StopIteration as done:
            return cast(T, done.value)
        finally:
            plan.close()

    def _after_writes(self, count: int) -> None:
        # Threads may lose a count between them, which does no harm.
        self._writes_to_cull -= count
        if self._writes_to_cull <= 0:
            self._cull(count)

    def _cull(self, count: int) -> None:
        """Remove a few expired rows after about every hundredth write, so that space comes free.

        After every tenth while there are more.
        """
        self._writes_to_cull = _CULL_AGAIN_WRITES
        if self.client.stats()["write"]["waiting"]:
            # The writer need not wait for a connection with those who have yet to write.
            return
        rows = max(_CULL_ROWS, 2 * count)
        try:
            removed = self._purge(rows)
        except HandlerSocketError as error:
            # The write itself is done.
            _log.warning("expired rows could not be culled: %s", error)
            removed = 0
        # Where all writes are new keys that expire, two must go for each that comes.
        self._writes_to_cull = _CULL_AGAIN_WRITES if removed == rows else _CULL_EVERY_WRITES

    def _purge(self, rows: int) -> int:
        where = _NO_LEASE if self.table.kind else ()
        return cast(int, self._do(DeleteExpired(self._now() - _GRACE_MS, rows, where)))

    def _raw_index(
        self,
        columns: Sequence[str] | None,
        index_name: str | None,
        filters: Sequence[wire.Condition],
        while_: Sequence[wire.Condition],
    ) -> wire.Index:
        if columns is None:
            columns = self.table.columns()
        named = dict.fromkeys(wire.checked_condition(one)[0] for one in (*filters, *while_))
        return self.client.open(
            self.table.name,
            columns,
            index_name=index_name or self.table.index,
            filter_columns=tuple(named),
            database=self.table.database,
        )


class _Batch(Generic[K]):
    """How far a batch got: keys that wait, those of the packet under way, those that are done."""

    def __init__(self, keys: Iterable[K] = ()) -> None:
        self.progress = Progress()
        self.sent = False
        self._keys: list[Any] = list(keys)
        self._begun = self._end = 0

    def taken(self, items: Iterable[tuple[K, V]]) -> Iterator[tuple[K, V]]:
        """The items, whose keys are counted in as they are taken."""
        for key, value in items:
            self._keys.append(key)
            yield key, value

    def begin(self, count: int) -> None:
        """The next so many keys are about to be sent; those before are done."""
        self._begun, self._end = self._end, self._end + count
        self.progress = Progress()
        self.sent = True

    def error(self, error: Exception, *, half_done: bool = False) -> BatchError:
        """What to raise when the batch cannot go on for an error.

        `half_done`: the request that failed may have done a part of what it was sent for.
        """
        unknown_outcome = half_done or isinstance(error, OutcomeUnknownError)
        sent = self.progress.sent if unknown_outcome else set()
        stored, failed, unknown = self._keys[: self._begun], list[Any](), list[Any]()
        for position, key in enumerate(self._keys[self._begun : self._end]):
            if position in self.progress.stored:
                stored.append(key)
            else:
                (unknown if position in sent else failed).append(key)
        failed += self._keys[self._end :]
        return BatchError(
            f"the batch could not be finished ({len(stored)} stored, {len(failed)} failed, "
            f"{len(unknown)} unknown): {error}",
            stored=tuple(stored),
            failed=tuple(failed),
            unknown=tuple(unknown),
        )


@overload
def connect(
    url: str | None = None,
    table: Table | str | None = None,
    *,
    key_type: type[str] = str,
    **options: Any,
) -> KeyValueStore[str, Any]: ...
@overload
def connect(
    url: str | None = None,
    table: Table | str | None = None,
    *,
    key_type: type[bytes],
    **options: Any,
) -> KeyValueStore[bytes, Any]: ...
@overload
def connect(
    url: str | None = None,
    table: Table | str | None = None,
    *,
    key_type: type[int],
    **options: Any,
) -> KeyValueStore[int, Any]: ...
def connect(
    url: str | None = None, table: Table | str | None = None, **options: Any
) -> KeyValueStore[Any, Any]:
    """Open a store: the same as `KeyValueStore(url, table, ...)`.

    >>> with hskv.connect(url) as other:
    ...     other["a"] = 1
    >>> store["a"]
    1
    """
    return KeyValueStore(url, table, **options)


def _restored(
    kind: type[KeyValueStore[Any, Any]], source: Any, table: Any, options: dict[str, Any]
) -> KeyValueStore[Any, Any]:
    return kind(source, table, **options)


def _client(source: str | Client | None, options: Mapping[str, Any]) -> Client:
    if isinstance(source, Client):
        if options:
            raise TypeError(f"{', '.join(options)}: set these on the Client that was given")
        return source
    return Client(source, **options)


def _table(table: Table | str | None, name: str | None) -> Table:
    if isinstance(table, Table):
        return table
    return Table(table or name or "kv")


def _values(
    table: Table,
    serializer: str | Serializer | None,
    also_read: tuple[str | Serializer, ...],
    value_type: type | None,
    compress_min_bytes: int | None,
) -> Values:
    if table.kind:
        if value_type is not None:
            raise ValueError("value_type is for tables without a kind column")
        return KindValues(table, serializer or "json", also_read, compress_min_bytes)
    if also_read or compress_min_bytes is not None:
        raise UnsupportedError("also_read and compress_min_bytes need a kind column")
    return RawValues(table, value_type, serializer)


def _not_keep(ttl: TtlOrKeep, what: str) -> TtlOrDefault:
    if isinstance(ttl, Keep):
        raise ValueError(f"{what} has no expiry to keep: give seconds, None or DEFAULT")
    return ttl


def _check_int64(name: str, value: int) -> None:
    if type(value) is int and INT64_MIN <= value <= INT64_MAX:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is an int, not {type(value).__name__}")
    if not INT64_MIN <= value <= INT64_MAX:
        raise OverflowError(f"{name} is beyond 64 bits: {value}")


def _bound(name: str, value: int) -> int:
    """A bound as 64 bits hold it: one beyond them never holds a counter back."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is an int, not {type(value).__name__}")
    return min(max(value, INT64_MIN), INT64_MAX)


def _another_key(row_key: bytes | None) -> KeyMismatchError:
    return KeyMismatchError(
        f"the server answered for the key {row_key!r}, which was not asked for: the key column is "
        "not VARBINARY, or the reply was damaged on its way"
    )


def _chunks(keys: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(keys), _KEYS_PER_REQUEST):
        yield keys[start : start + _KEYS_PER_REQUEST]


def next_rows(page: Found, most: int) -> int:
    """How many rows to ask for after a page: begins with one, so that large ones do no harm."""
    if not page:
        return 1
    average = max(sum(len(row[1]) for row in page) // len(page), 1)
    return max(min(most, _PAGE_ROWS, 8 * len(page), _PAGE_BYTES // average), 1)
