"""Executor: verbs as HandlerSocket requests.

A find or scan alone goes to the read port; anything that writes, and a packet that holds a
write, to the write port. Every index is opened with the same filter columns, so that one
opened for some columns serves any condition.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import repeat
from typing import Final, cast

from ..client import Client, Index, Row
from ..exceptions import OperationalError, OutcomeUnknownError, ProtocolError
from ..transport.retry import Effect, failure
from ..wire import requests
from ..wire.codec import fill, fill_each
from ..wire.replies import CHANGED_ONE, Reply, checked_columns, modified_rows
from ..wire.requests import Filter, In
from .table import Table
from .values import Kind
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
    Found,
    Insert,
    Inserts,
    Outcome,
    Scan,
    Update,
    Updates,
    Verb,
    Where,
    live,
)

# Columns to filter by, of every index; the value, a BLOB, cannot be compared.
_FILTER_COLUMNS: Final[tuple[Column, ...]] = ("kind", "expires", "number", "version", "key")

# To look up a member of an Enum is a call of Python, up to 3.11.
_READ: Final = Effect.READ
_WRITE_ROW: Final = Effect.WRITE_ROW

_COUNT: Final[tuple[Column, ...]] = ("number", "version")
_INTEGER: Final = int(Kind.INTEGER)

# (index, body, effect, what the rows of its reply mean)
_Request = tuple[Index, bytes, Effect, Callable[[list[Row]], Outcome]]


class HandlerSocketExecutor:
    """Carries out verbs on one table through a client.

    The table must have every column that a verb names: see `mapped.MappedExecutor`.
    """

    def __init__(self, client: Client, table: Table) -> None:
        self._client = client
        self._table = table
        self._indexes: dict[tuple[Column, ...], Index] = {}
        present = [column for column in _FILTER_COLUMNS if getattr(table, column)]
        self._filters = {column: position for position, column in enumerate(present)}
        self._columns = tuple(column for column in COLUMNS if getattr(table, column))
        # By operation, the columns and comparisons of its conditions, types of cells: a few.
        self._templates: dict[tuple[object, ...], bytes] = {}
        if table.whole:
            self._value_index = self._index(("value", "number", "kind"))
            self._kind_index = self._index(("kind",))
            alive = [(self._filters[column], operation) for column, operation, _ in live(0)]
            self._live_find = requests.find_template(alive)
            self._live_filter = requests.filters_template(alive)
            self._item_index = self._index(("key", "value", "number", "kind"))
            self._row_index = self._index(COLUMNS[1:])
            self._replacing = requests.find_modify_template("U", (), (b"%b", *[b"%d"] * 4))
            self._inserting = requests.insert_template((b"%b", b"%b", *[b"%d"] * 4))
            self._count_index = self._index(_COUNT)
            counter = (self._filters["kind"], "="), *alive
            self._adding = {
                comparison: requests.find_modify_template(
                    "+?", [*counter, (self._filters["number"], comparison)], (b"%d", b"1")
                )
                for comparison in ("<=", ">=")
            }

    def find_value(self, key: bytes, now: int) -> list[Row]:
        """The (value, number, kind) of a live row, or nothing: `Find` of one key, made quick.

        For tables with every column only, as is `find_kind`.
        """
        body = fill(self._live_find, (key, now))
        return self._client.call(self._value_index, body, _READ)

    def find_kind(self, key: bytes, now: int) -> list[Row]:
        """The (kind,) of a live row, or nothing: reads no value."""
        body = fill(self._live_find, (key, now))
        return self._client.call(self._kind_index, body, _READ)

    def find_items(self, keys: Sequence[bytes], now: int) -> list[Row]:
        """The (key, value, number, kind) of the live rows of at most `MAX_IN` keys."""
        body = requests.find_in(keys, fill(self._live_filter, (now,)))
        return self._client.call(self._item_index, body, _READ)

    def replace(self, cells: Cells) -> bool:
        """`Update` of every column of a row but its key, made quick; says whether there was one.

        Raises what the server says against it, as does `count`.
        """
        body = fill(self._replacing, cells)
        rows = self._client.call(self._row_index, body, _WRITE_ROW)
        return rows == CHANGED_ONE or modified_rows(rows) > 0

    def count(self, key: bytes, now: int, amount: int, comparison: str, bound: int) -> int | None:
        """Add to a live integer that is <= or >= a bound; what it was, None where there is none.

        `Add`, made quick; the version goes up by one.
        """
        body = fill(self._adding[comparison], (key, _INTEGER, now, bound, amount))
        rows = self._client.call(self._count_index, body, _WRITE_ROW)
        if rows and len(rows[0]) == 2:
            number, version = rows[0]
            if number and version and number.isdigit() and version.isdigit():
                return int(number)
        try:
            found = cast(Found, _rows(_COUNT)(rows))
        except ProtocolError as error:
            raise self._distrusted(error, Effect.WRITE_ROW) from error
        return int(found[0][0]) if found else None

    def execute(self, verbs: Sequence[Verb]) -> list[Outcome]:
        """Carry out verbs in one packet; errors of the server are outcomes.

        Raises ConnectionError, OutcomeUnknownError where a write's reply was lost, and
        TransactionAbortedError where the server undid the packet.
        """
        if isinstance(verbs[0], (Updates, Inserts)):
            return self._execute_many(verbs[0])
        requested = [_BUILDERS[type(verb)](self, verb) for verb in verbs]
        if len(requested) == 1:
            index, body, effect, _ = requested[0]
            try:
                replies: Sequence[Reply] = [self._client.call(index, body, effect)]
            except OutcomeUnknownError:
                raise
            except OperationalError as error:
                return [error]
        else:
            reads = all(effect is Effect.READ for _, _, effect, _ in requested)
            effect = Effect.READ if reads else Effect.WRITE
            calls = [(index, body) for index, body, _, _ in requested]
            replies = self._client.call_many(calls, effect)
        try:
            return [
                reply if isinstance(reply, OperationalError) else outcome(reply)
                for (_, _, _, outcome), reply in zip(requested, replies, strict=True)
            ]
        except ProtocolError as error:
            raise self._distrusted(error, effect) from error

    def _distrusted(self, error: ProtocolError, effect: Effect) -> BaseException:
        # It looked like a reply as long as nobody knew what it had to be like, and its channel
        # went back to the pool: there may be more of the kind.
        self._client.purge()
        return failure(error, effect)

    def _execute_many(self, verb: Updates | Inserts) -> list[Outcome]:
        index, template = self._row_index, self._replacing
        if isinstance(verb, Inserts):
            index, template = self._index(COLUMNS), self._inserting
        calls = list(zip(repeat(index), fill_each(template, verb.rows), strict=False))
        effect = Effect.WRITE_ROW if len(calls) == 1 else Effect.WRITE
        replies = self._client.call_many(calls, effect)
        if isinstance(verb, Inserts):
            return [reply if isinstance(reply, OperationalError) else True for reply in replies]
        if replies.count(CHANGED_ONE) == len(replies):
            return [1] * len(replies)
        return [
            reply if isinstance(reply, OperationalError) else modified_rows(reply)
            for reply in replies
        ]

    def _index(self, columns: tuple[Column, ...]) -> Index:
        index = self._indexes.get(columns)
        if index is None:
            index = self._indexes[columns] = self._opened(columns, self._table.index)
        return index

    def _opened(self, columns: tuple[Column, ...], index_name: str) -> Index:
        return self._client.open(
            self._table.name,
            [getattr(self._table, column) for column in columns],
            index_name=index_name,
            filter_columns=[getattr(self._table, column) for column in self._filters],
            database=self._table.database,
        )

    def _find(self, verb: Find) -> _Request:
        key, limit, in_ = _keys(verb.keys)
        body = requests.find("=", key, limit, 0, in_, self._conditions(verb.where))
        return (self._index(verb.columns), body, Effect.READ, _rows(verb.columns))

    def _scan(self, verb: Scan) -> _Request:
        filters = [*self._end(verb.end), *self._conditions(verb.where)]
        body = requests.find(_from(verb.after), [verb.start], verb.limit, 0, None, filters)
        return (self._index(verb.columns), body, Effect.READ, _rows(verb.columns))

    def _insert(self, verb: Insert) -> _Request:
        row = verb.row
        cells = row if self._table.whole else [getattr(row, column) for column in self._columns]
        body = requests.insert(_tokens(cells))
        return (self._index(self._columns), body, Effect.WRITE_ROW, _inserted)

    def _update(self, verb: Update) -> _Request:
        operation = "U?" if verb.returning else "U"
        body = self._changed(operation, verb.key, verb.where, verb.cells)
        outcome = _rows(verb.columns) if verb.returning else modified_rows
        return (self._index(verb.columns), body, Effect.WRITE_ROW, outcome)

    def _add(self, verb: Add) -> _Request:
        body = self._changed("+?", verb.key, verb.where, verb.deltas)
        return (self._index(verb.columns), body, Effect.WRITE_ROW, _rows(verb.columns))

    def _changed(self, operation: str, key: bytes, where: Where, cells: Sequence[Cell]) -> bytes:
        conditions = tuple([(column, comparison) for column, comparison, _ in where])
        shape = (operation, conditions, *map(type, cells))
        template = self._templates.get(shape)
        if template is None:
            filters = [(self._filters[column], comparison) for column, comparison in conditions]
            places = [b"%b" if isinstance(cell, bytes) else b"%d" for cell in cells]
            template = requests.find_modify_template(operation, filters, places)
            self._templates[shape] = template
        return fill(template, (key, *[value for _, _, value in where], *cells))

    def _delete(self, verb: Delete) -> _Request:
        key, limit, in_ = _keys(verb.keys)
        effect = Effect.WRITE if in_ else Effect.WRITE_ROW
        request = partial(requests.find_modify, "=", key, limit=limit, in_=in_)
        return self._removal(request, verb, effect, self._conditions(verb.where))

    def _delete_range(self, verb: DeleteRange) -> _Request:
        filters = [
            *self._end(verb.end),
            *self._conditions(verb.while_, stops=True),
            *self._conditions(verb.where),
        ]
        effect = Effect.WRITE_ROW if verb.limit == 1 else Effect.WRITE
        operation = _from(verb.after)
        request = partial(requests.find_modify, operation, [verb.start], limit=verb.limit)
        return self._removal(request, verb, effect, filters)

    def _delete_expired(self, verb: DeleteExpired) -> _Request:
        # Where the index is in descending order "<=" goes the other way.
        expired = Condition("expires", "<=", verb.before)
        filters = self._conditions([expired, *verb.where])
        before = [b"%d" % verb.before]
        body = requests.find_modify("<=", before, "D", limit=verb.limit, filters=filters)
        index = self._opened(("expires",), self._table.expires_index or "")
        return (index, body, Effect.WRITE, modified_rows)

    def _removal(
        self,
        request: Callable[..., bytes],
        verb: Delete | DeleteRange,
        effect: Effect,
        filters: list[Filter],
    ) -> _Request:
        body = request(modify_operation="D?" if verb.returning else "D", filters=filters)
        index = self._index(verb.returning or ("key",))
        return (index, body, effect, _rows(verb.returning) if verb.returning else modified_rows)

    def _conditions(self, where: Sequence[Condition], *, stops: bool = False) -> list[Filter]:
        return [
            Filter(self._filters[column], operation, _token(value), stops)
            for column, operation, value in where
        ]

    def _end(self, end: bytes | None) -> list[Filter]:
        return self._conditions([Condition("key", "<", end)], stops=True) if end else []


_BUILDERS: Final[dict[type, Callable[..., _Request]]] = {
    Find: HandlerSocketExecutor._find,
    Scan: HandlerSocketExecutor._scan,
    Insert: HandlerSocketExecutor._insert,
    Update: HandlerSocketExecutor._update,
    Add: HandlerSocketExecutor._add,
    Delete: HandlerSocketExecutor._delete,
    DeleteRange: HandlerSocketExecutor._delete_range,
    DeleteExpired: HandlerSocketExecutor._delete_expired,
}


def _keys(keys: Sequence[bytes]) -> tuple[list[bytes | None], int, In | None]:
    if len(keys) == 1:
        return [keys[0]], 1, None
    return [b""], len(keys), In(0, keys)


def _from(after: bool) -> str:
    return ">" if after else ">="


def _token(cell: Cell) -> bytes:
    return cell if isinstance(cell, bytes) else b"%d" % cell


def _tokens(cells: Sequence[Cell]) -> list[bytes | None]:
    return [cell if isinstance(cell, bytes) else b"%d" % cell for cell in cells]


def _inserted(rows: list[Row]) -> Outcome:
    return True


@cache
def _rows(columns: tuple[Column, ...]) -> Callable[[list[Row]], Outcome]:
    """What takes the rows of these columns, keys and numbers where they must be.

    A cell that was damaged on its way would else come up far from here, as any error.
    """
    numeric = [
        position for position, column in enumerate(columns) if column not in ("key", "value")
    ]

    key = columns.index("key") if "key" in columns else None

    def taken(rows: list[Row]) -> Outcome:
        checked_columns(rows, len(columns))
        for row in rows:
            if key is not None and row[key] is None:
                raise ProtocolError("a key came as NULL, which no row has")
            for position in numeric:
                cell = row[position]
                if not cell or not (cell.isdigit() or _is_negative(cell)):
                    raise ProtocolError(
                        f"the column {columns[position]!r} came with {cell!r}: is it an integer "
                        "column, and NOT NULL?"
                    )
        return cast(Outcome, rows)

    return taken


def _is_negative(cell: bytes) -> bool:
    return cell[:1] == b"-" and cell[1:].isdigit()
