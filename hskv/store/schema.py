"""A table as SQL describes it: read from information_schema, judged elsewhere."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple, cast

from ..exceptions import TableNotFoundError

Rows = Sequence[Sequence[Any]]


class ColumnSchema(NamedTuple):
    """One column, in the words of information_schema."""

    data_type: str
    column_type: str
    is_nullable: str
    character_maximum_length: int | None
    character_octet_length: int | None
    collation_name: str | None
    column_default: str | None
    extra: str

    @property
    def nullable(self) -> bool:
        """Whether it may be NULL."""
        return self.is_nullable == "YES"

    @property
    def unsigned(self) -> bool:
        """Whether it is an integer without a sign."""
        return "unsigned" in self.column_type


class IndexSchema(NamedTuple):
    """One index: its columns, with what is special of them, such as "k DESC"."""

    unique: bool
    columns: tuple[str, ...]


class TableSchema(NamedTuple):
    """One table: its type (BASE TABLE, VIEW, ...), columns, indexes, triggers and CHECKs."""

    name: str
    database: str
    kind: str
    engine: str | None
    options: str
    columns: Mapping[str, ColumnSchema]
    indexes: Mapping[str, IndexSchema]
    triggers: tuple[str, ...]
    checks: tuple[tuple[str, str], ...]
    """(name, level): a CHECK of level Column has the name of its column."""


def read_schema(connection: Any, name: str, database: str | None = None) -> TableSchema:
    """The table of a name, in the connection's database unless one is given.

    `connection` is a DB-API connection. Seven queries. Raises TableNotFoundError.
    """
    ((current,),) = query(connection, "SELECT DATABASE()")
    at = (database or current, name)
    found = query(
        connection,
        "SELECT table_type, engine, create_options FROM information_schema.tables "
        "WHERE table_schema = %s AND table_name = %s",
        *at,
    )
    if not found:
        raise TableNotFoundError(f"there is no table {name!r} in {at[0]!r}")
    kind, engine, options = found[0]
    return TableSchema(
        name,
        at[0],
        kind,
        engine,
        options or "",
        _columns(connection, at),
        _indexes(connection, at),
        _triggers(connection, at),
        _checks(connection, at),
    )


def query(connection: Any, statement: str, *arguments: object) -> Rows:
    """The rows of a statement."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement, arguments or None)
        return cast(Rows, cursor.fetchall())


def _columns(connection: Any, at: tuple[str, str]) -> dict[str, ColumnSchema]:
    rows = query(
        connection,
        f"SELECT column_name, {', '.join(ColumnSchema._fields)} "  # noqa: S608 constants
        "FROM information_schema.columns WHERE table_schema = %s AND table_name = %s",
        *at,
    )
    return {row[0]: ColumnSchema(*row[1:]) for row in rows}


def _indexes(connection: Any, at: tuple[str, str]) -> dict[str, IndexSchema]:
    rows = query(
        connection,
        "SELECT index_name, non_unique, column_name, sub_part, collation "
        "FROM information_schema.statistics "
        "WHERE table_schema = %s AND table_name = %s ORDER BY index_name, seq_in_index",
        *at,
    )
    indexes: dict[str, IndexSchema] = {}
    for name, non_unique, column, part, order in rows:
        what = column if part is None else f"a prefix of {column}"
        what = f"{what} DESC" if order == "D" else what
        before = indexes[name].columns if name in indexes else ()
        indexes[name] = IndexSchema(not non_unique, (*before, what))
    return indexes


def _triggers(connection: Any, at: tuple[str, str]) -> tuple[str, ...]:
    rows = query(
        connection,
        "SELECT trigger_name FROM information_schema.triggers "
        "WHERE event_object_schema = %s AND event_object_table = %s",
        *at,
    )
    return tuple(row[0] for row in rows)


def _checks(connection: Any, at: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    rows = query(
        connection,
        "SELECT constraint_name, level FROM information_schema.check_constraints "
        "WHERE constraint_schema = %s AND table_name = %s",
        *at,
    )
    return tuple((row[0], row[1]) for row in rows)
