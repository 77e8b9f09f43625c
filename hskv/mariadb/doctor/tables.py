"""What is wrong with the table: by SQL, or as far as HandlerSocket alone can tell.

HandlerSocket must not open a view, which crashes the server. What it may open without SQL is what
InnoDB keeps statistics of under its plain name: a view has none, a partitioned table one of each
partition.
"""

from collections.abc import Iterator
from typing import Final

from ...client import Client
from ...exceptions import (
    ColumnNotFoundError,
    IndexNotFoundError,
    OperationalError,
    TableNotFoundError,
)
from ...store.faults import INT_BYTES, expires_index, faults, is_byte_exact, key_bytes, value_bytes
from ...store.schema import TableSchema, query, read_schema
from ...store.table import Table, quoted
from .findings import Finding, Mend, Where
from .server import Server
from .target import Target

_STATISTICS: Final = ("mysql", "innodb_table_stats")
_LONGEST_STATEMENT: Final = 200
# SQL does all of what these are about.
_NO_FAULTS_BY_SQL: Final = (
    "table-view",
    "table-partitioned",
    "table-versioned",
    "table-engine",
    "table-trigger",
    "table-check",
    "column-generated",
    "column-default",
)


def table_findings(server: Server, table: Table, target: Target) -> Iterator[Finding]:
    """The faults of the table that SQL shows, and what is narrower than the store takes it for."""
    found = _all_findings(server, table)
    return (one for one in found if target.reads or one.id not in _NO_FAULTS_BY_SQL)


def _all_findings(server: Server, table: Table) -> Iterator[Finding]:
    try:
        schema = read_schema(server.connection, table.name, table.database)
    except TableNotFoundError:
        yield _missing(table)
        return
    for fault in faults(schema, table):
        yield _finding(fault.id, table, fault.why, *fault.mend)
    if schema.kind == "BASE TABLE" and not set(table.columns()) - set(schema.columns):
        yield from _widths(schema, table)
        yield from _expires_index(schema, table)


def _missing(table: Table) -> Finding:
    create = " ".join(table.create_sql().split())
    database = f"CREATE DATABASE IF NOT EXISTS {quoted(table.database or '')}"
    return _finding("table-missing", table, "there is none", database, create)


def _finding(name: str, table: Table, why: str, *statements: str) -> Finding:
    mend = tuple(Mend(Where.SQL, statement) for statement in statements)
    return Finding(name, f"the table {table.database}.{table.name}: {why}", mend)


def _alter(table: Table, change: str) -> str:
    return f"ALTER TABLE {table.quoted_name} {change}"


def _widths(schema: TableSchema, table: Table) -> Iterator[Finding]:
    key, value = schema.columns[table.key], schema.columns[table.value]
    to_bytes = _alter(table, f"MODIFY {table.column_sql('key')}")
    integer, takes_integers = key.data_type in INT_BYTES, table.key_bytes <= max(INT_BYTES.values())
    if (table.byte_exact and not is_byte_exact(key)) or (integer and not takes_integers):
        why = f"its key {table.key!r} is {key.column_type}, and the store takes it for VARBINARY"
        yield _finding("key-type", table, why, to_bytes)
    elif key_bytes(key) < table.key_bytes:
        why = (
            f"its key {table.key!r} holds {key_bytes(key)} bytes, and the store takes it for "
            f"{table.key_bytes}"
        )
        yield _finding("key-width", table, why, to_bytes)
    if value_bytes(value) < table.value_bytes:
        why = (
            f"its value {table.value!r} holds {value_bytes(value):,} bytes, and the store takes "
            f"it for {table.value_bytes:,}"
        )
        yield _finding(
            "value-width", table, why, _alter(table, f"MODIFY {table.column_sql('value')}")
        )


def _expires_index(schema: TableSchema, table: Table) -> Iterator[Finding]:
    if not table.expires or table.expires_index is None:
        return
    first = {index.columns[0] for index in schema.indexes.values()}
    there = expires_index(schema, table.expires) == table.expires_index
    if not there and f"{table.expires} DESC" not in first:
        yield _no_index(table)


def _no_index(table: Table) -> Finding:
    name, column = quoted(table.expires_index or ""), quoted(table.expires or "")
    why = f"it has no index {table.expires_index!r} on {table.expires!r}"
    return _finding("expires-index", table, why, _alter(table, f"ADD INDEX {name} ({column})"))


def is_known(client: Client, table: Table) -> bool:
    """Whether InnoDB keeps statistics of it, as it does of what HandlerSocket may open."""
    database, statistics = _STATISTICS
    index = client.open(statistics, ["n_rows"], database=database)
    try:
        return bool(client.find(index, "=", [table.database, table.name]))
    except OperationalError:
        return False


def opened_findings(client: Client, table: Table) -> Iterator[Finding]:
    """What HandlerSocket itself says of a table that it may open: its columns and indexes."""
    said = {
        meaning: _refusal(client, table, column, table.index)
        for meaning, column in table.named_columns().items()
    }
    for meaning, error in said.items():
        if isinstance(error, ColumnNotFoundError):
            why = f"it has no column {table.named_columns()[meaning]!r} to be the {meaning}"
            add = _alter(table, f"ADD COLUMN {table.column_sql(meaning)}")
            yield _finding("column-missing", table, why, add)
    if isinstance(said["key"], IndexNotFoundError):
        why = f"it has no index {table.index}"
        add = _alter(table, f"ADD PRIMARY KEY ({quoted(table.key)})")
        yield _finding("key-index", table, why, add)
    elif table.expires_index:
        error = _refusal(client, table, table.key, table.expires_index)
        if isinstance(error, IndexNotFoundError):
            yield _no_index(table)


def _refusal(client: Client, table: Table, column: str, index: str) -> OperationalError | None:
    """What the server says against opening a column by an index."""
    opened = client.open(table.name, [column], index_name=index, database=table.database)
    try:
        client.verify(opened)
    except (ColumnNotFoundError, IndexNotFoundError) as error:
        return error
    return None


def waiting_statements(server: Server) -> Iterator[Finding]:
    """What has waited longest for a table to be let go, of connections that may be killed."""
    rows = query(
        server.connection,
        "SELECT id, time_ms, info FROM information_schema.processlist "
        "WHERE state = 'Waiting for table metadata lock' AND user <> 'system user' "
        "ORDER BY time_ms DESC",
    )
    if rows:
        number, milliseconds, statement = rows[0]
        others = f" (and {len(rows) - 1} behind it)" * (len(rows) > 1)
        text = " ".join(str(statement).split())[:_LONGEST_STATEMENT]
        what = f"for {milliseconds / 1000:.0f} s this has waited for a table{others}: {text}"
        yield Finding("metadata-lock", what, (Mend(Where.SQL, f"KILL {number}"),))
