"""Which columns of a table mean what to a store."""

from dataclasses import dataclass, fields
from typing import Final

NEVER: Final = 2**63 - 1
"""The value of `expires` for a row that never expires."""


@dataclass(frozen=True)
class Table:
    """A table of key-value rows, and the names of its columns.

    `key_bytes` and `value_bytes` are the widths of the key and value columns in bytes. They
    must be right: the server cuts what is longer, in silence, and then answers for another row.
    `database` is the URL's unless given. The key column must be VARBINARY: by a collation that
    ignores case or trailing spaces the server would answer for another key. It must be a base
    table: to open a view crashes the server.
    """

    name: str = "kv"
    database: str | None = None
    key: str = "k"
    value: str = "v"
    number: str = "n"
    kind: str = "kind"
    version: str = "version"
    expires: str = "expires"
    index: str = "PRIMARY"
    key_bytes: int = 255
    value_bytes: int = 2**32 - 1

    def __post_init__(self) -> None:
        names = [getattr(self, field.name) for field in fields(self) if field.type is str]
        if not all(isinstance(name, str) and name for name in names):
            raise ValueError("a table, its columns and its index each have a name")
        if self.key_bytes < 1 or self.value_bytes < 1:
            raise ValueError("key_bytes and value_bytes are widths in bytes, at least 1")

    def create_sql(self) -> str:
        """The CREATE TABLE statement of a table that a store can use as it is."""
        names = {
            column: _quoted(getattr(self, column))
            for column in ("key", "value", "number", "kind", "version", "expires")
        }
        columns = (
            f"{names['key']} VARBINARY({self.key_bytes}) NOT NULL PRIMARY KEY",
            f"{names['value']} LONGBLOB NOT NULL",
            f"{names['number']} BIGINT NOT NULL DEFAULT 0",
            f"{names['kind']} TINYINT UNSIGNED NOT NULL DEFAULT 0",
            f"{names['version']} BIGINT NOT NULL DEFAULT 0",
            f"{names['expires']} BIGINT NOT NULL DEFAULT {NEVER}",
            f"KEY {names['expires']} ({names['expires']})",
        )
        owner = f"{_quoted(self.database)}." if self.database else ""
        body = ",\n  ".join(columns)
        return f"CREATE TABLE {owner}{_quoted(self.name)} (\n  {body}\n) ENGINE=InnoDB"


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
