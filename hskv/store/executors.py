"""Which executor carries out which verb: HandlerSocket's, SQL's, or each its part."""

from collections.abc import Sequence
from typing import Literal

from ..client import Client
from ..exceptions import UnsupportedError
from ..transport.address import Settings
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


def store_executor(
    client: Client, table: Table, key_type: type, read: Read | None
) -> StoreExecutor:
    """The executor of a store in the mode of its client.

    Raises UnsupportedError for HandlerSocket's writes with several servers.
    """
    settings = client.settings
    _check_servers(settings)
    if settings.writes == "handlersocket":
        return _mapped(HandlerSocketExecutor(client, table), table, key_type)
    writer = _mapped(_by_sql(client, table, key_type), table, key_type)
    if settings.reads == "sql" or _reads_primary(settings, read):
        return writer
    reader = _mapped(HandlerSocketExecutor(client, table), table, key_type)
    return DividedExecutor(reader, writer)


def _check_servers(settings: Settings) -> None:
    several = len(set(settings.readers)) > 1 or len(set(settings.writers)) > 1
    if several and settings.writes == "handlersocket":
        raise UnsupportedError(
            "a store that writes by HandlerSocket has one server: its writes are not replicated, "
            "and copies on several would drift apart in silence; write by SQL: writes=sql&sql=..."
        )


def _reads_primary(settings: Settings, read: Read | None) -> bool:
    """Whether reads go to where writes go, by SQL: HandlerSocket does not say who is it now."""
    sql = settings.sql.hosts if settings.sql else ()
    if len(settings.readers) == 1 and len(sql) == 1:
        return False
    return (read or settings.read or "primary") == "primary"


def _by_sql(client: Client, table: Table, key_type: type) -> SqlExecutor:
    database = table.database or client.settings.database
    if client.sql is None or not database:
        raise ValueError("no database is named, in the URL or here")
    return SqlExecutor(client.sql, SqlText(table, database, number_keys=key_type is int))


def _mapped(
    executor: HandlerSocketExecutor | SqlExecutor, table: Table, key_type: type
) -> StoreExecutor:
    if table.whole and key_type is not int:
        return executor
    return MappedExecutor(executor, table, number_keys=key_type is int)
