"""KeyValueStore: keys and values of Python over the rows of a table."""

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar, cast, overload

from ..client import Client
from ..exceptions import (
    BatchError,
    HandlerSocketError,
    KeyTooLongError,
    OperationalError,
    OutcomeUnknownError,
    SerializationError,
    ValueTooLargeError,
)
from ..wire.requests import INT64_MAX, INT64_MIN
from . import plans
from .expiry import DEFAULT, TtlOrDefault, checked, expires_ms, now_ms
from .handlersocket import HandlerSocketExecutor
from .mapping import MISSING, Missing, TableMapping
from .plans import PACKET_ROWS, Bounds, Plan, Progress
from .table import NEVER, Table
from .values import Kind, Stored, dumps, loads
from .verbs import Column, Condition, Delete, Find, Found, Outcome, Row, Scan, Update, Verb, live

K = TypeVar("K", str, bytes)
V = TypeVar("V")
T = TypeVar("T")

_VALUE: Final[tuple[Column, ...]] = ("value", "number", "kind")
_ITEM: Final[tuple[Column, ...]] = ("key", *_VALUE)
_ITEM_PAGE_ROWS: Final = 200
_READABLE: Final = Condition("kind", "<=", max(Kind))
# Keys from NUL on are reserved for rows that are no items of any mapping.
_FIRST_KEY: Final = b"\x01"

# An own generator, so that seeding the module's one does not repeat versions.
_versions = random.Random()
os.register_at_fork(after_in_child=_versions.seed)


