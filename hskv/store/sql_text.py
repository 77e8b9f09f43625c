"""Verbs as the text of SQL statements, each atomic by itself. No I/O.

All values stand in the text as literals that mean the same whatever the server's settings: bytes
in hexadecimal, or quoted, where only the quote and the backslash are special.
"""

from binascii import hexlify
from collections.abc import Callable, Sequence
from typing import Final

from ..sql import Statement
from ..transport.retry import Effect
from .table import Table
from .verbs import (
    COLUMNS,
    Add,
    Cell,
    Cells,
    Column,
    Condition,
    Delete,
    DeleteExpired,
    DeleteRange,
    Find,
    Insert,
    Scan,
    Update,
    Where,
)

# What LAST_INSERT_ID says of a duplicate: no id of a row, or of none.
DUPLICATE: Final = 2**64 - 59
# Longer ones are quoted: twice the bytes would come near to max_allowed_packet.
_LONGEST_HEX: Final = 1024
# The end of a range where there is none: behind every key.
_BEHIND_BYTES: Final = b"\xff" * 1024
_BEHIND_TEXT: Final = "\U0010ffff".encode() * 256


def literal(value: bytes) -> bytes:
    """Bytes as a literal of a binary string."""
    if len(value) <= _LONGEST_HEX:
        return b"x'%b'" % hexlify(value)
    return b"_binary'%b'" % value.replace(b"\\", b"\\\\").replace(b"'", b"\\'")


def quoted(name: str) -> bytes:
    """A name of a table or column."""
    return b"`%b`" % name.replace("`", "``").encode()


