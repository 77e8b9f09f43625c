"""Builders of requests: values in, the bytes of one line out.

Requests on an opened index (`find`, `insert`, `find_modify`) are built without the index id,
which differs from channel to channel: they begin with the TAB that follows it. What the server
would misread in silence is refused here with ValueError or TypeError, before it is sent
(facts/handlersocket.md sections 1, 3, 5 and 6).
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from .codec import encode_token, encode_tokens, fill

Token = bytes | None

FIND_OPERATIONS: Final = ("=", ">", ">=", "<", "<=")
MODIFY_OPERATIONS: Final = ("U", "D", "+", "-", "U?", "D?", "+?", "-?")
FILTER_OPERATIONS: Final = ("=", "!=", ">", ">=", "<", "<=")

_FIND_TOKENS: Final = {operation: operation.encode() for operation in FIND_OPERATIONS}
_MODIFY_TOKENS: Final = {operation: operation.encode() for operation in MODIFY_OPERATIONS}
_FILTER_TOKENS: Final = {operation: operation.encode() for operation in FILTER_OPERATIONS}

_FIND_ONE: Final = {
    operation: b"\t%b\t1\t%%b\t1\t0\n" % token for operation, token in _FIND_TOKENS.items()
}

_FIRST: Final = (b"1", b"0")

NOTHING: Final = b"\t=\t0\n"
"""Refused for its shape, whatever the table: shows whether the index could be opened."""
NOTHING_REFUSED_AS: Final = "klen"

MAX_VALUES: Final = 32
"""The most key or column values in one request; the server answers `fldnum` past it."""
_COUNTS: Final = {count: b"%d" % count for count in range(1, MAX_VALUES + 1)}
MAX_IN: Final = 1000
"""The most keys in one IN list: longer ones take several requests."""
MAX_COUNT: Final = 2**32 - 1
"""Limit plus offset end here: the server counts in 32 bits and wraps."""
INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1


class Filter(NamedTuple):
    """One comparison on a filter column, by its position in the opened index.

    Rows that fail it are skipped, or end the scan when `stops` is true (the protocol's W).
    """

    column: int
    operation: str
    value: Token
    stops: bool = False


class In(NamedTuple):
    """Several values for the key part at `column`; at most one row is found for each."""

    column: int
    values: Sequence[Token]


def auth(secret: bytes) -> bytes:
    """The line that logs in, whole."""
    return b"A\t1\t" + encode_token(secret) + b"\n"


def open_index(
    index_id: int,
    database: str,
    table: str,
    index_name: str,
    columns: Sequence[str],
    filter_columns: Sequence[str] = (),
) -> bytes:
    """The line that opens an index under a number, whole.

    Raises ValueError for a name the protocol cannot carry, or no columns at all.
    """
    if not columns:
        raise ValueError("an index is opened with at least one column; name the columns to read")
    tokens = [b"P", b"%d" % index_id]
    # The server takes a name that begins with a digit for the number of an index.
    tokens += [_name(name) for name in (database, table, index_name)]
    if index_name[:1].isdigit():
        raise ValueError(f"the index name {index_name!r} begins with a digit; rename the index")
    tokens.append(b",".join([_name(column) for column in columns]))
    if filter_columns:
        tokens.append(b",".join([_name(column) for column in filter_columns]))
    return b"\t".join(tokens) + b"\n"


def find(
    operation: str,
    key: Sequence[Token],
    limit: int = 1,
    offset: int = 0,
    in_: In | None = None,
    filters: Sequence[Filter] = (),
) -> bytes:
    """A find, without the index id. With `in_` the limit must be at least its length."""
    return encode_tokens(_find(operation, key, limit, offset, in_, filters)) + b"\n"


def find_one(operation: str, key: bytes | str | int | None) -> bytes:
    """A find of one row by a key of one part: `find` of its token."""
    value = key.encode() if type(key) is str else token(key)
    if value is None or operation not in _FIND_ONE:
        return find(operation, [value])
    return fill(_FIND_ONE[operation], (value,))


def find_template(filters: Sequence[tuple[int, str]]) -> bytes:
    """A find of one row by a key of one part, for `codec.fill`.

    It takes the key, then an integer for each filter (column, operation). A find in the hot path
    is a fraction of the cost this way.
    """
    return _by_key(filters) + b"\n"


def find_in(keys: Sequence[bytes], filters: bytes) -> bytes:
    """A find of one row for each of at most `MAX_IN` keys of one part; `filters` end the line."""
    count = len(keys)
    return b"\t=\t1\t\t%d\t0\t@\t0\t%d\t%b%b\n" % (count, count, encode_tokens(keys), filters)


def filters_template(filters: Sequence[tuple[int, str]]) -> bytes:
    """An integer for each filter (column, operation), for `codec.fill`; what `find_in` takes."""
    template = b""
    for column, operation in filters:
        template += b"\tF\t" + _FILTER_TOKENS[operation] + b"\t%d\t%%d" % column
    return template


def find_modify_template(
    modify_operation: str, filters: Sequence[tuple[int, str]], values: Sequence[bytes]
) -> bytes:
    """A change of one row by a key of one part, for `codec.fill`.

    It takes the key, an integer for each filter (column, operation), and a token (%b) or an
    integer (%d) for each of `values`.
    """
    line = [_by_key(filters), _MODIFY_TOKENS[modify_operation], *values]
    return b"\t".join(line) + b"\n"


def insert_template(values: Sequence[bytes]) -> bytes:
    """An insert for `codec.fill`; its values as in a change."""
    return b"\t".join([b"", b"+", _count(values, "value"), *values]) + b"\n"


def _by_key(filters: Sequence[tuple[int, str]]) -> bytes:
    return b"\t=\t1\t%b\t1\t0" + filters_template(filters)


def insert(values: Sequence[Token]) -> bytes:
    """An insert of one value for each opened column, without the index id."""
    return encode_tokens([b"", b"+", _count(values, "value"), *values]) + b"\n"


def find_modify(
    operation: str,
    key: Sequence[Token],
    modify_operation: str,
    values: Sequence[Token] = (),
    limit: int = 1,
    offset: int = 0,
    in_: In | None = None,
    filters: Sequence[Filter] = (),
) -> bytes:
    """A find that changes the rows it finds, without the index id.

    `U` needs a value for every opened column: the caller knows how many there are.
    """
    if modify_operation not in _MODIFY_TOKENS:
        raise ValueError(_not_listed("modify operation", modify_operation, MODIFY_OPERATIONS))
    if modify_operation[0] == "D" and values:
        raise ValueError("a delete takes no values")
    tokens = _find(operation, key, limit, offset, in_, filters)
    tokens.append(_MODIFY_TOKENS[modify_operation])
    tokens += values
    return encode_tokens(tokens) + b"\n"


def token(value: bytes | str | int | None) -> Token:
    """A value as the token that stands for it: text as UTF-8, int in decimal, None as NULL.

    Raises TypeError for any other type, ValueError for an int beyond 64 bits (the server
    would clip it) and for text that is not UTF-8.
    """
    if value is None or type(value) is bytes:
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, int) and not isinstance(value, bool):
        if not INT64_MIN <= value <= INT64_MAX:
            raise ValueError(f"the integer is beyond 64 bits and would be clipped: {value}")
        return b"%d" % value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"expected bytes, str, int or None, not {type(value).__name__}")


def _find(
    operation: str,
    key: Sequence[Token],
    limit: int,
    offset: int,
    in_: In | None,
    filters: Sequence[Filter],
) -> list[Token]:
    verb = _FIND_TOKENS.get(operation)
    if verb is None:
        raise ValueError(_not_listed("operation", operation, FIND_OPERATIONS))
    tokens = [b"", verb, _COUNTS.get(len(key)) or _count(key, "key value"), *key]
    if limit == 1 and offset == 0:
        tokens += _FIRST
    elif not (isinstance(limit, int) and isinstance(offset, int)):
        raise TypeError("limit and offset are integers")
    elif limit < 1 or offset < 0 or limit + offset > MAX_COUNT:
        raise ValueError(f"limit {limit} with offset {offset} is outside 1 to {MAX_COUNT}")
    else:
        tokens += (b"%d" % limit, b"%d" % offset)
    if in_ is not None:
        tokens += _in(in_, len(key), limit)
    for one in filters:
        tokens += _filter(one)
    return tokens


def _in(in_: In, parts: int, limit: int) -> list[Token]:
    column, values = in_
    if not 0 <= column < parts:
        raise ValueError(f"IN names key part {column}, but the key has {parts}")
    if not 1 <= len(values) <= min(limit, MAX_IN):
        raise ValueError(f"{len(values)} IN values: at least 1, at most {MAX_IN} and the limit")
    if None in values:
        raise ValueError("IN cannot look for NULL")
    return [b"@", b"%d" % column, b"%d" % len(values), *values]


def _filter(one: Filter) -> tuple[Token, ...]:
    column, operation, value, stops = one
    if operation not in _FILTER_TOKENS:
        raise ValueError(_not_listed("filter operation", operation, FILTER_OPERATIONS))
    return b"W" if stops else b"F", _FILTER_TOKENS[operation], b"%d" % column, value


def _count(values: Sequence[Token], what: str) -> bytes:
    if not 1 <= len(values) <= MAX_VALUES:
        raise ValueError(f"{len(values)} {what}s: at least 1 and at most {MAX_VALUES}")
    return b"%d" % len(values)


def _name(name: str) -> bytes:
    if not isinstance(name, str):
        raise TypeError(f"names are str, not {type(name).__name__}")
    encoded = name.encode()
    if not encoded:
        raise ValueError("a database, table, index or column has an empty name")
    if b"," in encoded or min(encoded) < 0x10:
        raise ValueError(f"the name {name!r} holds a comma or a control character")
    return encoded


def _not_listed(what: str, given: object, allowed: Sequence[str]) -> str:
    return f"{what} {given!r} is not one of {' '.join(allowed)}"
