"""pyhs's high-level API: rows as lists of (field, value) pairs.

Built on `hskv.client`, which has the newer and faster API. A manager may be shared by threads and
used after a fork; a pipeline is for one thread.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar, cast

from .client import Client, Condition, Pipeline, RequestInfo, Row, Value
from .exceptions import (
    ConnectionError,
    IndexedConnectionError,
    OperationalError,
    RecoverableConnectionError,
    SerializationError,
)
from .lookups import checked_condition
from .sockets import (
    Connection,
    HandlerSocket,
    ReadSocket,
    WriteSocket,
    addresses_of,
    decoded,
    encoded,
    lookup_options,
    open_index,
    warn_of_writers,
)
from .transport.address import Secret, SecretSource, Settings, check
from .transport.channel import Index

# With the sockets and the exceptions, as pyhs's module.
__all__ = [
    "Connection",
    "ConnectionError",
    "HandlerSocket",
    "IndexedConnectionError",
    "Manager",
    "ManagerPipeline",
    "OperationalError",
    "ReadSocket",
    "RecoverableConnectionError",
    "WriteSocket",
]

Pairs = list[tuple[str, Any]]
"""A row: (field, value) pairs; values are str, or bytes with encoding=None, or None for NULL."""
Values = Sequence[Value]
InList = tuple[int, Sequence[Value]] | None

OneRow = TypeVar("OneRow")
Rows = TypeVar("Rows")
Done = TypeVar("Done")
Changed = TypeVar("Changed")


class _Lookup(NamedTuple):
    """Which rows of which table: what a find and all changes have in common."""

    db: str
    table: str
    fields: Sequence[str]
    index_name: str | None
    operation: str
    values: Values
    limit: int
    offset: int
    filters: Sequence[Condition]
    while_: Sequence[Condition]
    in_: InList

    def open(self, client: Client) -> Index:
        columns = [checked_condition(one)[0] for one in (*self.filters, *self.while_)]
        # In order of appearance, each once.
        filters = dict.fromkeys(columns)
        return open_index(client, self.db, self.table, self.fields, self.index_name, filters)

    def options(self, encoding: str | None) -> dict[str, Any]:
        return lookup_options(
            encoding, self.limit, self.offset, self.filters, self.while_, self.in_
        )


class _Operations(ABC, Generic[OneRow, Rows, Done, Changed]):
    """What can be asked of a table, by pyhs's names; at once or in a pipeline.

    `fields` are the columns to give or set, those of the index first, in its order. `values` are
    compared with the leading ones; `operation` is one of = > >= < <=. `index_name` None is
    PRIMARY. A `limit` of 0 is 1, with `in_` the number of its values. Values are str, bytes, int
    or None for NULL. `filters` and `while_` are lists of (column, operation, value), which rows
    have to pass, or which end the scan where they fail; `in_` is (position in `values`, list of
    values). Raises OperationalError, ConnectionError; OutcomeUnknownError where the reply to a
    write was lost; ValueError, TypeError before anything is sent.
    """

    _client: Client
    _encoding: str | None

    @abstractmethod
    def _run(
        self, method: str, shape: Callable[[Any], Any], index: Index, *args: Any, **options: Any
    ) -> Any: ...

    def get(self, db: str, table: str, fields: Sequence[str], value: Any) -> OneRow:
        """The row whose primary key begins with `value`, as pairs; `[]` when there is none.

        `value` is looked for as `str(value)`, unless it is bytes or None. One round trip.
        """
        as_it_is = value is None or isinstance(value, (bytes, bytearray, memoryview))
        looked_for = value if as_it_is else str(value)
        index = open_index(self._client, db, table, fields, None, ())
        shape = partial(self._first, index.columns)
        values = encoded([looked_for], self._encoding)
        return cast(OneRow, self._run("find", shape, index, "=", values))

    def find(
        self,
        db: str,
        table: str,
        operation: str,
        fields: Sequence[str],
        values: Values,
        index_name: str | None = None,
        limit: int = 0,
        offset: int = 0,
        *,
        filters: Iterable[Condition] = (),
        while_: Iterable[Condition] = (),
        in_: InList = None,
    ) -> Rows:
        """Rows, each a list of (field, value) pairs; `[]` when there are none. One round trip."""
        where = (operation, values, limit, offset, tuple(filters), tuple(while_), in_)
        lookup = _Lookup(db, table, fields, index_name, *where)
        index = lookup.open(self._client)
        shape = partial(self._pairs, index.columns)
        arguments = (operation, encoded(values, self._encoding))
        return cast(
            Rows, self._run("find", shape, index, *arguments, **lookup.options(self._encoding))
        )

    def insert(
        self,
        db: str,
        table: str,
        fields: Iterable[tuple[str, Value]],
        index_name: str | None = None,
    ) -> Done:
        """Insert a row of (field, value) pairs; True. Atomic; one round trip.

        Columns that are not named get 0 or '' rather than NULL, and no default that is an
        expression: name them all. Raises DuplicateKeyError.
        """
        pairs = list(fields)
        names = [name for name, _ in pairs]
        values = encoded([value for _, value in pairs], self._encoding)
        index = open_index(self._client, db, table, names, index_name, ())
        return cast(Done, self._run("insert", _true, index, values))

    def update(
        self,
        db: str,
        table: str,
        operation: str,
        fields: Sequence[str],
        values: Values,
        update_values: Values,
        index_name: str | None = None,
        limit: int = 0,
        offset: int = 0,
        return_original: bool = False,
        *,
        filters: Iterable[Condition] = (),
        while_: Iterable[Condition] = (),
        in_: InList = None,
    ) -> Changed:
        """Set all `fields` of the rows found; their number, or as they were before.

        A row that has the values already counts. One row is changed atomically, several are not.
        """
        where = (operation, values, limit, offset, tuple(filters), tuple(while_), in_)
        lookup = _Lookup(db, table, fields, index_name, *where)
        return self._modify(lookup, "U", update_values, return_original)

    def incr(
        self,
        db: str,
        table: str,
        operation: str,
        fields: Sequence[str],
        values: Values,
        step: Values = ["1"],  # noqa: B006 pyhs's default, never changed
        index_name: str | None = None,
        limit: int = 0,
        offset: int = 0,
        return_original: bool = False,
        *,
        filters: Iterable[Condition] = (),
        while_: Iterable[Condition] = (),
        in_: InList = None,
    ) -> Changed:
        """Add a `step` to each of `fields`; the number of rows, or as they were before.

        The server wraps past 64 bits. Sent once only. One row is changed atomically.
        """
        where = (operation, values, limit, offset, tuple(filters), tuple(while_), in_)
        lookup = _Lookup(db, table, fields, index_name, *where)
        return self._modify(lookup, "+", step, return_original)

    def decr(
        self,
        db: str,
        table: str,
        operation: str,
        fields: Sequence[str],
        values: Values,
        step: Values = ["1"],  # noqa: B006 pyhs's default, never changed
        index_name: str | None = None,
        limit: int = 0,
        offset: int = 0,
        return_original: bool = False,
        *,
        filters: Iterable[Condition] = (),
        while_: Iterable[Condition] = (),
        in_: InList = None,
    ) -> Changed:
        """Subtract a `step` from each of `fields`; the number of rows, or as they were before.

        The server leaves a row alone, and does not count it, where that would cross zero. Sent
        once only. One row is changed atomically.
        """
        where = (operation, values, limit, offset, tuple(filters), tuple(while_), in_)
        lookup = _Lookup(db, table, fields, index_name, *where)
        return self._modify(lookup, "-", step, return_original)

    def delete(
        self,
        db: str,
        table: str,
        operation: str,
        fields: Sequence[str],
        values: Values,
        index_name: str | None = None,
        limit: int = 0,
        offset: int = 0,
        return_original: bool = False,
        *,
        filters: Iterable[Condition] = (),
        while_: Iterable[Condition] = (),
        in_: InList = None,
    ) -> Changed:
        """Delete the rows found; their number, or as they were before."""
        where = (operation, values, limit, offset, tuple(filters), tuple(while_), in_)
        lookup = _Lookup(db, table, fields, index_name, *where)
        return self._modify(lookup, "D", (), return_original)

    def _modify(
        self, lookup: _Lookup, modify_operation: str, changes: Values, return_original: bool
    ) -> Changed:
        index = lookup.open(self._client)
        method, shape = "modify", _same
        if return_original:
            method, shape = "modify_returning", partial(self._pairs, index.columns)
        values = encoded(lookup.values, self._encoding)
        changes = encoded(changes, self._encoding)
        arguments = (lookup.operation, values, modify_operation, changes)
        return cast(
            Changed, self._run(method, shape, index, *arguments, **lookup.options(self._encoding))
        )

    def _pairs(self, fields: Sequence[str], rows: list[Row]) -> list[Pairs]:
        return [list(zip(fields, row, strict=True)) for row in decoded(rows, self._encoding)]

    def _first(self, fields: Sequence[str], rows: list[Row]) -> Pairs:
        return next(iter(self._pairs(fields, rows)), [])


class Manager(_Operations[Pairs, list[Pairs], bool, Any]):
    """Finds, inserts and changes rows, with pyhs's names, arguments and results.

    Servers are lists of (protocol, host, port, timeout): "inet" with a host and port, or "unix"
    with a path; by default ports 9998 and 9999 of localhost. A timeout of None is `timeout` (3),
    in seconds. Readers are used in turn, and one that fails is set aside for a while. `debug`
    shows the traffic of the whole process on stdout. `write_secret` is `secret` unless given;
    either may be a callable. Text is in `encoding`; with None values are bytes. `pool_size`
    connections at most are opened to each server, and waited for up to `pool_timeout` seconds.
    No I/O before the first request. Raises ValueError for servers that cannot be meant; warns of
    more than one write server.

    `read_socket` and `write_socket` work on the same connections.

    >>> hs = hskv.Manager.over(store.client)
    >>> hs.insert("hskv", "kv", [("k", "a"), ("v", "one"), ("n", 1)])
    True
    >>> hs.get("hskv", "kv", ["k", "v"], "a")
    [('k', 'a'), ('v', 'one')]
    """

    def __init__(
        self,
        read_servers: Iterable[Any] | None = None,
        write_servers: Iterable[Any] | None = None,
        debug: bool = False,
        *,
        secret: SecretSource = None,
        write_secret: SecretSource = None,
        encoding: str | None = "utf-8",
        timeout: float = Connection.DEFAULT_TIMEOUT,
        pool_size: int = 16,
        pool_timeout: float = 5.0,
        on_request: Callable[[RequestInfo], object] | None = None,
    ) -> None:
        writers = addresses_of(write_servers or [("inet", "localhost", 9999)])
        warn_of_writers(writers)
        settings = Settings(
            readers=addresses_of(read_servers or [("inet", "localhost", 9998)]),
            writers=writers,
            secret=Secret(secret),
            write_secret=Secret(write_secret),
            timeout=timeout,
            connect_timeout=timeout,
            pool_size=pool_size,
            pool_timeout=pool_timeout,
            on_request=on_request,
        )
        check(settings)
        self._start(Client.from_settings(settings), debug, encoding)

    @classmethod
    def over(cls, client: Client, *, encoding: str | None = "utf-8") -> Self:
        """A manager that uses a client which is there already."""
        manager = cls.__new__(cls)
        manager._start(client, False, encoding)
        return manager

    def _start(self, client: Client, debug: bool, encoding: str | None) -> None:
        self._client = client
        self.read_socket = ReadSocket.over(client, debug, encoding)
        self.write_socket = WriteSocket.over(client, debug, encoding)
        self._encoding = self.read_socket.encoding

    def __repr__(self) -> str:
        return f"<Manager over {self._client!r}>"

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
        """Close all connections; requests after it are ConnectionError."""
        self._client.close()

    def purge(self) -> None:
        """Close all connections and forget all index ids; the next requests connect anew."""
        self.read_socket.purge()
        self.write_socket.purge()

    def pipeline(self) -> "ManagerPipeline":
        """Requests to be sent in one write: see `ManagerPipeline`."""
        return ManagerPipeline(self._client, self._encoding)

    def _run(
        self, method: str, shape: Callable[[Any], Any], index: Index, *args: Any, **options: Any
    ) -> Any:
        return shape(getattr(self._client, method)(index, *args, **options))


class ManagerPipeline(
    _Operations["ManagerPipeline", "ManagerPipeline", "ManagerPipeline", "ManagerPipeline"]
):
    """The operations of a `Manager`, collected, sent in one write, answered in order.

    Each method gives the pipeline; `execute` gives what the manager's methods would have given.
    Not a transaction: see `hskv.Pipeline`.
    """

    def __init__(self, client: Client, encoding: str | None) -> None:
        self._client = client
        self._encoding = encoding
        self._pipeline: Pipeline = client.pipeline()
        self._shapes: list[Callable[[Any], Any]] = []

    def __len__(self) -> int:
        return len(self._pipeline)

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send all, and give a result for each, in order: see `hskv.Pipeline.execute`.

        Rows that are no text are a SerializationError in their place, or raised.
        """
        shapes, self._shapes = self._shapes, []
        results = self._pipeline.execute(raise_on_error)
        shaped = [_shaped(shape, result) for shape, result in zip(shapes, results, strict=True)]
        if raise_on_error:
            for result in shaped:
                if isinstance(result, SerializationError):
                    raise result
        return shaped

    def _run(
        self, method: str, shape: Callable[[Any], Any], index: Index, *args: Any, **options: Any
    ) -> Any:
        getattr(self._pipeline, method)(index, *args, **options)
        self._shapes.append(shape)
        return self


def _shaped(shape: Callable[[Any], Any], result: Any) -> Any:
    if isinstance(result, OperationalError):
        return result
    try:
        return shape(result)
    except SerializationError as error:
        return error


def _true(_: object) -> bool:
    return True


def _same(result: object) -> object:
    return result
