"""Which executor carries out which verb: HandlerSocket's, SQL's, or each its part."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from ..client import Client, Row
from ..exceptions import UnsupportedError
from ..sql import SqlClient
from ..transport.address import Settings
from ..transport.primary import NotByHandlerSocketError
from .guard import GuardedExecutor, check_handlersocket
from .handlersocket import HandlerSocketExecutor
from .mapped import MappedExecutor, StoreExecutor
from .sql import SqlExecutor
from .sql_text import SqlText
from .table import Table
from .verbs import Outcome, Scan, Verb

Read = Literal["primary", "replica"]


class DividedExecutor:
    """Lets one executor answer the reads that may be a little old, and another do all else.

    Those are values by key, whether there is a key, and pages of rows. What a plan finds, it
    changes: that comes from where it writes, as do versions, leases and limits.
    """

    def __init__(self, reader: StoreExecutor, writer: StoreExecutor) -> None:
        self._reader = reader
        self._writer = writer
        self.find_value = reader.find_value
        self.find_kind = reader.find_kind
        self.find_items = reader.find_items
        self.replace = writer.replace
        self.count = writer.count

    def execute(self, verbs: Sequence[Verb]) -> list[Outcome]:
        """As of either: a scan alone is for the reader."""
        if len(verbs) == 1 and isinstance(verbs[0], Scan):
            return self._reader.execute(verbs)
        return self._writer.execute(verbs)


class PrimaryReader:
    """Reads by HandlerSocket from the server that is written to; by SQL while it is unknown."""

    def __init__(self, quick: StoreExecutor, sure: StoreExecutor) -> None:
        self._quick = quick
        self._sure = sure
        self.replace, self.count = sure.replace, sure.count

    def find_value(self, key: bytes, now: int) -> Sequence[Row]:
        """As of any executor, like the rest."""
        try:
            return self._quick.find_value(key, now)
        except NotByHandlerSocketError:
            return self._sure.find_value(key, now)

    def find_kind(self, key: bytes, now: int) -> Sequence[Row]:
        """A live row's kind."""
        try:
            return self._quick.find_kind(key, now)
        except NotByHandlerSocketError:
            return self._sure.find_kind(key, now)

    def find_items(self, keys: Sequence[bytes], now: int) -> Sequence[Row]:
        """Live rows."""
        try:
            return self._quick.find_items(keys, now)
        except NotByHandlerSocketError:
            return self._sure.find_items(keys, now)

    def execute(self, verbs: Sequence[Verb]) -> list[Outcome]:
        """Verbs that read."""
        try:
            return self._quick.execute(verbs)
        except NotByHandlerSocketError:
            return self._sure.execute(verbs)


def store_executor(
    client: Client, table: Table, key_type: type, read: Read | None
) -> StoreExecutor:
    """The executor of a store in the mode of its client.

    Raises UnsupportedError for HandlerSocket's writes with several servers.
    """
    settings = client.settings
    _check_servers(settings)
    if settings.writes == "handlersocket":
        alone = _mapped(HandlerSocketExecutor(client, table), table, key_type)
        return _guarded(alone, client, table, key_type) if client.sql else alone
    sql, text = _sql_of(client, table, key_type)
    writer = _mapped(SqlExecutor(sql, text), table, key_type)
    from_primary = (read or settings.read or "primary") == "primary"
    if settings.reads == "sql":
        if from_primary or sql.replicas is sql:
            return writer
        return DividedExecutor(_mapped(SqlExecutor(sql.replicas, text), table, key_type), writer)
    primary = client.of_primary() if from_primary else None
    reader = _mapped(HandlerSocketExecutor(primary or client, table), table, key_type)
    divided = DividedExecutor(PrimaryReader(reader, writer) if primary else reader, writer)
    return _guarded(divided, client, table, key_type)


def check_raw(client: Client, table: Table, key_type: type) -> None:
    """Look at server and table as before the first request of a store. Raises UnsupportedError."""
    settings = client.settings
    if client.sql and (settings.readers or settings.writers):
        writes = settings.writes == "handlersocket"
        check_handlersocket(*_sql_of(client, table, key_type), writes=writes)


def _check_servers(settings: Settings) -> None:
    hosts = settings.sql.hosts if settings.sql else ()
    several = any(len(set(each)) > 1 for each in (settings.readers, settings.writers, hosts))
    if several and settings.writes == "handlersocket":
        raise UnsupportedError(
            "a store that writes by HandlerSocket has one server: its writes are not replicated, "
            "and copies on several would drift apart in silence; write by SQL: writes=sql&sql=..."
        )


def _guarded(
    executor: StoreExecutor, client: Client, table: Table, key_type: type
) -> StoreExecutor:
    sql, text = _sql_of(client, table, key_type)
    writes = client.settings.writes == "handlersocket"
    return GuardedExecutor(executor, partial(check_handlersocket, sql, text, writes=writes))


def _sql_of(client: Client, table: Table, key_type: type) -> tuple[SqlClient, SqlText]:
    database = table.database or client.settings.database
    if client.sql is None or not database:
        raise ValueError("no database is named, in the URL or here")
    return client.sql, SqlText(table, database, number_keys=key_type is int)


def _mapped(
    executor: HandlerSocketExecutor | SqlExecutor, table: Table, key_type: type
) -> StoreExecutor:
    if table.whole and key_type is not int:
        return executor
    # Of two keys that are the same to the column one would overwrite the other.
    exact = bool(table.byte_exact) or key_type is int
    takes_updates = exact and isinstance(executor, SqlExecutor)
    return MappedExecutor(executor, table, key_type is int, takes_updates=takes_updates)
