"""What of a table a store must not touch, and the SQL that mends it.

HandlerSocket crashes on some tables, and corrupts others or answers wrongly for them in silence.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from .schema import ColumnSchema, TableSchema
from .table import Table, quoted

INT_BYTES: Final = {"tinyint": 1, "smallint": 2, "mediumint": 3, "int": 4, "bigint": 8}
_BINARY: Final = ("varbinary", "tinyblob", "blob", "mediumblob", "longblob")
# CHAR would lose spaces at the end.
_TEXT: Final = ("varchar", "tinytext", "text", "mediumtext", "longtext")
_ENGINES: Final = ("InnoDB", "Aria", "MyISAM", "ROCKSDB")
_NUMBERS: Final = ("number", "kind", "version", "expires")


class Fault(NamedTuple):
    """One fault of a table.

    `id` names it, `why` ends the sentence "the table cannot be a store: ...", `mend` are the
    statements that mend it.
    """

    id: str
    why: str
    mend: tuple[str, ...]


def faults(schema: TableSchema, table: Table) -> Iterator[Fault]:
    """The faults of what is there, as the `table` that a store takes it for; gravest first."""
    yield from _table(schema, table)
    if schema.kind not in ("BASE TABLE", "SYSTEM VERSIONED"):
        return
    missing = list(_missing(schema, table))
    yield from missing
    if not missing:
        yield from _numbers(schema, table)
        yield from _inserts(schema, table)
        yield from _key(schema, table)
        yield from _indexes(schema, table)
        yield from _value(schema, table)


def is_byte_exact(column: ColumnSchema) -> bool:
    """Whether no two keys are the same to a key column unless their bytes are."""
    return column.data_type in INT_BYTES or column.data_type == "varbinary"


def _alter(table: Table, *changes: str) -> tuple[str, ...]:
    return (f"ALTER TABLE {table.quoted_name} {', '.join(changes)}",)


def _modify(table: Table, column: str) -> tuple[str, ...]:
    return _alter(table, f"MODIFY {table.column_sql(column)}")


def _table(schema: TableSchema, table: Table) -> Iterator[Fault]:
    if schema.kind == "SYSTEM VERSIONED":
        why = "it is SYSTEM VERSIONED: SQL does not see what HandlerSocket writes"
        yield Fault("table-versioned", why, _alter(table, "DROP SYSTEM VERSIONING"))
    elif schema.kind != "BASE TABLE":
        away = quoted(f"{schema.name}_{schema.kind.lower().replace(' ', '_')}")
        owner, _, _ = table.quoted_name.rpartition(quoted(schema.name))
        mend = f"RENAME TABLE {table.quoted_name} TO {owner}{away}"
        why = f"it is a {schema.kind}: the server crashes, or corrupts it"
        yield Fault("table-view", why, (mend, _one_line(table.create_sql())))
    if "partitioned" in schema.options:
        why = "it is partitioned: a scan of it crashes the server"
        yield Fault("table-partitioned", why, _alter(table, "REMOVE PARTITIONING"))
    if schema.engine not in _ENGINES and schema.kind == "BASE TABLE":
        why = f"its engine {schema.engine} does not scan in key order: use InnoDB"
        yield Fault("table-engine", why, _alter(table, "ENGINE=InnoDB"))


def _one_line(statement: str) -> str:
    return " ".join(statement.split())


def _missing(schema: TableSchema, table: Table) -> Iterator[Fault]:
    for column, name in table.named_columns().items():
        if name not in schema.columns:
            why = f"it has no column {name!r} to be the {column}"
            yield Fault(
                "column-missing", why, _alter(table, f"ADD COLUMN {table.column_sql(column)}")
            )


def _numbers(schema: TableSchema, table: Table) -> Iterator[Fault]:
    for meaning in _NUMBERS:
        name = table.named_columns().get(meaning)
        if name is None:
            continue
        column = schema.columns[name]
        wanted = "tinyint" if meaning == "kind" else "bigint"
        mend = _modify(table, meaning)
        if column.data_type != wanted or (column.unsigned and meaning != "kind"):
            why = f"its {meaning} {name!r} is {column.column_type}, not {wanted}"
            yield Fault("number-type", why, mend)
        elif column.nullable:
            why = f"its {meaning} {name!r} may be NULL: make it NOT NULL"
            yield Fault("column-null", why, mend)


def _inserts(schema: TableSchema, table: Table) -> Iterator[Fault]:
    """What SQL sees to when a row is inserted, and HandlerSocket does not."""
    for name, column in schema.columns.items():
        yield from _inserted(name, column, table)
    for name in schema.triggers:
        owner = f"{quoted(table.database)}." if table.database else ""
        why = f"it has a trigger {name!r}, which HandlerSocket ignores"
        yield Fault("table-trigger", why, (f"DROP TRIGGER {owner}{quoted(name)}",))
    for name, level in schema.checks:
        change = f"DROP CONSTRAINT {quoted(name)}"
        if level == "Column":
            change = f"MODIFY {_plain(name, schema.columns[name])}"
        why = f"it has a CHECK {name!r}, which HandlerSocket ignores"
        yield Fault("table-check", why, _alter(table, change))


def _inserted(name: str, column: ColumnSchema, table: Table) -> Iterator[Fault]:
    """What SQL would put into a column."""
    extra, plain = column.extra.upper(), _alter(table, f"MODIFY {_plain(name, column)}")
    if "GENERATED" in extra:
        why = f"HandlerSocket corrupts its generated column {name!r}"
        yield Fault("column-generated", why, _alter(table, f"DROP COLUMN {quoted(name)}"))
    elif "AUTO_INCREMENT" in extra:
        why = f"the server gives out numbers for {name!r} (AUTO_INCREMENT)"
        yield Fault("column-auto-increment", why, plain)
    elif name not in table.columns() and _evaluated(column):
        why = f"HandlerSocket does not evaluate the default of its column {name!r}"
        yield Fault("column-default", why, plain)


def _evaluated(column: ColumnSchema) -> bool:
    """Whether its default is more than a constant."""
    default = str(column.column_default or "")
    in_brackets = "(" in default and not default.startswith("'")
    return in_brackets or "CURRENT_TIMESTAMP" in column.extra.upper()


def _plain(name: str, column: ColumnSchema) -> str:
    """The definition of a column with nothing but its type, and a default that is a constant."""
    words = [quoted(name), column.column_type]
    if column.collation_name:
        words.append(f"COLLATE {column.collation_name}")
    words.append("NULL" if column.nullable else "NOT NULL")
    if column.column_default is not None and not _evaluated(column):
        words.append(f"DEFAULT {column.column_default}")
    elif "timestamp" in column.column_type:
        # Else the server would put the time back.
        words.append("DEFAULT NULL" if column.nullable else "DEFAULT 0")
    return " ".join(words)


def _key(schema: TableSchema, table: Table) -> Iterator[Fault]:
    column = schema.columns[table.key]
    collation = str(column.collation_name or "")
    exact_text = collation.endswith("_nopad_bin") and "utf8mb4" in collation
    if not (is_byte_exact(column) or (column.data_type == "varchar" and exact_text)):
        why = (
            f"by the key {table.key!r}, {column.column_type} {collation}, different keys are taken "
            "for the same: make it VARBINARY, an integer, or VARCHAR of a "
            "utf8mb4_..._nopad_bin collation"
        )
        yield Fault("key-type", why, _modify(table, "key"))
    elif column.nullable:
        yield Fault("column-null", f"its key {table.key!r} may be NULL", _modify(table, "key"))


def _indexes(schema: TableSchema, table: Table) -> Iterator[Fault]:
    unique = {name: index.columns for name, index in schema.indexes.items() if index.unique}
    fitting = key_index(schema, table.key)
    if fitting is None:
        others = "; ".join(", ".join(index.columns) for index in schema.indexes.values())
        why = f"it has no PRIMARY or UNIQUE index on {table.key!r} alone, but on: {others or '-'}"
        drop = ["DROP PRIMARY KEY"] * ("PRIMARY" in unique)
        add = f"ADD PRIMARY KEY ({quoted(table.key)})"
        yield Fault("key-index", why, _alter(table, *drop, add))
    for name in unique:
        if len(unique) > 1 and name not in (fitting, "PRIMARY"):
            why = f"it has more than one UNIQUE index ({name!r}): a write could hit another's row"
            yield Fault("table-unique", why, _alter(table, f"DROP INDEX {quoted(name)}"))
    if table.expires is not None and expires_index(schema, table.expires) is None:
        yield from _descending(schema, table, table.expires)


def _descending(schema: TableSchema, table: Table, column: str) -> Iterator[Fault]:
    for name, index in schema.indexes.items():
        if index.columns[0] == f"{column} DESC":
            why = f"its index on {column!r} is in descending order (DESC)"
            change = f"DROP INDEX {quoted(name)}", f"ADD INDEX {quoted(column)} ({quoted(column)})"
            yield Fault("expires-index-descending", why, _alter(table, *change))


def key_index(schema: TableSchema, key: str) -> str | None:
    """The name of the unique index on the key alone, if there is one."""
    fits = (name for name, index in schema.indexes.items() if index == (True, (key,)))
    return next(fits, None)


def expires_index(schema: TableSchema, column: str | None) -> str | None:
    """The name of an index that begins with a column, if there is one."""
    fits = (name for name, index in schema.indexes.items() if index.columns[0] == column)
    return next(fits, None)


def _value(schema: TableSchema, table: Table) -> Iterator[Fault]:
    name, column = table.value, schema.columns[table.value]
    mend = _modify(table, "value")
    if column.nullable:
        yield Fault("column-null", f"its value {name!r} may be NULL: make it NOT NULL", mend)
    if column.data_type in _BINARY:
        return
    if column.data_type not in _TEXT or not str(column.collation_name).startswith("utf8mb4"):
        why = f"its value {name!r} is {column.column_type}: make it LONGBLOB, or a text of utf8mb4"
        yield Fault("value-type", why, mend)
    elif table.kind is not None:
        why = f"its value {name!r} is text, which holds no bytes: kind=None, or LONGBLOB"
        yield Fault("value-type", why, mend)


def value_bytes(column: ColumnSchema) -> int:
    """How many bytes a value column holds for certain."""
    characters = column.data_type == "varchar"
    width = column.character_maximum_length if characters else column.character_octet_length
    return int(width or 0)


def key_bytes(column: ColumnSchema) -> int:
    """How many bytes a key column holds for certain."""
    if column.data_type in INT_BYTES:
        return INT_BYTES[column.data_type]
    return value_bytes(column)
