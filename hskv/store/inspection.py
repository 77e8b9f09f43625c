"""A Table read from the server by SQL: its widths, and what of it a store must not touch.

HandlerSocket itself tells nothing of types, collations and triggers, and honours few of them.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Final, cast

from ..exceptions import TableNotFoundError, UnsupportedError
from .table import Table

_COLUMNS: Final = {
    "key": "k",
    "value": "v",
    "number": "n",
    "kind": "kind",
    "version": "version",
    "expires": "expires",
}
_INT_BYTES: Final = {"tinyint": 1, "smallint": 2, "mediumint": 3, "int": 4, "bigint": 8}
_BINARY: Final = ("varbinary", "tinyblob", "blob", "mediumblob", "longblob")
# CHAR would lose spaces at the end.
_TEXT: Final = ("varchar", "tinytext", "text", "mediumtext", "longtext")

Rows = Sequence[Sequence[Any]]


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
    return _Inspection(connection, name, database).table(columns)


class _Inspection:
    """What information_schema says of one table."""

    def __init__(self, connection: Any, name: str, database: str | None) -> None:
        self._connection = connection
        ((current,),) = self._query("SELECT DATABASE()")
        self._at = (database or current, name)
        self._database, self._name = database, name
        self._types = self._columns()

    def table(self, named: Mapping[str, str | None]) -> Table:
        self._check_table()
        given = {column: named.get(column, name) for column, name in _COLUMNS.items()}
        given = {
            column: name if name in self._types or column in named else None
            for column, name in given.items()
        }
        for column, name in given.items():
            if name is not None and name not in self._types:
                self._refuse(f"it has no column {name!r} to be the {column}")
        if given["key"] is None or given["value"] is None:
            self._refuse("it needs a key and a value column: name them by key= and value=")
        key, value = cast(str, given["key"]), cast(str, given["value"])
        self._check_integers(given)
        self._check_inserts(set(given.values()))
        return Table(
            self._name,
            self._database,
            **cast(dict[str, Any], given),
            **self._key(key),
            index=self._unique_index(key),
            value_bytes=self._value_bytes(value, kinds=given["kind"] is not None),
            expires_index=self._index_on(given["expires"]),
        )

    def _query(self, statement: str, *arguments: object) -> Rows:
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(statement, arguments or None)
            return cast(Rows, cursor.fetchall())

    def _columns(self) -> dict[str, dict[str, Any]]:
        fields = (
            "data_type",
            "column_type",
            "is_nullable",
            "character_maximum_length",
            "character_octet_length",
            "collation_name",
            "column_default",
            "extra",
        )
        rows = self._query(
            f"SELECT column_name, {', '.join(fields)} FROM information_schema.columns "  # noqa: S608 constants
            "WHERE table_schema = %s AND table_name = %s",
            *self._at,
        )
        return {row[0]: dict(zip(fields, row[1:], strict=True)) for row in rows}

    def _check_table(self) -> None:
        found = self._query(
            "SELECT table_type, engine, create_options FROM information_schema.tables "
            "WHERE table_schema = %s AND table_name = %s",
            *self._at,
        )
        if not found:
            raise TableNotFoundError(f"there is no table {self._name!r} in {self._at[0]!r}")
        kind, engine, options = found[0]
        if kind != "BASE TABLE":
            self._refuse(f"it is a {kind}: the server crashes, or corrupts it")
        if "partitioned" in (options or ""):
            self._refuse("it is partitioned: a scan of it crashes the server")
        if engine not in ("InnoDB", "Aria", "MyISAM", "ROCKSDB"):
            self._refuse(f"its engine {engine} does not scan in key order: use InnoDB")

    def _check_inserts(self, used: set[str | None]) -> None:
        for name, column in self._types.items():
            extra = str(column["extra"]).upper()
            if "GENERATED" in extra:
                self._refuse(f"HandlerSocket corrupts its generated column {name!r}")
            if "AUTO_INCREMENT" in extra:
                self._refuse(f"the server gives out numbers for {name!r} (AUTO_INCREMENT)")
            default = str(column["column_default"] or "")
            evaluated = "(" in default and not default.startswith("'")
            if name not in used and (evaluated or "CURRENT_TIMESTAMP" in extra):
                self._refuse(f"HandlerSocket does not evaluate the default of its column {name!r}")
        checked = (
            ("triggers", "event_object_schema = %s AND event_object_table = %s", "a trigger"),
            ("check_constraints", "constraint_schema = %s AND table_name = %s", "a CHECK"),
        )
        for view, where, what in checked:
            if self._query(f"SELECT 1 FROM information_schema.{view} WHERE {where}", *self._at):  # noqa: S608 constants
                self._refuse(f"it has {what}, which HandlerSocket ignores")

    def _indexes(self) -> dict[str, tuple[bool, list[str]]]:
        """Whether it is unique, and its columns, by name."""
        indexes: dict[str, tuple[bool, list[str]]] = {}
        rows = self._query(
            "SELECT index_name, non_unique, column_name, sub_part, collation "
            "FROM information_schema.statistics "
            "WHERE table_schema = %s AND table_name = %s ORDER BY index_name, seq_in_index",
            *self._at,
        )
        for name, non_unique, column, part, order in rows:
            columns = indexes.setdefault(name, (not non_unique, []))[1]
            what = column if part is None else f"a prefix of {column}"
            columns.append(f"{what} DESC" if order == "D" else what)
        return indexes

    def _unique_index(self, key: str) -> str:
        unique = [name for name, (is_unique, _) in self._indexes().items() if is_unique]
        fitting = [name for name in unique if self._indexes()[name][1] == [key]]
        if not fitting:
            others = "; ".join(", ".join(columns) for _, columns in self._indexes().values())
            self._refuse(f"it has no PRIMARY or UNIQUE index on {key!r} alone, but on: {others}")
        if len(unique) > 1:
            self._refuse("it has more than one UNIQUE index: a write could hit another's row")
        return fitting[0]

    def _index_on(self, column: str | None) -> str | None:
        indexes = {name: columns[0] for name, (_, columns) in self._indexes().items()}
        found = [name for name, first in indexes.items() if first == column]
        if not found and f"{column} DESC" in indexes.values():
            self._refuse(f"its index on {column!r} is in descending order (DESC)")
        return found[0] if found else None

    def _key(self, name: str) -> dict[str, Any]:
        column = self._types[name]
        kind, collation = column["data_type"], column["collation_name"]
        if column["is_nullable"] == "YES":
            self._refuse(f"its key {name!r} may be NULL")
        if kind in _INT_BYTES:
            unsigned = "unsigned" in column["column_type"]
            return {"key_bytes": _INT_BYTES[kind], "key_unsigned": unsigned, "byte_exact": True}
        if kind == "varbinary":
            return {"key_bytes": column["character_octet_length"], "byte_exact": True}
        if kind == "varchar" and str(collation).endswith("_nopad_bin") and "utf8mb4" in collation:
            # As many bytes as characters fit for certain.
            return {"key_bytes": column["character_maximum_length"], "byte_exact": False}
        raise UnsupportedError(
            f"the key {name!r} of the table {self._name!r} is {column['column_type']} "
            f"{collation or ''}, by which different keys are taken for the same: make it "
            "VARBINARY, an integer, or VARCHAR of a utf8mb4_..._nopad_bin collation"
        )

    def _value_bytes(self, name: str, *, kinds: bool) -> int:
        column = self._types[name]
        kind, collation = column["data_type"], str(column["collation_name"])
        if column["is_nullable"] == "YES":
            self._refuse(f"its value {name!r} may be NULL: make it NOT NULL")
        if kind in _BINARY:
            return int(column["character_octet_length"])
        if kind not in _TEXT or not collation.startswith("utf8mb4"):
            self._refuse(
                f"its value {name!r} is {column['column_type']}: make it LONGBLOB, or a text of "
                "utf8mb4"
            )
        if kinds:
            self._refuse(
                f"its value {name!r} is text, which holds no bytes: kind=None, or LONGBLOB"
            )
        width = "character_maximum_length" if "char" in kind else "character_octet_length"
        return int(column[width])

    def _check_integers(self, given: Mapping[str, str | None]) -> None:
        for meaning in ("number", "kind", "version", "expires"):
            name = given[meaning]
            if name is None:
                continue
            column = self._types[name]
            wanted = ("tinyint",) if meaning == "kind" else ("bigint",)
            unsigned = "unsigned" in column["column_type"]
            if column["data_type"] not in wanted or (unsigned and meaning != "kind"):
                self._refuse(f"its {meaning} {name!r} is {column['column_type']}, not {wanted[0]}")
            if column["is_nullable"] == "YES":
                self._refuse(f"its {meaning} {name!r} may be NULL: make it NOT NULL")

    def _refuse(self, why: str) -> None:
        raise UnsupportedError(f"the table {self._name!r} cannot be a store: {why}")
