"""What is asked of an index, checked, as the bodies of requests. No I/O."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

from .exceptions import OperationalError, OutcomeUnknownError, ProtocolError
from .transport.channel import Index
from .transport.retry import Effect
from .wire import requests
from .wire.replies import Reply, Row, checked_columns
from .wire.requests import MAX_IN, Filter, In

Parts = TypeVar("Parts", bound=tuple[Any, ...])
Value = bytes | str | int | None
Condition = tuple[str, str, Value]
"""(filter column, one of = != > >= < <=, value)"""
Lookup = tuple[str, list[bytes | None], int, int, In | None, Sequence[Filter]]

_MODIFY_OPERATIONS: Final = ("U", "D", "+", "-")


def lookups_of(
    index: Index,
    operation: str,
    key: Sequence[Value],
    limit: int,
    offset: int,
    in_: tuple[int, Sequence[Value]] | None,
    filters: Iterable[Condition],
    while_: Iterable[Condition],
) -> list[Lookup]:
    """What to look up, in as many requests as the IN list needs."""
    check_index(index)
    conditions = [_filter(index, condition, stops=True) for condition in while_]
    stops = bool(conditions)
    conditions += [_filter(index, condition, stops=False) for condition in filters]
    tokens = tokens_of(key, "key")
    if in_ is None:
        return [(operation, tokens, limit, offset, None, conditions)]
    column, several = checked_in(in_)
    values = tokens_of(several, "the values of in_")
    if len(values) <= MAX_IN:
        return [(operation, tokens, limit, offset, In(column, values), conditions)]
    if limit < len(values):
        raise ValueError(f"limit {limit} is less than the {len(values)} values of in_")
    if offset or stops:
        raise ValueError(f"offset and while_ need an IN list of at most {MAX_IN} values")
    parts = [values[start : start + MAX_IN] for start in range(0, len(values), MAX_IN)]
    return [(operation, tokens, len(part), 0, In(column, part), conditions) for part in parts]


def lookup_of(
    index: Index,
    operation: str,
    key: Sequence[Value],
    limit: int,
    offset: int,
    in_: tuple[int, Sequence[Value]] | None,
    filters: Iterable[Condition],
    while_: Iterable[Condition],
) -> Lookup:
    """What to look up in one request."""
    first, *more = lookups_of(index, operation, key, limit, offset, in_, filters, while_)
    if more:
        raise ValueError(f"a pipeline takes IN lists of at most {MAX_IN} values: queue several")
    return first


def insert_body(index: Index, values: Sequence[Value]) -> bytes:
    """The body of an insert. Raises TypeError, and ValueError for missing values."""
    return requests.insert(_one_for_each(index, values))


def modify_body(
    index: Index,
    lookup: Lookup,
    modify_operation: str,
    values: Sequence[Value],
    *,
    returning: bool = False,
) -> bytes:
    """The body of a modification. Raises TypeError, ValueError."""
    if modify_operation not in _MODIFY_OPERATIONS:
        raise ValueError(f"modify operation {modify_operation!r} is not one of U D + -")
    operation, key, limit, offset, in_, filters = lookup
    deletes = modify_operation == "D"
    tokens = tokens_of(values, "values") if deletes else _one_for_each(index, values)
    return requests.find_modify(
        operation,
        key,
        modify_operation + "?" * returning,
        tokens,
        limit,
        offset,
        in_,
        filters,
    )


def effect_of(limit: int, in_: tuple[int, Sequence[Value]] | None) -> Effect:
    """What a modification is to those who may send it again."""
    return Effect.WRITE_ROW if limit == 1 and in_ is None else Effect.WRITE


def rows_of(reply: Reply) -> list[Row]:
    """The rows of a reply; raises the error that it is."""
    if isinstance(reply, OperationalError):
        raise reply
    return reply


def rows_of_index(index: Index, rows: list[Row]) -> list[Row]:
    """The rows of one request among writes, whose replies may be numbers."""
    try:
        checked_columns(rows, len(index.columns))
    except ProtocolError as error:
        raise OutcomeUnknownError(f"{error}; read the rows before you write again") from error
    return rows


def check_index(index: Index) -> None:
    """Raise TypeError for what is no index."""
    if not isinstance(index, Index):
        raise TypeError(f"an index is what `Client.open` gives, not {type(index).__name__}")


def tokens_of(values: Sequence[Value], what: str) -> list[bytes | None]:
    """Values as they are sent. Raises TypeError for one value in place of several."""
    if isinstance(values, (str, bytes, bytearray)):
        raise TypeError(f"{what} is a list of values, not one {type(values).__name__}")
    return [value if type(value) is bytes else requests.token(value) for value in values]


def checked_in(in_: tuple[int, Sequence[Value]]) -> tuple[int, Sequence[Value]]:
    """An IN list, if it is one. Raises TypeError, ValueError."""
    return _parts(in_, 2, "in_ is a pair: the position of a key part, and a list of its values")


def checked_condition(condition: Condition) -> Condition:
    """A condition, if it is one. Raises TypeError, ValueError."""
    return _parts(condition, 3, "filters and while_ are lists of (column, operation, value)")


def _parts(whole: Parts, count: int, what: str) -> Parts:
    if not isinstance(whole, (tuple, list)):
        raise TypeError(what)
    if len(whole) != count:
        raise ValueError(what)
    return whole


def _filter(index: Index, condition: Condition, *, stops: bool) -> Filter:
    column, operation, value = checked_condition(condition)
    try:
        position = index.filter_columns.index(column)
    except ValueError:
        raise ValueError(
            f"{column!r} is no filter column of this index; open it with filter_columns"
        ) from None
    return Filter(position, operation, requests.token(value), stops)


def _one_for_each(index: Index, values: Sequence[Value]) -> list[bytes | None]:
    check_index(index)
    if len(values) != len(index.columns):
        raise ValueError(
            f"{len(values)} values for {len(index.columns)} columns: the server would blank the "
            "rest; open an index with just the columns to be set"
        )
    return tokens_of(values, "values")
