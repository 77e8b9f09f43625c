"""Rows of bytes from any table and index: the client under everything else.

A `Client` holds two pools of channels, one to the read port and one to the write port, and sends
again what may be. It may be shared by threads, and used after a fork.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from .exceptions import OperationalError
from .exchange import Exchange, understood
from .lookups import (
    Condition,
    Value,
    check_index,
    effect_of,
    insert_body,
    lookups_of,
    modify_body,
    rows_of_index,
    tokens_of,
)
from .observed import RequestInfo
from .pipeline import Pipeline
from .transport.address import SecretSource, Settings, load_settings
from .transport.channel import Index
from .transport.primary import primary_server
from .transport.retry import Effect
from .transport.servers import Servers
from .wire import requests
from .wire.replies import Row, generated_id, modified_rows

__all__ = ["Client", "Condition", "Index", "Pipeline", "RequestInfo", "Row", "Value"]

_MAX_INDEXES: Final = 1000
# To look up a member of an Enum is a call of Python, up to 3.11.
_READ: Final = Effect.READ


class Client(Exchange):
    """Finds, inserts and modifies rows through HandlerSocket.

    `source` is a URL (`hskv://:SECRET@HOST:READ_PORT,WRITE_PORT/DATABASE`), or None for the
    one in `HSKV_URL`; keyword arguments beat it. Times are in seconds: `timeout` for a request
    (5), `connect_timeout` for connecting and logging in (2), `pool_timeout` for a free channel
    (5). `pool_size` (16) channels at most are opened to each port. `on_request` is called with
    a `RequestInfo` after each request; what it raises is logged. `replicas` ("HOST:PORT") are
    further listeners to read from. `writes`, `reads`, `read`, `sql`, `sql_...` and `max_lag` are
    for stores that go by SQL: docs/replication.md. No I/O is done before the first request.
    Raises ValueError for a URL or option that cannot be meant.

    >>> with hskv.Client(url) as client:
    ...     index = client.open("kv", ["k", "n"], filter_columns=["n"])
    ...     client.insert(index, ["a", 1])
    ...     client.modify(index, "=", ["a"], "U", ["a", 2])
    ...     client.find(index, ">=", [""], limit=10, filters=[("n", ">", 1)])
    1
    [(b'a', b'2')]
    """

    def __init__(
        self,
        source: str | None = None,
        *,
        secret: SecretSource = None,
        secret_file: str | None = None,
        write_secret: SecretSource = None,
        write_secret_file: str | None = None,
        replicas: Sequence[str] | None = None,
        writes: str | None = None,
        reads: str | None = None,
        read: str | None = None,
        sql: str | None = None,
        sql_password: SecretSource = None,
        sql_password_file: str | None = None,
        sql_ssl: bool | None = None,
        sql_ssl_ca: str | None = None,
        sql_ssl_cert: str | None = None,
        sql_ssl_key: str | None = None,
        sql_ssl_verify_identity: bool | None = None,
        max_lag: float | None = None,
        timeout: float | None = None,
        connect_timeout: float | None = None,
        pool_size: int | None = None,
        pool_timeout: float | None = None,
        on_request: Callable[[RequestInfo], object] | None = None,
    ) -> None:
        self.settings = load_settings(
            source,
            secret=secret,
            secret_file=secret_file,
            write_secret=write_secret,
            write_secret_file=write_secret_file,
            replicas=replicas,
            writes=writes,
            reads=reads,
            read=read,
            sql=sql,
            sql_password=sql_password,
            sql_password_file=sql_password_file,
            sql_ssl=sql_ssl,
            sql_ssl_ca=sql_ssl_ca,
            sql_ssl_cert=sql_ssl_cert,
            sql_ssl_key=sql_ssl_key,
            sql_ssl_verify_identity=sql_ssl_verify_identity,
            max_lag=max_lag,
            timeout=timeout,
            connect_timeout=connect_timeout,
            pool_size=pool_size,
            pool_timeout=pool_timeout,
            on_request=on_request,
        )
        self._start(self.settings)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """A client for settings that were loaded already."""
        client = cls.__new__(cls)
        client.settings = settings
        client._start(settings)
        return client

    def _start(self, settings: Settings) -> None:
        super().__init__(settings)
        self._indexes: dict[tuple[Any, ...], Index] = {}

    def __repr__(self) -> str:
        sql = self.settings.sql.hosts if self.settings.sql else ()
        addresses = (*self.settings.readers, *self.settings.writers, *sql)
        return f"<Client of {', '.join(map(str, addresses))}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_settings, (self.settings,)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def of_primary(self) -> "Client | None":
        """The same client, which reads from the server that SQL writes to, on its connections.

        Its reads are NotByHandlerSocketError while that is not known. None where there is only
        one server, or no SQL.
        """
        servers, health = self._reader, self._health
        if health is None or self.sql is None or not isinstance(servers, Servers):
            return None
        client = object.__new__(type(self))
        client.__dict__ |= self.__dict__
        client._reader = primary_server(self.settings, servers, health, self.sql.servers)
        return client

    def open(
        self,
        table: str,
        columns: Sequence[str],
        *,
        index_name: str = "PRIMARY",
        filter_columns: Sequence[str] = (),
        database: str | None = None,
    ) -> Index:
        """Name what requests work on; the server sees it with the first request.

        `columns` are what finds return and writes set, in this order; `filter_columns` may be
        named in filters. The database is the URL's unless given. No I/O: a table or column
        that does not exist is an error of the first request. Raises ValueError for names the
        protocol cannot carry, TypeError for a string in place of a list of columns.
        """
        if isinstance(columns, str) or isinstance(filter_columns, str):
            raise TypeError("columns and filter_columns are lists of names, not one string")
        database = database or self.settings.database
        if not database:
            raise ValueError("no database is named, in the URL or here")
        names = (database, table, index_name, tuple(columns), tuple(filter_columns))
        index = self._indexes.get(names)
        if index is None:
            index = Index(*names)
            index.open_line(0)
            if len(self._indexes) >= _MAX_INDEXES:
                # Channels know an index by identity: those that are in use go on as they are.
                self._indexes.clear()
            index = self._indexes.setdefault(names, index)
        return index

    def verify(self, index: Index, effect: Effect = Effect.READ) -> None:
        """Ask the server whether an index can be opened; no row is read.

        On the read port, or with another `effect` on the write port. Raises TableNotFoundError,
        IndexNotFoundError, ColumnNotFoundError, and what `find` raises.
        """
        check_index(index)
        reply = self._call_many([(index, requests.NOTHING)], effect)[0]
        if isinstance(reply, OperationalError) and reply.reason != requests.NOTHING_REFUSED_AS:
            raise reply

    def find(
        self,
        index: Index,
        operation: str,
        key: Sequence[Value],
        *,
        limit: int = 1,
        offset: int = 0,
        in_: tuple[int, Sequence[Value]] | None = None,
        filters: Iterable[Condition] = (),
        while_: Iterable[Condition] = (),
    ) -> list[Row]:
        """Rows from the read port, as tuples of bytes (None for NULL) in index order.

        `operation` is one of = > >= < <= and `key` a value for each leading part of the index.
        `in_` gives a key part's position and several values for it; at most one row is found
        for each, and limit must be at least their number. `filters` skip rows, `while_` ends
        the scan at the first row that fails. One round trip for each 1,000 values of `in_`;
        repeated on another channel when the connection breaks. Raises OperationalError,
        ConnectionError, ProtocolError; ValueError or TypeError before anything is sent.
        """
        if in_ is None and not filters and not while_:
            check_index(index)
            if limit == 1 and not offset and type(key) is list and len(key) == 1:
                return self.call(index, requests.find_one(operation, key[0]), _READ)
            body = requests.find(operation, tokens_of(key, "key"), limit, offset)
            return self.call(index, body, _READ)
        lookups = lookups_of(index, operation, key, limit, offset, in_, filters, while_)
        bodies = [requests.find(*lookup) for lookup in lookups]
        return [row for body in bodies for row in self.call(index, body, Effect.READ)]

    def insert(self, index: Index, values: Sequence[Value]) -> int | None:
        """Insert a row of one value for each column of the index.

        Returns the generated AUTO_INCREMENT number, or None where there is none. Columns that
        the index does not list get the server's constant defaults, or zero, or empty; list
        them all. Atomic; one round trip. Raises DuplicateKeyError, OutcomeUnknownError when
        the reply was lost, and what `find` raises.
        """
        rows = self.call(index, insert_body(index, values), Effect.WRITE_ROW)
        return understood(self, generated_id, rows)

    def modify(
        self,
        index: Index,
        operation: str,
        key: Sequence[Value],
        modify_operation: str,
        values: Sequence[Value] = (),
        *,
        limit: int = 1,
        offset: int = 0,
        in_: tuple[int, Sequence[Value]] | None = None,
        filters: Iterable[Condition] = (),
        while_: Iterable[Condition] = (),
    ) -> int:
        """Change the rows that a find would give; the number of rows found and processed.

        `modify_operation` is U (set the columns to `values`), D (delete), + or - (add or
        subtract integers: the server wraps past 64 bits, and refuses a `-` that crosses zero).
        One row is changed atomically; several are not: a failure leaves the first of them
        changed. Raises OutcomeUnknownError when the reply was lost, LockTimeoutError, and what
        `find` raises; ValueError where `values` are not one for each column.
        """
        lookups = lookups_of(index, operation, key, limit, offset, in_, filters, while_)
        bodies = [modify_body(index, lookup, modify_operation, values) for lookup in lookups]
        effect = effect_of(limit, in_)
        replies = (self.call(index, body, effect) for body in bodies)
        return sum(understood(self, modified_rows, rows) for rows in replies)

    def modify_returning(
        self,
        index: Index,
        operation: str,
        key: Sequence[Value],
        modify_operation: str,
        values: Sequence[Value] = (),
        *,
        limit: int = 1,
        offset: int = 0,
        in_: tuple[int, Sequence[Value]] | None = None,
        filters: Iterable[Condition] = (),
        while_: Iterable[Condition] = (),
    ) -> list[Row]:
        """As `modify`, but gives the rows as they were before the change."""
        lookups = lookups_of(index, operation, key, limit, offset, in_, filters, while_)
        bodies = [
            modify_body(index, lookup, modify_operation, values, returning=True)
            for lookup in lookups
        ]
        effect, shape = effect_of(limit, in_), partial(rows_of_index, index)
        replies = (self.call(index, body, effect) for body in bodies)
        return [row for rows in replies for row in understood(self, shape, rows)]

    def pipeline(self) -> "Pipeline":
        """Several requests to be sent in one write: see `Pipeline`."""
        return Pipeline(self)