class KeyValueStore(TableMapping[K, V]):
    """A dict whose items live in a MariaDB table, shared by every process that opens it.

    `source` is a URL, a `Client` (then left open by `close`), or None for the URL in
    `HSKV_URL`; keyword arguments beat the URL. `prefix` stands before every key in the table:
    a store sees the keys that begin with it, those of longer prefixes included. `key_type` is
    str (UTF-8) or bytes. `default_ttl` is the ttl of writes that name none: seconds or
    timedelta, None for ever. `clock` gives seconds since the epoch. Timeouts are in seconds,
    as for `Client`.

    Values are bytes, str, int, or what JSON holds. Threads may share a store; it may be used
    after a fork, and pickled. The constructor does no I/O. Every method may raise
    ConnectionError, OperationalError and ProtocolError; a method that writes,
    OutcomeUnknownError too, when the reply to what it sent was lost.
    """

    @overload
    def __init__(
        self: "KeyValueStore[str, Any]",
        source: str | Client | None = None,
        table: Table | str | None = None,
        *,
        prefix: str | None = None,
        key_type: type[str] = str,
        default_ttl: TtlOrDefault = DEFAULT,
        clock: Callable[[], float] = time.time,
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
        default_ttl: TtlOrDefault = DEFAULT,
        clock: Callable[[], float] = time.time,
        **options: Any,
    ) -> None: ...
    def __init__(
        self,
        source: str | Client | None = None,
        table: Table | str | None = None,
        *,
        prefix: str | bytes | None = None,
        key_type: type[str] | type[bytes] = str,
        default_ttl: TtlOrDefault = DEFAULT,
        clock: Callable[[], float] = time.time,
        **options: Any,
    ) -> None:
        arguments = {"prefix": prefix, "key_type": key_type, "default_ttl": default_ttl}
        self._arguments = (source, table, {**arguments, "clock": clock, **options})
        self._owns_client = not isinstance(source, Client)
        self.client = _client(source, options)
        settings = self.client.settings
        self.table = _table(table, settings.table)
        self._clock = clock
        self._key_type = _key_type(key_type)
        self._prefix = _prefix(settings.store.get("prefix", "") if prefix is None else prefix)
        self._key_bytes = self.table.key_bytes
        if len(self._prefix) >= self._key_bytes:
            raise KeyTooLongError(
                f"the prefix has {len(self._prefix)} bytes, the key column {self._key_bytes}"
            )
        default = settings.store.get("default_ttl") if default_ttl is DEFAULT else default_ttl
        self._default_ttl = checked(default)
        self._executor = HandlerSocketExecutor(self.client, self.table)

    def __repr__(self) -> str:
        prefix = f", prefix {self._prefix!r}" if self._prefix else ""
        return f"<KeyValueStore in {self.table.name} by {self.client!r}{prefix}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), *self._arguments)

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
        """Close the connections, unless the store was given a Client. Idempotent."""
        if self._owns_client:
            self.client.close()

    def get(self, key: K, default: Any = None) -> Any:
        """The value of a key, else the default. One round trip, to the read port."""
        rows = self._executor.find_value(self._row_key(key), now_ms(self._clock))
        return loads(*rows[0]) if rows else default  # type: ignore[arg-type]

    def __contains__(self, key: object) -> bool:
        """Is there such a key? Reads no value; one round trip. TypeError for another type."""
        return bool(self._executor.find_kind(self._row_key(key), now_ms(self._clock)))

    def set(self, key: K, value: V, ttl: TtlOrDefault = DEFAULT) -> None:
        """Store a value, whatever was there.

        Atomic for a key that exists (one round trip); a new key takes two, between which it is
        still missing. OutcomeUnknownError carries the `version` that the row would have.
        """
        row = self._row(key, value, ttl)
        self._write(row, plans.set_row(row))

    def add(self, key: K, value: V, ttl: TtlOrDefault = DEFAULT) -> bool:
        """Store a value where the key is missing; was it stored? Atomic, one round trip."""
        row = self._row(key, value, ttl)
        return self._write(row, plans.add_row(row, self._now))

    def replace(self, key: K, value: V, ttl: TtlOrDefault = DEFAULT) -> bool:
        """Store a value where the key exists; was it stored? Atomic, one round trip."""
        row = self._row(key, value, ttl)
        try:
            return self._do(Update(row.key, live(self._now()), *row.changes())) == 1
        except OutcomeUnknownError as error:
            error.version = row.version
            raise

    def setdefault(self, key: K, default: V = None) -> V:  # type: ignore[assignment]
        """The value of a key; where it is missing, the default is stored and given.

        Atomic, one round trip.
        """
        row = self._row(key, default, DEFAULT)
        found = self._write(row, plans.default_row(row, self._now, _VALUE))
        return default if found is None else loads(*found)

    def delete(self, key: K) -> bool:
        """Remove a key; was it there? Atomic, one round trip."""
        return self._do(Delete((self._row_key(key),), live(self._now()))) == 1

    def touch(self, key: K, ttl: TtlOrDefault = DEFAULT) -> bool:
        """Set when a key expires, leaving its value; was it there? Atomic, one round trip."""
        row_key, where = self._row_key(key), live(self._now())
        return self._do(Update(row_key, where, ("expires",), (self._expires(ttl),))) == 1

    def ttl(self, key: K) -> float | None:
        """Seconds that a key has left, None for ever. KeyError; one round trip."""
        rows = cast(Found, self._do(Find((self._row_key(key),), ("expires",), live(self._now()))))
        if not rows:
            raise KeyError(key)
        expires = int(rows[0][0])
        return None if expires == NEVER else max(expires / 1000 - self._clock(), 0.0)

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """The items of those keys that are there, in the order given.

        One round trip for each 1,000 keys; each of them is one snapshot.
        """
        found: dict[K, V] = {}
        for chunk in _chunks(self._row_keys(keys)):
            where = live(self._now())
            for row in cast(Found, self._do(Find(chunk, _ITEM, where))):
                found[self._key(row[0])] = loads(*row[1:])
        return found

    def set_many(
        self, items: Mapping[K, V] | Iterable[tuple[K, V]], ttl: TtlOrDefault = DEFAULT
    ) -> None:
        """Store many values; each as `set` does, the whole not atomically.

        All are checked, and held in memory, before the first is sent. Packets of at most 1,000
        rows and about 1 MiB take one round trip, two where they hold new keys. Raises BatchError
        with `stored`, `failed` and `unknown` keys when it cannot finish.
        """
        pairs = dict(items)
        expires = self._expires(ttl)
        rows = [self._row_until(key, value, expires) for key, value in pairs.items()]
        progress = Progress()
        try:
            self._run(plans.set_rows(rows, progress))
        except HandlerSocketError as error:
            raise _batch_error(error, list(pairs), progress) from error

    def delete_many(self, keys: Iterable[K]) -> int:
        """Remove keys; how many were there. One round trip for each 1,000, not atomic."""
        chunks = _chunks(self._row_keys(keys))
        return sum(cast(int, self._do(Delete(chunk, live(self._now())))) for chunk in chunks)

    def clear(self) -> None:
        """Remove every key of this store (of its prefix); one round trip for each 1,000."""
        self._run(plans.clear_range(*self._range()))

    def incr(
        self, key: K, amount: int = 1, *, initial: int = 0, ttl: TtlOrDefault = DEFAULT
    ) -> int:
        """Add to an integer, and give the new value; `initial + amount` where the key is missing.

        `ttl` is for a key that is made; a live one keeps its own. Atomic, and never done twice
        whatever fails; one round trip, two for a new key. TypeError for a value that is no
        64-bit integer, OverflowError past 64 bits: then nothing is changed.
        """
        _check_int64("amount", amount)
        _check_int64("initial", initial)
        first = Stored(Kind.INTEGER, initial + amount, b"")
        row = self._stored_row(self._row_key(key), first, self._expires(ttl))
        return cast(int, self._write(row, plans.increment(row, amount, Bounds(), self._now)))

    def decr(
        self, key: K, amount: int = 1, *, initial: int = 0, ttl: TtlOrDefault = DEFAULT
    ) -> int:
        """Subtract from an integer: `incr` with the amount negated."""
        _check_int64("amount", amount)
        return self.incr(key, -amount, initial=initial, ttl=ttl)

    def _take(self, key: K) -> V | Literal[Missing.MISSING]:
        row = self._run(plans.take_row(self._row_key(key), _VALUE, _READABLE, self._now))
        return MISSING if row is None else cast(V, loads(*row))

    def _take_first(self) -> tuple[K, V] | None:
        row = self._run(plans.take_first(*self._range(), _ITEM, _READABLE, self._now))
        return None if row is None else (self._key(row[0]), loads(*row[1:]))

    def _key_pages(self, rows: int) -> Iterator[list[K]]:
        for page in self._pages(("key",), rows):
            yield [self._key(row[0]) for row in page]

    def _items(self) -> Iterator[tuple[K, V]]:
        for page in self._pages(_ITEM, _ITEM_PAGE_ROWS):
            for row in page:
                yield self._key(row[0]), loads(*row[1:])

    def _pages(self, columns: tuple[Column, ...], limit: int) -> Iterator[Found]:
        start, end = self._range()
        after = False
        while True:
            where = live(self._now())
            page = cast(Found, self._do(Scan(start, end, columns, limit, where, after)))
            if page:
                yield page
                start, after = page[-1][0], True
            if len(page) < limit:
                return

    def _now(self) -> int:
        return now_ms(self._clock)

    def _range(self) -> tuple[bytes, bytes | None]:
        """The first row key of this store, and the first beyond it."""
        stem = self._prefix.rstrip(b"\xff")
        end = stem[:-1] + bytes([stem[-1] + 1]) if stem else None
        return self._prefix or _FIRST_KEY, end

    def _row_key(self, key: object) -> bytes:
        if not isinstance(key, self._key_type):
            raise TypeError(f"keys are {self._key_type.__name__}, not {type(key).__name__}")
        try:
            row_key = self._prefix + (key.encode() if isinstance(key, str) else key)
        except UnicodeEncodeError as error:
            raise ValueError(f"the key is not valid Unicode: {error}; use bytes keys") from error
        if 0 < len(row_key) <= self._key_bytes and row_key[0]:
            return row_key
        if len(row_key) > self._key_bytes:
            raise KeyTooLongError(
                f"the key has {len(row_key)} bytes with its prefix, the column "
                f"{self._key_bytes}: shorten or hash it"
            )
        raise ValueError("an empty key, or one that begins with NUL, is reserved")

    def _row_keys(self, keys: Iterable[K]) -> list[bytes]:
        if isinstance(keys, (str, bytes)):
            raise TypeError(f"keys is an iterable of keys, not one {type(keys).__name__}")
        return list(dict.fromkeys([self._row_key(key) for key in keys]))

    def _key(self, row_key: bytes) -> K:
        key = row_key[len(self._prefix) :]
        try:
            return cast(K, key if self._key_type is bytes else key.decode())
        except UnicodeDecodeError:
            raise SerializationError(
                f"the key {key!r} is not UTF-8: open the store with key_type=bytes"
            ) from None

    def _row(self, key: K, value: object, ttl: TtlOrDefault) -> Row:
        return self._row_until(key, value, self._expires(ttl))

    def _row_until(self, key: K, value: object, expires: int) -> Row:
        row_key, stored = self._row_key(key), dumps(value)
        if len(stored.value) > self.table.value_bytes:
            raise ValueTooLargeError(
                f"the value has {len(stored.value)} bytes, the column {self.table.value_bytes}"
            )
        return self._stored_row(row_key, stored, expires)

    def _stored_row(self, row_key: bytes, stored: Stored, expires: int) -> Row:
        # 62 bits: a counter's version goes up by 1 and must never wrap.
        version = _versions.getrandbits(62)
        return Row(row_key, stored.value, stored.number, stored.kind, version, expires)

    def _expires(self, ttl: TtlOrDefault) -> int:
        seconds = self._default_ttl if ttl is DEFAULT else checked(ttl)
        return expires_ms(self._clock, seconds)

    def _do(self, verb: Verb) -> Outcome:
        """Carry out one verb; raises what the server said against it."""
        (outcome,) = self._executor.execute([verb])
        if isinstance(outcome, OperationalError):
            raise outcome
        return outcome

    def _write(self, row: Row, plan: Plan[T]) -> T:
        try:
            return self._run(plan)
        except OutcomeUnknownError as error:
            error.version = row.version
            raise

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
def connect(
    url: str | None = None, table: Table | str | None = None, **options: Any
) -> KeyValueStore[Any, Any]:
    """Open a store: the same as `KeyValueStore(url, table, ...)`."""
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


