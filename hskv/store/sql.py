"""Executor: verbs as SQL statements, each a transaction of its own, on the primary."""

from collections.abc import Callable, Sequence
from types import NoneType
from typing import Final, NamedTuple

from ..exceptions import (
    DuplicateKeyError,
    HandlerSocketError,
    OperationalError,
    ReadOnlyError,
    ValueTooLargeError,
)
from ..sql import SqlClient, Statement, half_done
from ..transport.sql_channel import Result
from .sql_text import BUILDERS, DUPLICATE, SqlText
from .values import Kind
from .verbs import (
    Add,
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
    Row,
    Scan,
    Update,
    Updates,
    Verb,
    each,
    live,
)

_VALUE: Final[tuple[Column, ...]] = ("value", "number", "kind")
_ITEM: Final[tuple[Column, ...]] = ("key", *_VALUE)
_INT64: Final = 1 << 63


class SqlExecutor:
    """Carries out verbs on one table by SQL: the same outcomes as by HandlerSocket.

    The table must have every column that a verb names: see `mapped.MappedExecutor`.
    """

    def __init__(self, client: SqlClient, text: SqlText) -> None:
        self._client = client
        self._text = text

    def find_value(self, key: bytes, now: int) -> Found:
        """As `HandlerSocketExecutor.find_value`, as is each of the following."""
        return self._found(Find((key,), _VALUE, live(now)))

    def find_kind(self, key: bytes, now: int) -> Found:
        """The (kind,) of a live row, or nothing."""
        return self._found(Find((key,), ("kind",), live(now)))

    def find_items(self, keys: Sequence[bytes], now: int) -> Found:
        """The (key, value, number, kind) of the live rows of some keys, in their order."""
        rows = {row[0]: row for row in self._found(Find(keys, _ITEM, live(now)))}
        return [rows[key] for key in keys if key in rows]

    def replace(self, cells: Cells) -> bool:
        """Set every column of a row but its key, and say whether there was one."""
        row = Row(*cells)
        return self._one(self._text.update(Update(row.key, (), *row.changes())))[0].found == 1

    def count(self, key: bytes, now: int, amount: int, comparison: str, bound: int) -> int | None:
        """Add to a live integer that is <= or >= a bound; what it was, None where there is none."""
        where = (
            Condition("kind", "=", Kind.INTEGER),
            *live(now),
            Condition("number", comparison, bound),
        )
        (result,) = self._one(self._text.count(key, where, ("number", "version"), (amount, 1)))
        return _signed(result.insert_id) if result.found else None

    def execute(self, verbs: Sequence[Verb]) -> list[Outcome]:
        """Carry out verbs in one packet; errors of the server are outcomes.

        Raises ConnectionError, and OutcomeUnknownError where a write's answer was lost.
        """
        first = verbs[0]
        if isinstance(first, (Updates, Inserts)):
            if isinstance(first, Updates) and self._has_one_unique_index():
                return self._store(first)
            verbs = each(first)
        last = len(verbs) - 1
        statements = [self._statement(verb, number < last) for number, verb in enumerate(verbs)]
        answers = self._client.run(statements)
        return [
            answer if isinstance(answer, OperationalError) else _OUTCOMES[type(verb)](verb, answer)
            for verb, answer in zip(verbs, answers, strict=True)
        ]

    def _statement(self, verb: Verb, more: bool) -> Statement:
        if more and isinstance(verb, Insert):
            return self._text.insert_unless(verb)
        return BUILDERS[type(verb)](self._text, verb)

    def _store(self, verb: Updates) -> list[Outcome]:
        """Store the rows in one statement, or as many as they need; what was not there too."""
        parts = [verb.rows]
        try:
            answers = self._client.run([self._text.store(verb.rows)])
        except ValueTooLargeError:
            parts = [*self._text.parts(verb.rows, self._client.room())]
            answers = self._client.run([self._text.store(part) for part in parts])
        refused = {
            row[0]: answer
            for part, answer in zip(parts, answers, strict=True)
            if isinstance(answer, OperationalError)
            for row in part
        }
        if not refused:
            return [1] * len(verb.rows)
        # A server that is read-only was waited for already.
        again = [
            row
            for row in verb.rows
            if not isinstance(refused.get(row[0]), (NoneType, ReadOnlyError))
        ]
        done = len(refused) < len(verb.rows)
        outcomes = self._one_by_one(again, done=done) if again else {}
        return [outcomes.get(row[0], refused.get(row[0], 1)) for row in verb.rows]

    def _one_by_one(self, rows: Sequence[Cells], *, done: bool) -> dict[bytes, Outcome]:
        """Store rows that were refused together, since it may be against one of them alone.

        By key; `done` where others are stored already.
        """
        try:
            outcomes = self.execute(each(Updates(rows)))
        except HandlerSocketError as error:
            if not done:
                raise
            raise half_done(error) from error
        return {row[0]: outcome for row, outcome in zip(rows, outcomes, strict=True)}

    def _has_one_unique_index(self) -> bool:
        facts = table_facts(self._client, self._text)
        return facts is not None and facts.unique_indexes == 1

    def _found(self, verb: Find) -> Found:
        return self._one(self._text.find(verb))[0].rows  # type: ignore[return-value]

    def _one(self, statement: Statement) -> Sequence[Result]:
        (answer,) = self._client.run([statement])
        if isinstance(answer, OperationalError):
            raise answer
        return answer


class TableFacts(NamedTuple):
    """What information_schema says of a table."""

    kind: bytes
    engine: bytes
    options: bytes
    unique_indexes: int


def table_facts(client: SqlClient, text: SqlText) -> TableFacts | None:
    """The facts of a table, None where there is none. One round trip, once for a client."""
    facts: TableFacts | None = client.facts.get(text.table_name)
    if facts is None:
        (answer,) = client.run([text.facts()])
        if isinstance(answer, OperationalError):
            raise answer
        for kind, engine, options, unique in answer[0].rows:
            facts = TableFacts(kind or b"", engine or b"", options or b"", int(unique or 0))
            client.facts[text.table_name] = facts
    return facts


def _rows(verb: Verb, results: Sequence[Result]) -> Outcome:
    return results[0].rows  # type: ignore[return-value]


def _inserted(verb: Insert, results: Sequence[Result]) -> Outcome:
    if results[0].insert_id == DUPLICATE:
        return DuplicateKeyError(
            "a row with this key exists already: take another key, or modify that row"
        )
    return True


def _updated(verb: Update, results: Sequence[Result]) -> Outcome:
    return _before(verb, results) if verb.returning else results[0].found


def _before(verb: Update | Add, results: Sequence[Result]) -> Outcome:
    changed, variables = results
    return variables.rows if changed.found else []  # type: ignore[return-value]


def _deleted(verb: Delete | DeleteRange | DeleteExpired, results: Sequence[Result]) -> Outcome:
    returning = getattr(verb, "returning", ())
    return results[-1].rows if returning else results[-1].found  # type: ignore[return-value]


def _signed(number: int) -> int:
    """A BIGINT, of what LAST_INSERT_ID says without a sign."""
    return number - (_INT64 << 1) if number >= _INT64 else number


_OUTCOMES: Final[dict[type, Callable[..., Outcome]]] = {
    Find: _rows,
    Scan: _rows,
    Insert: _inserted,
    Update: _updated,
    Add: _before,
    Delete: _deleted,
    DeleteRange: _deleted,
    DeleteExpired: _deleted,
}