class SqlText:
    """The statements of one table. `number_keys` where the key column is an integer."""

    def __init__(self, table: Table, database: str, *, number_keys: bool) -> None:
        owner = table.database or database
        self._table = b"%b.%b" % (quoted(owner), quoted(table.name))
        self._name = table.name
        self._at = (owner.encode(), table.name.encode())
        self._names = {
            column: quoted(name) for column in COLUMNS if (name := getattr(table, column))
        }
        self._number_keys = number_keys
        # A literal of bytes would be compared without the index of a column of text.
        self._exact = number_keys or table.byte_exact
        self._key_form = b"x'%b'" if self._exact else b"_utf8mb4 x'%b'"
        self._columns = tuple(self._names)
        self._whole = table.whole and not number_keys
        self._insert = b"INSERT INTO %b (%b) VALUES " % (self._table, self._list(self._columns))
        self._key = self._names["key"]

    @property
    def table_name(self) -> bytes:
        """The table, as it is named in statements."""
        return self._table

    def facts(self) -> Statement:
        """What information_schema says: type, engine, options, number of unique indexes."""
        at = tuple(map(literal, self._at))
        text = (
            b"SELECT table_type, engine, create_options, (SELECT COUNT(DISTINCT index_name) FROM"
            b" information_schema.statistics WHERE table_schema = %b AND table_name = %b AND"
            b" non_unique = 0) FROM information_schema.tables WHERE table_schema = %b AND"
            b" table_name = %b" % (*at, *at)
        )
        return self._statement(text, Effect.READ)

    def find(self, verb: Find) -> Statement:
        """Of `Find`."""
        if not self._exact and len(verb.keys) > 1:
            return self._find_each(verb)
        text = b"SELECT %b FROM %b WHERE %b%b" % (
            self._list(verb.columns),
            self._table,
            self._keys(verb.keys),
            self._and(verb.where),
        )
        return self._statement(text, Effect.READ)

    def _find_each(self, verb: Find) -> Statement:
        """Of `Find`, where two keys may be the same to the column: a row for each that has one."""
        selects = [self.find(verb._replace(keys=(key,))).text for key in verb.keys]
        return self._statement(b" UNION ALL ".join(selects), Effect.READ)

    def scan(self, verb: Scan) -> Statement:
        """Of `Scan`."""
        text = b"SELECT %b FROM %b WHERE %b%b ORDER BY %b LIMIT %d" % (
            self._list(verb.columns),
            self._table,
            self._range(verb),
            self._and(verb.where),
            self._key,
            verb.limit,
        )
        return self._statement(text, Effect.READ)

    def insert(self, verb: Insert) -> Statement:
        """Of `Insert`, as the last of its packet: a duplicate is an error."""
        return self._statement(self._insert + self._row(verb.row), Effect.WRITE_ROW)

    def insert_unless(self, verb: Insert) -> Statement:
        """Of `Insert` in front of others, which an error would keep from being carried out.

        On a duplicate nothing is changed, and LAST_INSERT_ID is `DUPLICATE`.
        """
        key = self._key
        text = b"%b%b ON DUPLICATE KEY UPDATE %b = IF(LAST_INSERT_ID(%d), %b, %b)" % (
            self._insert,
            self._row(verb.row),
            *(key, DUPLICATE, key, key),
        )
        return self._statement(text, Effect.WRITE_ROW)

    def store(self, rows: Sequence[Cells]) -> Statement:
        """Of many rows, whatever was there. For a table without another unique index."""
        changes = b", ".join(
            b"%b = VALUES(%b)" % (name, name)
            for column, name in self._names.items()
            if column != "key"
        )
        # In one order, since two that lock rows crosswise would be undone and done again.
        values = b",".join(self._values(sorted(rows)))
        text = b"%b%b ON DUPLICATE KEY UPDATE %b" % (self._insert, values, changes)
        return self._statement(text, Effect.WRITE_ROW)

    def parts(self, rows: Sequence[Cells], room: int) -> list[list[Cells]]:
        """The rows so divided that `store` of each part fits in `room` bytes, if its first does."""
        room -= len(self.store([]).text)
        parts: list[list[Cells]] = []
        left = 0
        for row, values in zip(rows, self._values(rows), strict=True):
            left -= len(values) + 1
            if left < 0:
                parts.append([])
                left = room - len(values) - 1
            parts[-1].append(row)
        return parts

    def _values(self, rows: Sequence[Cells]) -> list[bytes]:
        return _whole(rows) if self._whole else [self._row(row) for row in rows]

    def update(self, verb: Update) -> Statement:
        """Of `Update`."""
        if verb.returning:
            return self._update_returning(verb)
        changes = b", ".join(
            b"%b = %b" % (self._names[column], self._cell(column, cell))
            for column, cell in zip(verb.columns, verb.cells, strict=True)
            if column in self._names
        )
        return self._statement(self._changing(changes, verb.key, verb.where), Effect.WRITE_ROW)

    def add(self, verb: Add) -> Statement:
        """Of `Add` to several columns: the old numbers are kept in variables, and read."""
        changes = b", ".join(
            b"%b = (@hskv%d := %b) + (%d)"
            % (self._names[column], number, self._names[column], delta)
            for number, (column, delta) in enumerate(zip(verb.columns, verb.deltas, strict=True))
        )
        text = self._changing(changes, verb.key, verb.where)
        return self._read_back(text, len(verb.columns))

    def count(
        self, key: bytes, where: Where, columns: Sequence[Column], deltas: Sequence[int]
    ) -> Statement:
        """Of `Add`, where only the old number of the first column is asked: LAST_INSERT_ID."""
        name = self._names[columns[0]]
        # It has no sign, so nothing is made of it here.
        changes = b"%b = IF(LAST_INSERT_ID(%b) IS NULL, NULL, %b + (%d))" % (
            *(name, name, name),
            deltas[0],
        )
        for column, delta in zip(columns[1:], deltas[1:], strict=True):
            changes += b", %b = %b + (%d)" % (self._names[column], self._names[column], delta)
        return self._statement(self._changing(changes, key, where), Effect.WRITE_ROW)

    def delete(self, verb: Delete) -> Statement:
        """Of `Delete`."""
        return self._delete(self._keys(verb.keys) + self._and(verb.where), b"", verb.returning)

    def delete_range(self, verb: DeleteRange) -> Statement:
        """Of `DeleteRange`; where it is to stop is looked for first, and kept in a variable.

        Rows that come in between are judged by what they are themselves.
        """
        where = self._range(verb) + self._and(verb.where) + self._and(verb.while_)
        order = b" ORDER BY %b LIMIT %d" % (self._key, verb.limit)
        if not verb.while_:
            return self._delete(where, order, verb.returning)
        where += b" AND %b < @hskv_stop" % self._key
        statement = self._delete(where, order, verb.returning)
        return statement._replace(text=self._stop(verb) + statement.text, results=2)

    def _stop(self, verb: DeleteRange) -> bytes:
        passed = b" AND ".join(map(self._condition, verb.while_))
        first = b"SELECT %b FROM %b WHERE %b AND NOT (%b) ORDER BY %b LIMIT 1" % (
            *(self._key, self._table, self._range(verb), passed, self._key),
        )
        return b"SET @hskv_stop = IFNULL((%b), %b); " % (first, self._behind_all())

    def delete_expired(self, verb: DeleteExpired) -> Statement:
        """Of `DeleteExpired`."""
        expires = self._names["expires"]
        where = b"%b <= %d%b" % (expires, verb.before, self._and(verb.where))
        return self._delete(where, b" ORDER BY %b LIMIT %d" % (expires, verb.limit), ())

    def _statement(self, text: bytes, effect: Effect, results: int = 1) -> Statement:
        return Statement(text, effect, results, self._name)

    def _update_returning(self, verb: Update) -> Statement:
        # The old cells go into variables before the first column is set: assignments are made
        # from left to right. The sum is never negative.
        names = [self._names[column] for column in verb.columns]
        cells = map(self._cell, verb.columns, verb.cells)
        keep = b" + ".join(
            b"((@hskv%d := %b) IS NULL)" % (number, name) for number, name in enumerate(names)
        )
        first, *others = zip(names, cells, strict=True)
        changes = b"%b = IF(%b < 0, NULL, %b)" % (first[0], keep, first[1])
        for name, cell in others:
            changes += b", %b = %b" % (name, cell)
        text = self._changing(changes, verb.key, verb.where)
        return self._read_back(text, len(names))

    def _read_back(self, text: bytes, count: int) -> Statement:
        """A write that keeps old cells in so many variables, and those."""
        names = b", ".join(b"@hskv%d" % number for number in range(count))
        statement = self._statement(text + b"; SELECT " + names, Effect.WRITE_ROW, 2)
        return statement._replace(reads_back=True)

    def _changing(self, changes: bytes, key: bytes, where: Where) -> bytes:
        conditions = self._key_literal(key) + self._and(where)
        return b"UPDATE %b SET %b WHERE %b = %b" % (self._table, changes, self._key, conditions)

    def _delete(self, where: bytes, order: bytes, returning: Sequence[Column]) -> Statement:
        text = b"DELETE FROM %b WHERE %b%b" % (self._table, where, order)
        if returning:
            text += b" RETURNING " + self._list(returning)
        return self._statement(text, Effect.WRITE)

    def _list(self, columns: Sequence[Column]) -> bytes:
        return b", ".join(self._names[column] for column in columns)

    def _row(self, row: Sequence[Cell]) -> bytes:
        cells = zip(COLUMNS, row, strict=True)
        return b"(%b)" % b",".join(
            self._cell(column, cell) for column, cell in cells if column in self._names
        )

    def _cell(self, column: Column, cell: Cell) -> bytes:
        if isinstance(cell, int):
            return b"%d" % cell
        return self._key_literal(cell) if column == "key" else literal(cell)

    def _key_literal(self, key: bytes) -> bytes:
        # In hexadecimal, whatever its length: `_utf8mb4` may stand before that.
        return b"%d" % int(key) if self._number_keys else self._key_form % hexlify(key)

    def _keys(self, keys: Sequence[bytes]) -> bytes:
        if len(keys) == 1:
            return b"%b = %b" % (self._key, self._key_literal(keys[0]))
        return b"%b IN (%b)" % (self._key, b",".join(map(self._key_literal, keys)))

    def _range(self, verb: Scan | DeleteRange) -> bytes:
        operation = b">" if verb.after else b">="
        text = b"%b %b %b" % (self._key, operation, self._key_literal(verb.start))
        return text + (
            b" AND %b < %b" % (self._key, self._key_literal(verb.end)) if verb.end else b""
        )

    def _behind_all(self) -> bytes:
        if self._number_keys:
            return b"9223372036854775807"
        return self._key_literal(_BEHIND_BYTES if self._exact else _BEHIND_TEXT)

    def _and(self, where: Where) -> bytes:
        return b"".join(b" AND " + self._condition(one) for one in where)

    def _condition(self, one: Condition) -> bytes:
        return b"%b %b %b" % (
            self._names[one.column],
            one.operation.encode(),
            self._cell(one.column, one.value),
        )


def _whole(rows: Sequence[Cells]) -> list[bytes]:
    """Rows of every column, made quick."""
    return [
        b"(x'%b',%b,%d,%d,%d,%d)" % (hexlify(key), literal(value), number, kind, version, expires)
        for key, value, number, kind, version, expires in rows
    ]


BUILDERS: Final[dict[type, Callable[..., Statement]]] = {
    Find: SqlText.find,
    Scan: SqlText.scan,
    Insert: SqlText.insert,
    Update: SqlText.update,
    Add: SqlText.add,
    Delete: SqlText.delete,
    DeleteRange: SqlText.delete_range,
    DeleteExpired: SqlText.delete_expired,
}
