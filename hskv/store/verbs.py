"""What a store asks of its table: eight verbs, each atomic on the server, and two of many rows.

Columns go by what they mean (key, value, number, kind, version, expires), whatever a table
calls them. The outcome of a verb is a value; an error of the server is an outcome too.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from ..exceptions import OperationalError

Column = Literal["key", "value", "number", "kind", "version", "expires"]
COLUMNS: tuple[Column, ...] = ("key", "value", "number", "kind", "version", "expires")
_CHANGED = COLUMNS[1:]

Cell = bytes | int
Found = Sequence[tuple[bytes, ...]]


class Condition(NamedTuple):
    """A comparison that a row must pass; never on the value column, which is a BLOB."""

    column: Column
    operation: str
    value: Cell


Where = tuple[Condition, ...]


Cells = tuple[bytes, bytes, int, int, int, int]
"""What is in a `Row`, in its order: in a packet of many rows, to make each a Row is dear."""


class Row(NamedTuple):
    """A whole row: `version` any 62 bits, `expires` in milliseconds since the epoch."""

    key: bytes
    value: bytes
    number: int
    kind: int
    version: int
    expires: int

    def changes(self) -> tuple[tuple[Column, ...], tuple[Cell, ...]]:
        """Every column but the key, and what is in it."""
        return _CHANGED, self[1:]

    def content(self) -> tuple[tuple[Column, ...], tuple[Cell, ...]]:
        """Every column but the key and the expiry, and what is in it."""
        return _CHANGED[:-1], self[1:-1]


class Find(NamedTuple):
    """The rows of some keys. Outcome: rows of the asked columns; keys without a row lack."""

    keys: Sequence[bytes]
    columns: tuple[Column, ...]
    where: Where = ()


class Scan(NamedTuple):
    """Rows in key order: from `start` (or after it) up to `end`, not included.

    Outcome: at most `limit` rows of the asked columns.
    """

    start: bytes
    end: bytes | None
    columns: tuple[Column, ...]
    limit: int
    where: Where = ()
    after: bool = False


class Insert(NamedTuple):
    """A new row. Outcome: True, or DuplicateKeyError."""

    row: Row


class Update(NamedTuple):
    """Set columns of one row to `cells`.

    Outcome: how many rows (0 or 1), or (`returning`) the row of those columns before, or none.
    """

    key: bytes
    where: Where
    columns: tuple[Column, ...]
    cells: tuple[Cell, ...]
    returning: bool = False


class Updates(NamedTuple):
    """Set every column but the key of many rows, each by itself: an `Update` of each.

    The one verb of its packet, whose outcomes are those of the rows. An executor that can make a
    row that is not there in the same step does so, and says 1: what follows is its `Insert` anyway.
    """

    rows: Sequence[Cells]


class Inserts(NamedTuple):
    """Many new rows, each by itself: an `Insert` of each, as `Updates` else."""

    rows: Sequence[Cells]


class Add(NamedTuple):
    """Add integers to columns of one row. Outcome: the row of those columns before, or none."""

    key: bytes
    where: Where
    columns: tuple[Column, ...]
    deltas: tuple[int, ...]


class Delete(NamedTuple):
    """Remove rows by key. Outcome: how many, or (`returning`) their columns before."""

    keys: Sequence[bytes]
    where: Where = ()
    returning: tuple[Column, ...] = ()


class DeleteRange(NamedTuple):
    """Remove rows in key order, at most `limit`. Outcome: how many, or their columns before.

    Rows that fail `where` are passed over; the first that fails `while_` ends the range.
    """

    start: bytes
    end: bytes | None
    limit: int
    where: Where = ()
    while_: Where = ()
    returning: tuple[Column, ...] = ()
    after: bool = False


class DeleteExpired(NamedTuple):
    """Remove rows that expired at `before` (milliseconds) or earlier, at most `limit`.

    Rows that fail `where` are passed over. Outcome: how many. Needs an index on expires.
    """

    before: int
    limit: int
    where: Where = ()


Many = Updates | Inserts
Verb = Find | Scan | Insert | Update | Add | Delete | DeleteRange | DeleteExpired | Many
Outcome = Found | int | OperationalError
"""Rows, a count, or what the server said against it (True, of Insert, counts as 1)."""


def each(verb: Many) -> list[Verb]:
    """The verbs that a verb of many rows stands for."""
    if isinstance(verb, Inserts):
        return [Insert(Row(*cells)) for cells in verb.rows]
    return [Update(cells[0], (), *Row(*cells).changes()) for cells in verb.rows]


def live(now: int) -> Where:
    """Rows that have not expired at `now`, in milliseconds since the epoch."""
    return (Condition("expires", ">", now),)


def dead(now: int) -> Where:
    """Rows that have expired at `now`, in milliseconds since the epoch."""
    return (Condition("expires", "<=", now),)
