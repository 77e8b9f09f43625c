"""KeyValueStore: keys and values of Python over the rows of a table."""

import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, ParamSpec, Self, cast, overload

from ..client import Client
from ..exceptions import UnsupportedError
from . import memo
from .base import K, T, V
from .batches import Batches
from .counting import Counters
from .executors import Read, store_executor
from .expiry import DEFAULT, TtlOrDefault, checked, not_keep
from .keys import ReservedKeys, keys_of
from .mapping import TableMapping
from .ranges import Ranges
from .raw import RawRows
from .serializers import Serializer
from .shared import LeasesAndLimiters
from .single import SingleKeys
from .table import Table
from .values import KindValues, RawValues, Values

P = ParamSpec("P")


class KeyValueStore(
    SingleKeys[K, V],
    Batches[K, V],
    Counters[K, V],
    Ranges[K, V],
    LeasesAndLimiters[K, V],
    RawRows[K, V],
    TableMapping[K, V],
):
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
        client = _client(source, options)
        settings = client.settings
        table = _table(table, settings.table)
        keys = keys_of(
            table, key_type, settings.store.get("prefix", "") if prefix is None else prefix
        )
        values = _values(
            table,
            serializer or settings.store.get("serializer"),
            self._arguments["also_read"],
            value_type,
            compress_min_bytes,
        )
        default = settings.store.get("default_ttl") if default_ttl is DEFAULT else default_ttl
        super().__init__(
            client,
            table,
            keys,
            values,
            store_executor(client, table, key_type, read),
            default_ttl=checked(default),
            clock=clock,
            cull=cull,
        )

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

    def get_or_set(self, key: K, factory: Callable[[], V], ttl: TtlOrDefault = DEFAULT) -> V:
        """The value of a key; where it is missing, `factory()` is stored and given.

        One caller among all processes computes, under a lease; the others wait for the value.
        When it fails its error is raised there, and the next in turn computes. One round trip on
        a hit, about five where it is computed.

        >>> store.get_or_set("answer", lambda: 6 * 7, ttl=60)
        42
        """
        self._expires(not_keep(ttl, "get_or_set"))
        return memo.get_or_set(self, key, factory, not_keep(ttl, "get_or_set"))

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
        self._expires(not_keep(ttl, "memoize"))
        return memo.memoize(self, not_keep(ttl, "memoize"), key)


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
