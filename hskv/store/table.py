"""Which columns of a table mean what to a store."""

from dataclasses import dataclass
from typing import Final

NEVER: Final = 2**63 - 1
"""The value of `expires` for a row that never expires."""

_STANDARD: Final = {
    "key": "k",
    "value": "v",
    "number": "n",
    "kind": "kind",
    "version": "version",
    "expires": "expires",
}


@dataclass(frozen=True)
class Table:
    """A table of key-value rows, and the names of its columns.

    `number`, `kind`, `version` and `expires` may be None for a table that lacks such a column;
    what needs it raises UnsupportedError. `key_bytes` and `value_bytes` are the widths of the key
    and value columns in bytes (of an integer key 1, 2, 3, 4 or 8; `key_unsigned` says that it is
    unsigned). They must be right: the server cuts what is longer, in silence. `index` is the key's
    index, `expires_index` that of `expires`, None where there is none. `database` is the URL's
    unless given. It must be a base table: to open a view crashes the server.

    `byte_exact` says that the key column is VARBINARY. Of a table whose columns are named as
    `create_sql` names them that is taken for granted, of any other it is not: by a collation that
    ignores case or trailing spaces the server answers for another key. Then every row that is
    read is checked for its key, and every write takes one more round trip, which looks for the
    key first; prefixes, leases and limiters are UnsupportedError.

    >>> print(hskv.Table("sessions", key="id", value="data", number=None, kind=None,
    ...     version=None, expires=None, key_bytes=64).create_sql())
    CREATE TABLE `sessions` (
      `id` VARBINARY(64) NOT NULL PRIMARY KEY,
      `data` LONGBLOB NOT NULL
    ) ENGINE=InnoDB
    """

    name: str = "kv"
    database: str | None = None
    key: str = "k"
    value: str = "v"
    number: str | None = "n"
    kind: str | None = "kind"
    version: str | None = "version"
    expires: str | None = "expires"
    index: str = "PRIMARY"
    key_bytes: int = 255
    value_bytes: int = 2**32 - 1
    expires_index: str | None = "expires"
    key_unsigned: bool = False
    byte_exact: bool | None = None

    def __post_init__(self) -> None:
        names = [self.name, self.key, self.value, self.index]
        names += [name for name in (self.database, self.expires_index) if name is not None]
        names += [name for name in self._columns().values() if name is not None]
        if not all(isinstance(name, str) and name for name in names):
            raise ValueError("a table, its columns and its index each have a name")
        if self.key_bytes < 1 or self.value_bytes < 1:
            raise ValueError("key_bytes and value_bytes are widths in bytes, at least 1")
        if self.byte_exact is None:
            standard = all(
                name in (_STANDARD[column], None) for column, name in self._columns().items()
            )
            object.__setattr__(self, "byte_exact", standard)

    @property
    def whole(self) -> bool:
        """True for a table with every column and byte-exact keys."""
        return bool(self.byte_exact) and None not in self._columns().values()

    def create_sql(self) -> str:
        """The CREATE TABLE statement of a table that a store can use as it is."""
        columns = [
            self.column_sql(column) + " PRIMARY KEY" * (column == "key")
            for column, name in self._columns().items()
            if name
        ]
        if self.expires and self.expires_index:
            columns.append(f"KEY {quoted(self.expires_index)} ({quoted(self.expires)})")
        body = ",\n  ".join(columns)
        return f"CREATE TABLE {self.quoted_name} (\n  {body}\n) ENGINE=InnoDB"

    def column_sql(self, column: str) -> str:
        """The definition of one column, such as "number", as `create_sql` has it."""
        types = {
            "key": f"VARBINARY({self.key_bytes}) NOT NULL",
            "value": "LONGBLOB NOT NULL",
            "number": "BIGINT NOT NULL DEFAULT 0",
            "kind": "TINYINT UNSIGNED NOT NULL DEFAULT 0",
            "version": "BIGINT NOT NULL DEFAULT 0",
            "expires": f"BIGINT NOT NULL DEFAULT {NEVER}",
        }
        return f"{quoted(getattr(self, column))} {types[column]}"

    @property
    def quoted_name(self) -> str:
        """Its name as SQL has it, behind that of its database where it has one."""
        owner = f"{quoted(self.database)}." if self.database else ""
        return owner + quoted(self.name)

    def named_columns(self) -> dict[str, str]:
        """The names of the columns that it has, by their meaning ("key", "value", ...)."""
        return {column: name for column, name in self._columns().items() if name}

    def columns(self) -> list[str]:
        """The names of the columns that a store uses, in the order of `create_sql`."""
        return list(self.named_columns().values())

    def _columns(self) -> dict[str, str | None]:
        return {column: getattr(self, column) for column in _STANDARD}


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return "`" + name.replace("`", "``") + "`"