def _key_type(key_type: type[str] | type[bytes]) -> type[str] | type[bytes]:
    if key_type not in (str, bytes):
        raise TypeError(f"key_type is str or bytes, not {key_type!r}")
    return key_type


def _prefix(prefix: str | bytes) -> bytes:
    encoded = prefix.encode() if isinstance(prefix, str) else prefix
    if b"\x00" in encoded:
        raise ValueError("a prefix cannot hold NUL: such keys are reserved")
    return encoded


def _check_int64(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is an int, not {type(value).__name__}")
    if not INT64_MIN <= value <= INT64_MAX:
        raise OverflowError(f"{name} is beyond 64 bits: {value}")


def _chunks(keys: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(keys), PACKET_ROWS):
        yield keys[start : start + PACKET_ROWS]


def _batch_error(error: HandlerSocketError, keys: list[Any], progress: Progress) -> BatchError:
    sent = progress.sent if isinstance(error, OutcomeUnknownError) else set()
    groups: dict[str, list[Any]] = {"stored": [], "failed": [], "unknown": []}
    for position, key in enumerate(keys):
        if position in progress.stored:
            groups["stored"].append(key)
        else:
            groups["unknown" if position in sent else "failed"].append(key)
    counts = ", ".join(f"{len(group)} {name}" for name, group in groups.items())
    return BatchError(
        f"the batch could not be finished ({counts}): {error}",
        stored=tuple(groups["stored"]),
        failed=tuple(groups["failed"]),
        unknown=tuple(groups["unknown"]),
    )
