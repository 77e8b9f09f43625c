"""Rows of bytes from any table and index: the client under everything else.

A `Client` holds two pools of channels, one to the read port and one to the write port, and is
the one place that sends a request again. It may be shared by threads, and used after a fork.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from .exceptions import (
    AuthenticationError,
    ConnectionError,
    HandlerSocketError,
    LockTimeoutError,
    OperationalError,
    OutcomeUnknownError,
    ProtocolError,
    TableNotFoundError,
    TransactionAbortedError,
)
from .observed import RequestInfo, tell
from .sql import SqlClient, SqlSide
from .transport.address import Address, Secret, SecretSource, Settings, load_settings
from .transport.channel import Channel, Index
from .transport.health import Health, health_of
from .transport.pool import ChannelPool
from .transport.primary import NotByHandlerSocketError, PrimaryServer, primary_server
from .transport.retry import Effect, failure, pauses, repeatable
from .transport.servers import NoServers, Servers
from .wire import requests
from .wire.replies import CHANGED_ONE, Reply, Row, checked_columns, generated_id, modified_rows
from .wire.requests import MAX_IN, Filter, In

__all__ = ["Client", "Index", "Pipeline", "RequestInfo", "Row", "Value"]

_log = logging.getLogger("hskv")

T = TypeVar("T")
Parts = TypeVar("Parts", bound=tuple[Any, ...])
Value = bytes | str | int | None
Condition = tuple[str, str, Value]
"""(filter column, one of = != > >= < <=, value)"""

_Lookup = tuple[str, list[bytes | None], int, int, In | None, Sequence[Filter]]
_Side = ChannelPool[Channel] | Servers[Channel] | NoServers | PrimaryServer
_MODIFY_OPERATIONS: Final = ("U", "D", "+", "-")
_MAX_INDEXES: Final = 1000
_CHANNEL_LIFETIME_SECONDS: Final = 3600.0
_PEEK_BEFORE_READS_AFTER_SECONDS: Final = 1.0
# To look up a member of an Enum is a call of Python, up to 3.11.
_READ: Final = Effect.READ


class Client:
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
        self._on_request = settings.on_request
        self._indexes: dict[tuple[Any, ...], Index] = {}
        self._health = health_of(settings)
        self._reader = _side(settings, Effect.READ, self._health)
        self._writer = _side(settings, Effect.WRITE)
        self.sql = SqlClient(settings, settings.sql, self._health) if settings.sql else None

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

    def close(self) -> None:
        """Close all channels; requests after it are ConnectionError. Idempotent."""
        for side in self._sides:
            side.close()

    @property
    def _sides(self) -> tuple[_Side | SqlSide, ...]:
        # Of replicas by SQL the side leads the same pools, and more.
        sql = (self.sql.replicas.side,) if self.sql else ()
        return (self._reader, self._writer, *sql)

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

    def drain(self, timeout: float = 10.0, *, refuse: bool = False) -> bool:
        """Close every channel, and open none until `resume`: so that DDL need not wait.

        Requests under way are finished first, for up to `timeout` seconds; False when some are
        not by then. Requests meanwhile wait up to `pool_timeout`, or with `refuse` raise
        PoolTimeoutError at once. The server lets go of a table when the last connection of the
        same server thread has ended: other clients must be drained too.
        """
        drained = [side.drain(timeout, refuse=refuse) for side in self._sides]
        return all(drained)

    def resume(self) -> None:
        """End what `drain` began: requests open channels again."""
        for side in self._sides:
            side.resume()

    def purge(self) -> None:
        """Close every channel, those in use after their exchange; requests to come connect anew."""
        for side in self._sides:
            side.purge()

    def stats(self) -> dict[str, dict[str, int]]:
        """Counts of the channels to the "read" and the "write" side: see `ChannelPool.stats`.

        A side that goes by SQL has the connections to SQL, which both may share.
        """
        by_sql = self.sql.servers.stats() if self.sql else {}
        return {
            "read": by_sql if self.settings.reads == "sql" else self._reader.stats(),
            "write": by_sql if self.settings.writes == "sql" else self._writer.stats(),
        }

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
        _check_index(index)
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
            _check_index(index)
            if limit == 1 and not offset and type(key) is list and len(key) == 1:
                return self.call(index, requests.find_one(operation, key[0]), _READ)
            body = requests.find(operation, _tokens(key, "key"), limit, offset)
            return self.call(index, body, _READ)
        lookups = _lookups(index, operation, key, limit, offset, in_, filters, while_)
        bodies = [requests.find(*lookup) for lookup in lookups]
        return [row for body in bodies for row in self.call(index, body, Effect.READ)]

    def insert(self, index: Index, values: Sequence[Value]) -> int | None:
        """Insert a row of one value for each column of the index.

        Returns the generated AUTO_INCREMENT number, or None where there is none. Columns that
        the index does not list get the server's constant defaults, or zero, or empty; list
        them all. Atomic; one round trip. Raises DuplicateKeyError, OutcomeUnknownError when
        the reply was lost, and what `find` raises.
        """
        rows = self.call(index, _insert(index, values), Effect.WRITE_ROW)
        return self._understood(generated_id, rows)

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
        lookups = _lookups(index, operation, key, limit, offset, in_, filters, while_)
        bodies = [_find_modify(index, lookup, modify_operation, values) for lookup in lookups]
        effect = _effect(limit, in_)
        replies = (self.call(index, body, effect) for body in bodies)
        return sum(self._understood(modified_rows, rows) for rows in replies)

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
        lookups = _lookups(index, operation, key, limit, offset, in_, filters, while_)
        bodies = [
            _find_modify(index, lookup, modify_operation, values, returning=True)
            for lookup in lookups
        ]
        effect, shape = _effect(limit, in_), partial(_rows_of, index)
        replies = (self.call(index, body, effect) for body in bodies)
        return [row for rows in replies for row in self._understood(shape, rows)]

    def pipeline(self) -> "Pipeline":
        """Several requests to be sent in one write: see `Pipeline`."""
        return Pipeline(self)

    def call(self, index: Index, body: bytes, effect: Effect) -> list[Row]:
        """Send a body built by `hskv.wire.requests`; the layer under `find` and the rest.

        `effect` says to which port it goes and when it may be sent again.
        """
        if self._on_request is not None:
            return _rows(self.call_many([(index, body)], effect)[0])
        pool = self._reader if effect is _READ else self._writer
        try:
            channel = pool.acquire()
        except ConnectionError as error:
            return _rows(self._repeat([(index, body)], effect, error)[0])
        began = channel.last_used
        deadline = began + channel.timeout
        try:
            reply = channel.call(index, body, deadline)
            # Rows, as mostly, or the number that answers many a write; the rest is rarer.
            columns = len(reply[0]) if type(reply) is list else 0
            if columns != len(index.columns) and (columns != 1 or effect is _READ):
                checked_columns(reply, len(index.columns), or_one=effect is not _READ)
        except BaseException as error:
            reported = _lost(pool, channel, error, effect)
            if not isinstance(reported, ConnectionError):
                raise
            return _rows(self._repeat([(index, body)], effect, reported, began, deadline)[0])
        if isinstance(reply, list):
            pool.release(channel)
            return reply
        _give_back(pool, channel, [reply])
        if isinstance(reply, LockTimeoutError):
            return _rows(self._repeat([(index, body)], effect, reply, began, deadline)[0])
        return _rows(reply)

    def call_many(self, calls: Sequence[tuple[Index, bytes]], effect: Effect) -> list[Reply]:
        """Send several bodies in one write; the replies in order, errors among them as values.

        Not a transaction: a request that fails does not undo the others, except that a
        deadlock undoes all of them: then TransactionAbortedError is raised for the whole.
        """
        if self._on_request is None:
            return self._call_many(calls, effect)
        return self._observed(self._on_request, calls, effect)

    def _observed(
        self,
        on_request: Callable[[RequestInfo], object],
        calls: Sequence[tuple[Index, bytes]],
        effect: Effect,
    ) -> list[Reply]:
        began = monotonic()
        replies: list[Reply] = []
        error: BaseException | None = None
        try:
            replies = self._call_many(calls, effect)
        except BaseException as failed:
            error = failed
            raise
        finally:
            # Where no listener was known nobody was asked: SQL will be, and that is told.
            if not isinstance(error, NotByHandlerSocketError):
                tell(on_request, _info(calls, effect, replies, monotonic() - began, error))
        return replies

    def _call_many(self, calls: Sequence[tuple[Index, bytes]], effect: Effect) -> list[Reply]:
        pool = self._reader if effect is Effect.READ else self._writer
        began, deadline = 0.0, None
        try:
            channel = pool.acquire()
            began = monotonic()
            deadline = began + channel.timeout
            replies = self._exchange(pool, channel, calls, effect, deadline)
        except ConnectionError as error:
            return self._repeat(calls, effect, error, began, deadline)
        refused = replies[0]
        if len(replies) == 1 and isinstance(refused, LockTimeoutError):
            return self._repeat(calls, effect, refused, began, deadline)
        return replies

    def _exchange(
        self,
        pool: _Side,
        channel: Channel,
        calls: Sequence[tuple[Index, bytes]],
        effect: Effect,
        deadline: float,
    ) -> list[Reply]:
        """One attempt on a channel, which goes back to its pool; errors as `failure` gives them."""
        try:
            replies = channel.call_many(calls, deadline)
            or_one = effect is not Effect.READ
            refused = []
            plain = or_one and replies.count(CHANGED_ONE) == len(calls)
            for (index, _), reply in () if plain else zip(calls, replies, strict=True):
                checked_columns(reply, len(index.columns), or_one=or_one)
                if isinstance(reply, OperationalError):
                    refused.append(reply)
        except BaseException as error:
            reported = _lost(pool, channel, error, effect)
            if reported is error:
                raise
            raise reported from error
        _give_back(pool, channel, refused)
        for refusal in refused:
            if isinstance(refusal, TransactionAbortedError):
                raise refusal
        return replies

    def _understood(self, shape: Callable[[list[Row]], T], rows: list[Row]) -> T:
        """What a reply to a write means, where its shape is that of one."""
        try:
            return shape(rows)
        except OutcomeUnknownError:
            # What was damaged looked like a reply: there may be more of the kind.
            self.purge()
            raise

    def _longest_timeout(self, effect: Effect) -> float:
        settings = self.settings
        addresses = settings.readers if effect is Effect.READ else settings.writers
        return max(address.timeout or settings.timeout for address in addresses)

    def _repeat(
        self,
        calls: Sequence[tuple[Index, bytes]],
        effect: Effect,
        error: HandlerSocketError,
        began: float = 0.0,
        deadline: float | None = None,
    ) -> list[Reply]:
        """Send again what failed with `error`, where that is harmless; else raise it.

        `began` and `deadline` are those of the attempt that failed, if it got a channel.
        What the server gave up for want of a lock is sent again only where as much time is left
        as it took: cut off by the deadline, it would be done later, and nobody would know.
        """
        pool = self._reader if effect is Effect.READ else self._writer
        if deadline is None:
            deadline = monotonic() + self._longest_timeout(effect)
        for pause in pauses(deadline):
            if pool.closed or not repeatable(error, effect):
                break
            took = monotonic() - began
            if isinstance(error, LockTimeoutError) and monotonic() + pause + took >= deadline:
                break
            sleep(pause)
            _log.info("sending again after: %s", error)
            began = monotonic()
            try:
                replies = self._exchange(pool, pool.acquire(), calls, effect, deadline)
            except (ConnectionError, ProtocolError) as again:
                error = again
                continue
            refused = replies[0]
            if len(calls) > 1 or not isinstance(refused, LockTimeoutError):
                return replies
            error = refused
        raise error


class Pipeline:
    """Requests collected and sent in one write, their replies read in order.

    Goes to the write port as soon as one of the requests is a write (finds on it take locks),
    else to the read port. Not a transaction, and another client may come in between. An
    instance is for one thread; after `execute` it is empty and can be used again.

    >>> client = store.client
    >>> index = client.open("kv", ["k", "n"])
    >>> client.pipeline().insert(index, ["a", 1]).find(index, "=", ["a"]).execute()
    [None, [(b'a', b'1')]]
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._calls: list[tuple[Index, bytes]] = []
        self._results: list[Callable[[list[Row]], Any]] = []
        self._effect = Effect.READ

    def __len__(self) -> int:
        return len(self._calls)

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
    ) -> Self:
        """As `Client.find`; its result is a list of rows."""
        lookup = _lookup(index, operation, key, limit, offset, in_, filters, while_)
        return self._add(index, requests.find(*lookup), partial(_rows_of, index))

    def insert(self, index: Index, values: Sequence[Value]) -> Self:
        """As `Client.insert`; its result is the generated number or None."""
        return self._write(index, _insert(index, values), generated_id)

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
    ) -> Self:
        """As `Client.modify`; its result is the number of rows."""
        lookup = _lookup(index, operation, key, limit, offset, in_, filters, while_)
        return self._write(
            index, _find_modify(index, lookup, modify_operation, values), modified_rows
        )

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
    ) -> Self:
        """As `Client.modify_returning`; its result is a list of rows."""
        lookup = _lookup(index, operation, key, limit, offset, in_, filters, while_)
        body = _find_modify(index, lookup, modify_operation, values, returning=True)
        return self._write(index, body, partial(_rows_of, index))

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send all, and give a result for each request, in order.

        An error of the server stands in the list in the place of its result, or is raised (the
        first of them) after all replies were read. Raises OutcomeUnknownError where a write was
        sent and the replies were lost, TransactionAbortedError where the server rolled back.
        """
        calls, results, effect = self._calls, self._results, self._effect
        self._calls, self._results, self._effect = [], [], Effect.READ
        if not calls:
            return []
        replies = self._client.call_many(calls, effect)
        if raise_on_error:
            for reply in replies:
                _rows(reply)
        understood = self._client._understood
        return [
            reply if isinstance(reply, OperationalError) else understood(result, reply)
            for result, reply in zip(results, replies, strict=True)
        ]

    def _write(self, index: Index, body: bytes, result: Callable[[list[Row]], Any]) -> Self:
        self._effect = Effect.WRITE
        return self._add(index, body, result)

    def _add(self, index: Index, body: bytes, result: Callable[[list[Row]], Any]) -> Self:
        self._calls.append((index, body))
        self._results.append(result)
        return self


def _side(settings: Settings, effect: Effect, health: Health | None = None) -> _Side:
    reads = effect is Effect.READ
    addresses = settings.readers if reads else settings.writers
    if not addresses:
        return NoServers("reads" if reads else "writes")
    secret = settings.secret if reads else settings.write_secret or settings.secret
    # A read is simply sent again; a write on a channel whose server went away would be lost.
    peek_after = _PEEK_BEFORE_READS_AFTER_SECONDS if reads else 0.0
    pools = [_pool(settings, address, secret, peek_after) for address in addresses]
    return pools[0] if len(pools) == 1 and health is None else Servers(pools, health)


def _pool(
    settings: Settings, address: Address, secret: Secret, peek_after: float
) -> ChannelPool[Channel]:
    connect = partial(
        Channel,
        address,
        secret,
        {},
        connect_timeout=address.timeout or settings.connect_timeout,
        timeout=address.timeout or settings.timeout,
        lifetime=_CHANNEL_LIFETIME_SECONDS,
    )
    return ChannelPool(
        connect, size=settings.pool_size, timeout=settings.pool_timeout, peek_after=peek_after
    )


def _lost(pool: _Side, channel: Channel, error: BaseException, effect: Effect) -> BaseException:
    """Drop the channel of a failed exchange; the error to report for it."""
    pool.discard(channel, error)
    reported = failure(error, effect)
    if reported is not error:
        reported.__cause__ = error
    return reported


def _info(
    calls: Sequence[tuple[Index, bytes]],
    effect: Effect,
    replies: list[Reply],
    seconds: float,
    error: BaseException | None,
) -> RequestInfo:
    operation = "pipeline"
    if len(calls) == 1:
        inserts = calls[0][1].startswith(b"\t+")
        operation = "find" if effect is Effect.READ else "insert" if inserts else "modify"
    received = 0
    for reply in replies:
        if isinstance(reply, OperationalError):
            error = error or reply
        else:
            received += sum(len(value or b"") for row in reply for value in row)
    return RequestInfo(
        operation=operation,
        table=calls[0][0].table,
        seconds=seconds,
        bytes_sent=sum(len(body) for _, body in calls),
        bytes_received=received,
        requests=len(calls),
        error=error,
    )


def _give_back(pool: _Side, channel: Channel, replies: Sequence[Reply]) -> None:
    # A channel that is not logged in is of no use; one that asked for a missing table keeps
    # the name locked on the server, and CREATE TABLE would wait for it.
    if any(isinstance(reply, (AuthenticationError, TableNotFoundError)) for reply in replies):
        pool.discard(channel)
    else:
        pool.release(channel)


def _lookups(
    index: Index,
    operation: str,
    key: Sequence[Value],
    limit: int,
    offset: int,
    in_: tuple[int, Sequence[Value]] | None,
    filters: Iterable[Condition],
    while_: Iterable[Condition],
) -> list[_Lookup]:
    """What to look up, in as many requests as the IN list needs."""
    _check_index(index)
    conditions = [_filter(index, condition, stops=True) for condition in while_]
    stops = bool(conditions)
    conditions += [_filter(index, condition, stops=False) for condition in filters]
    tokens = _tokens(key, "key")
    if in_ is None:
        return [(operation, tokens, limit, offset, None, conditions)]
    column, several = checked_in(in_)
    values = _tokens(several, "the values of in_")
    if len(values) <= MAX_IN:
        return [(operation, tokens, limit, offset, In(column, values), conditions)]
    if limit < len(values):
        raise ValueError(f"limit {limit} is less than the {len(values)} values of in_")
    if offset or stops:
        raise ValueError(f"offset and while_ need an IN list of at most {MAX_IN} values")
    parts = [values[start : start + MAX_IN] for start in range(0, len(values), MAX_IN)]
    return [(operation, tokens, len(part), 0, In(column, part), conditions) for part in parts]


def checked_in(in_: tuple[int, Sequence[Value]]) -> tuple[int, Sequence[Value]]:
    """An IN list, if it is one. Raises TypeError, ValueError."""
    return _parts(in_, 2, "in_ is a pair: the position of a key part, and a list of its values")


def checked_condition(condition: Condition) -> Condition:
    """A condition, if it is one. Raises TypeError, ValueError."""
    return _parts(condition, 3, "filters and while_ are lists of (column, operation, value)")


def _parts(whole: Parts, count: int, what: str) -> Parts:
    if not isinstance(whole, (tuple, list)):
        raise TypeError(what)
    if len(whole) != count:
        raise ValueError(what)
    return whole


def _check_index(index: Index) -> None:
    if not isinstance(index, Index):
        raise TypeError(f"an index is what `Client.open` gives, not {type(index).__name__}")


def _lookup(
    index: Index,
    operation: str,
    key: Sequence[Value],
    limit: int,
    offset: int,
    in_: tuple[int, Sequence[Value]] | None,
    filters: Iterable[Condition],
    while_: Iterable[Condition],
) -> _Lookup:
    """What to look up in one request."""
    first, *more = _lookups(index, operation, key, limit, offset, in_, filters, while_)
    if more:
        raise ValueError(f"a pipeline takes IN lists of at most {MAX_IN} values: queue several")
    return first


def _filter(index: Index, condition: Condition, *, stops: bool) -> Filter:
    column, operation, value = checked_condition(condition)
    try:
        position = index.filter_columns.index(column)
    except ValueError:
        raise ValueError(
            f"{column!r} is no filter column of this index; open it with filter_columns"
        ) from None
    return Filter(position, operation, requests.token(value), stops)


def _tokens(values: Sequence[Value], what: str) -> list[bytes | None]:
    if isinstance(values, (str, bytes, bytearray)):
        raise TypeError(f"{what} is a list of values, not one {type(values).__name__}")
    return [value if type(value) is bytes else requests.token(value) for value in values]


def _insert(index: Index, values: Sequence[Value]) -> bytes:
    return requests.insert(_one_for_each(index, values))


def _find_modify(
    index: Index,
    lookup: _Lookup,
    modify_operation: str,
    values: Sequence[Value],
    *,
    returning: bool = False,
) -> bytes:
    if modify_operation not in _MODIFY_OPERATIONS:
        raise ValueError(f"modify operation {modify_operation!r} is not one of U D + -")
    operation, key, limit, offset, in_, filters = lookup
    deletes = modify_operation == "D"
    tokens = _tokens(values, "values") if deletes else _one_for_each(index, values)
    return requests.find_modify(
        operation,
        key,
        modify_operation + "?" * returning,
        tokens,
        limit,
        offset,
        in_,
        filters,
    )


def _one_for_each(index: Index, values: Sequence[Value]) -> list[bytes | None]:
    _check_index(index)
    if len(values) != len(index.columns):
        raise ValueError(
            f"{len(values)} values for {len(index.columns)} columns: the server would blank the "
            "rest; open an index with just the columns to be set"
        )
    return _tokens(values, "values")


def _effect(limit: int, in_: tuple[int, Sequence[Value]] | None) -> Effect:
    return Effect.WRITE_ROW if limit == 1 and in_ is None else Effect.WRITE


def _rows(reply: Reply) -> list[Row]:
    if isinstance(reply, OperationalError):
        raise reply
    return reply


def _rows_of(index: Index, rows: list[Row]) -> list[Row]:
    """The rows of one request among writes, whose replies may be numbers."""
    try:
        checked_columns(rows, len(index.columns))
    except ProtocolError as error:
        raise OutcomeUnknownError(f"{error}; read the rows before you write again") from error
    return rows
