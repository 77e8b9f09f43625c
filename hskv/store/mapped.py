"""Verbs on a table that one had already: with columns that are missing, or keys that clip.

A column that the table lacks is the same in every row: no number, the one kind, no expiry. So a
verb that sets it, asks for it or compares it is carried out without it, and the plans need not
know. Where the key column is not byte-exact, the server may answer for another key: rows are
checked for theirs.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, cast

from ..client import Row as WireRow
from ..exceptions import KeyMismatchError, OperationalError
from .plans import good
from .table import NEVER, Table
from .values import Kind
from .verbs import (
    COLUMNS,
    Add,
    Cell,
    Cells,
    Column,
    Condition,
    Delete,
    DeleteRange,
    Find,
    Found,
    Insert,
    Inserts,
    Outcome,
    Row,
    Scan,
    Update,
    Updates,
    Verb,
    Where,
    each,
    live,
)

_CONSTANTS: Final[dict[Column, int]] = {"number": 0, "kind": 0, "version": 0, "expires": NEVER}
_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


class Executor(Protocol):
    """What carries out verbs."""

    def execute(self, verbs: Sequence[Verb]) -> list[Outcome]: ...  # noqa: D102 see below


class StoreExecutor(Executor, Protocol):
    """What a store asks most often, made quick; each stands for one verb."""

    def find_value(self, key: bytes, now: int) -> Sequence[WireRow]: ...  # noqa: D102 see below

    def find_kind(self, key: bytes, now: int) -> Sequence[WireRow]: ...  # noqa: D102 see below

    def find_items(self, keys: Sequence[bytes], now: int) -> Sequence[WireRow]: ...  # noqa: D102 see below

    def replace(self, cells: Cells) -> bool: ...  # noqa: D102 see below

    def count(  # noqa: D102 see below
        self, key: bytes, now: int, amount: int, comparison: str, bound: int
    ) -> int | None: ...


class MappedExecutor:
    """Carries out verbs on a table that has not every column, through an executor that needs them.

    `takes_updates` where it carries out `Updates` without the columns that lack. Raises
    KeyMismatchError where the server answered for another key than was asked.
    """

    def __init__(
        self, inner: Executor, table: Table, number_keys: bool, *, takes_updates: bool = False
    ) -> None:
        self._inner = inner
        self._takes_updates = takes_updates
        self._lacks = {column for column in COLUMNS if not getattr(table, column)}
        self._exact = bool(table.byte_exact) or number_keys
        self._number_keys = number_keys

    def find_value(self, key: bytes, now: int) -> Sequence[WireRow]:
        """The (value, number, kind) of a live row, or nothing."""
        (outcome,) = self.execute([Find((key,), ("value", "number", "kind"), live(now))])
        return _rows(outcome)

    def find_kind(self, key: bytes, now: int) -> Sequence[WireRow]:
        """The (kind,) of a live row, or nothing: reads no value."""
        (outcome,) = self.execute([Find((key,), ("kind",), live(now))])
        return _rows(outcome)

    def find_items(self, keys: Sequence[bytes], now: int) -> Sequence[WireRow]:
        """The (key, value, number, kind) of the live rows of some keys."""
        (outcome,) = self.execute([Find(keys, ("key", "value", "number", "kind"), live(now))])
        return [(self._canonical(key), *cells) for key, *cells in _rows(outcome)]

    def replace(self, cells: Cells) -> bool:
        """Set every column of a row but its key, and say whether there was one.

        Raises what the server says against it, as does `count`.
        """
        row = Row(*cells)
        (outcome,) = self.execute([Update(row.key, (), *row.changes())])
        return good(outcome) == 1

    def count(self, key: bytes, now: int, amount: int, comparison: str, bound: int) -> int | None:
        """Add to a live integer that is <= or >= a bound; what it was, None where there is none."""
        where = (
            Condition("kind", "=", Kind.INTEGER),
            *live(now),
            Condition("number", comparison, bound),
        )
        (outcome,) = self.execute([Add(key, where, ("number", "version"), (amount, 1))])
        rows = _rows(outcome)
        return int(rows[0][0]) if rows else None

    def execute(self, verbs: Sequence[Verb]) -> list[Outcome]:
        """Carry out verbs in one packet; errors of the server are outcomes."""
        first = verbs[0]
        if isinstance(first, (Updates, Inserts)):
            verbs = each(first)
        self._look_first(verbs)
        if isinstance(first, Updates) and self._takes_updates:
            return self._inner.execute([first])
        outcomes: list[Outcome | None] = [self._known(verb) for verb in verbs]
        sent = [verb for verb, outcome in zip(verbs, outcomes, strict=True) if outcome is None]
        replies = iter(self._inner.execute([self._reduced(verb) for verb in sent]) if sent else ())
        return [
            self._filled(verb, next(replies)) if outcome is None else outcome
            for verb, outcome in zip(verbs, outcomes, strict=True)
        ]

    def _look_first(self, verbs: Sequence[Verb]) -> None:
        """Refuse to write where the server would take the row of another key for the one meant."""
        if self._exact:
            return
        keys = [key for verb in verbs for key in _written(verb)]
        if keys:
            unique = tuple(dict.fromkeys(keys))
            (found,) = self._inner.execute([Find(unique, ("key",))])
            self._check(unique, [row[0] for row in _rows(found)])

    def _known(self, verb: Verb) -> Outcome | None:
        """The outcome of a verb whose conditions no row can meet, without a word to the server."""
        if all(self._possible(where) for where in _conditions(verb)):
            return None
        gives_rows = isinstance(verb, (Find, Scan, Add)) or getattr(verb, "returning", False)
        return [] if gives_rows else 0

    def _possible(self, where: Where) -> bool:
        return all(
            _COMPARISONS[operation](_CONSTANTS[column], value)
            for column, operation, value in where
            if column in self._lacks
        )

    def _reduced(self, verb: Verb) -> Verb:
        """The verb without the columns that the table lacks."""
        changes: dict[str, Any] = {}
        for field in ("where", "while_"):
            if hasattr(verb, field):
                kept = [one for one in getattr(verb, field) if one.column not in self._lacks]
                changes[field] = tuple(kept)
        if isinstance(verb, (Find, Scan)):
            changes["columns"] = self._asked(verb.columns)
        elif isinstance(verb, (Delete, DeleteRange)):
            changes["returning"] = self._asked(verb.returning) if verb.returning else ()
        elif isinstance(verb, Update):
            changes["columns"], changes["cells"] = self._kept(verb.columns, verb.cells)
        elif isinstance(verb, Add):
            changes["columns"], changes["deltas"] = self._kept(verb.columns, verb.deltas)
        return verb._replace(**changes)

    def _asked(self, columns: tuple[Column, ...]) -> tuple[Column, ...]:
        """The columns to read: the key is always among them, to be checked."""
        present = tuple(column for column in columns if column not in self._lacks)
        return present if "key" in present else (*present, "key")

    def _kept(self, columns: tuple[Column, ...], cells: Sequence[Cell]) -> tuple[Any, Any]:
        kept = [pair for pair in zip(columns, cells, strict=True) if pair[0] not in self._lacks]
        return tuple(column for column, _ in kept), tuple(cell for _, cell in kept)

    def _filled(self, verb: Verb, outcome: Outcome) -> Outcome:
        """The outcome with the columns that the table lacks, its keys checked."""
        if not isinstance(outcome, (list, tuple)):
            return outcome
        if isinstance(verb, (Find, Scan)):
            columns, sent = verb.columns, self._asked(verb.columns)
        elif isinstance(verb, (Delete, DeleteRange)):
            columns, sent = verb.returning, self._asked(verb.returning)
        else:
            columns = verb.columns if isinstance(verb, (Update, Add)) else ()
            sent = tuple(column for column in columns if column not in self._lacks)
        if isinstance(verb, (Find, Delete)):
            position = sent.index("key")
            self._check(verb.keys, [row[position] for row in outcome])
        return [self._row(columns, sent, row) for row in outcome]

    def _row(
        self, columns: Sequence[Column], sent: Sequence[Column], row: Sequence[bytes]
    ) -> tuple[bytes, ...]:
        cells = dict(zip(sent, row, strict=True))
        return tuple(
            cells[column] if column in cells else b"%d" % _CONSTANTS[column] for column in columns
        )

    def _check(self, asked: Sequence[bytes], answered: Sequence[bytes]) -> None:
        found = [self._canonical(key) for key in answered]
        others = set(found) - {*map(self._canonical, asked)}
        if others or len(set(found)) < len(found):
            raise KeyMismatchError(
                f"the server answered for the key {min(others or found)!r} where another was "
                "asked for: the key column ignores case or trailing spaces, or is narrower than "
                "key_bytes; make it VARBINARY, or give the Table its width"
            )

    def _canonical(self, key: bytes) -> bytes:
        return b"%d" % int(key) if self._number_keys else key


def _written(verb: Verb) -> Sequence[bytes]:
    if isinstance(verb, Insert):
        return (verb.row.key,)
    if isinstance(verb, (Update, Add)):
        return (verb.key,)
    return verb.keys if isinstance(verb, Delete) else ()


def _conditions(verb: Verb) -> list[Where]:
    found = (getattr(verb, field, ()) for field in ("where", "while_"))
    return [where for where in found if where]


def _rows(outcome: Outcome) -> Found:
    if isinstance(outcome, OperationalError):
        raise outcome
    return cast(Found, outcome)
