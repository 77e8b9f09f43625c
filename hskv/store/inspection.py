"""A Table read from the server by SQL: its widths, and what of it a store must not touch.

HandlerSocket itself tells nothing of types, collations and triggers, and honours few of them.
"""

from typing import Any, Final

from ..exceptions import UnsupportedError
from .faults import (
    INT_BYTES,
    expires_index,
    faults,
    is_byte_exact,
    key_bytes,
    key_index,
    value_bytes,
)
from .schema import TableSchema, read_schema
from .table import Table

_COLUMNS: Final = {
    "key": "k",
    "value": "v",
    "number": "n",
    "kind": "kind",
    "version": "version",
    "expires": "expires",
}


def inspect_table(
    connection: Any, name: str = "kv", *, database: str | None = None, **columns: str | None
) -> Table:
    """The `Table` of a table that is there, as SQL describes it.

    `connection` is a DB-API connection to the same server (PyMySQL, mariadb, ...). `columns` name
    the columns as `Table` does; those left out are taken where they have their standard names.
    `database` is the connection's own unless given. A few queries on information_schema.

    Raises TableNotFoundError, and UnsupportedError for what HandlerSocket would crash on, corrupt,
    or answer wrongly for: views, partitions, system versioning, generated columns, triggers, CHECK
    constraints, further UNIQUE indexes, keys that ignore case or trailing spaces, and columns of
    types that do not hold what a store puts in.

    >>> hskv.inspect_table(pymysql_connection, "kv").key_bytes
    255
    """
    unknown = set(columns) - set(_COLUMNS)
    if unknown:
        raise TypeError(f"{', '.join(sorted(unknown))}: a Table has {', '.join(_COLUMNS)}")
    schema = read_schema(connection, name, database)
    if not schema.columns:
        raise UnsupportedError(
            f"this user of SQL sees no column of the table {name!r}: GRANT SELECT ON it, or "
            "ask as an administrator"
        )
    there = {column: one for column, one in _COLUMNS.items() if one in schema.columns}
    named: dict[str, Any] = {
        **dict.fromkeys(_COLUMNS),
        "key": "k",
        "value": "v",
        **there,
        **columns,
    }
    if named["key"] is None or named["value"] is None:
        raise _refused(name, "it needs a key and a value column: name them by key= and value=")
    fault = next(faults(schema, Table(name, database, **named)), None)
    if fault is not None:
        hint = ": name the columns by key=, value=, ..." * (fault.id == "column-missing")
        raise _refused(name, fault.why + hint)
    return _described(schema, named, database)


def _refused(name: str, why: str) -> UnsupportedError:
    return UnsupportedError(f"the table {name!r} cannot be a store: {why}")


def _described(schema: TableSchema, named: dict[str, Any], database: str | None) -> Table:
    """A table without faults, with its widths."""
    key = schema.columns[named["key"]]
    return Table(
        schema.name,
        database,
        **named,
        index=key_index(schema, named["key"]) or "PRIMARY",
        key_bytes=key_bytes(key),
        value_bytes=value_bytes(schema.columns[named["value"]]),
        expires_index=expires_index(schema, named["expires"]),
        key_unsigned=key.data_type in INT_BYTES and key.unsigned,
        byte_exact=is_byte_exact(key),
    )
