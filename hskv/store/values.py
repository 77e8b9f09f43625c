"""Python values as they stand in a row, and back.

bytes, str and integers of 64 bits are stored as themselves, so that SQL and counters can use
them; everything else goes through the serializer, which is JSON.
"""

import json
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final, NamedTuple

from ..exceptions import SerializationError
from ..wire.requests import INT64_MAX, INT64_MIN


class Kind(IntEnum):
    """How the value of a row is to be read: the number in its kind column."""

    BYTES = 0
    TEXT = 1
    INTEGER = 2
    JSON = 3


class Stored(NamedTuple):
    """A value as three columns hold it."""

    kind: int
    number: int
    value: bytes


def dumps(value: object) -> Stored:
    """The columns that hold a value.

    bool, None, float, larger int, list, tuple (comes back as a list) and dict with str keys go
    through JSON; bytearray and memoryview are stored as bytes. Raises SerializationError for
    what JSON would lose or change: NaN, keys that are no str, sets, other objects.
    """
    kind = type(value)
    if kind is bytes:
        return Stored(Kind.BYTES, 0, value)  # type: ignore[arg-type]
    if kind is str:
        return Stored(Kind.TEXT, 0, _text(value))  # type: ignore[arg-type]
    if kind is int and INT64_MIN <= value <= INT64_MAX:  # type: ignore[operator]
        return Stored(Kind.INTEGER, value, b"")  # type: ignore[arg-type]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return Stored(Kind.BYTES, 0, bytes(value))
    return Stored(Kind.JSON, 0, _json(value))


def loads(value: bytes, number: bytes, kind: bytes) -> Any:
    """The Python value of a row. Raises SerializationError where it cannot be read."""
    try:
        return _LOADS[kind](value, number)
    except KeyError:
        raise SerializationError(
            f"a row of kind {kind.decode('ascii', 'replace')} cannot be read by this store: "
            "it was written by another one, with another serializer"
        ) from None
    except (ValueError, RecursionError) as error:
        raise SerializationError(f"a stored value cannot be read: {error}") from error


_LOADS: Final[dict[bytes, Callable[[bytes, bytes], Any]]] = {
    b"0": lambda value, number: value,
    b"1": lambda value, number: value.decode(),
    b"2": lambda value, number: int(number),
    b"3": lambda value, number: json.loads(value),
}


def _text(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise SerializationError(f"the text is not valid Unicode: {error}") from error


def _json(value: object) -> bytes:
    try:
        _refuse_other_keys(value)
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise SerializationError(
            f"JSON cannot hold this {type(value).__name__}: {error}; store bytes, or convert it"
        ) from error


def _refuse_other_keys(value: object) -> None:
    # json.dumps would turn 1 and None into "1" and "null" without a word.
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"keys must be str, not {type(key).__name__}")
            _refuse_other_keys(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_other_keys(item)
