"""Python values as they stand in a row, and back.

bytes, str and integers of 64 bits are stored as themselves, so that SQL and counters can use
them; everything else goes through a serializer. The kind column says which it was.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final, Protocol, cast

from ..exceptions import SerializationError, ValueTooLargeError
from ..transport.interrupt import raise_interrupt
from ..wire.requests import INT64_MAX, INT64_MIN
from .serializers import Serializer, always_readable, serializer_of
from .table import Table
from .verbs import Condition, Found, Where


class Kind(IntEnum):
    """How a row is to be read: the number in its kind column.

    From 6 to 15 are users' serializers; 16 more than a kind is the same compressed by zlib.
    """

    BYTES = 0
    TEXT = 1
    INTEGER = 2
    JSON = 3
    MSGPACK = 4
    PICKLE = 5
    LEASE = 32
    LIMITER = 33


COMPRESSED: Final = 16

# As plain integers: to look one up in an Enum costs as much as to encode a short text.
_BYTES: Final = Kind.BYTES.value
_TEXT: Final = Kind.TEXT.value
_INTEGER: Final = Kind.INTEGER.value


# So many characters, or bytes, are taken together: what they are encoded to is in memory at once.
_SMALL_IN_ALL: Final = 1 << 18

Stored = tuple[int, int, bytes]
"""A value as the columns kind, number and value hold it."""


class Values(Protocol):
    """How a store writes and reads its values."""

    readable: Where
    """What rows must be for `loads` to read them."""

    def dumps(self, value: object) -> Stored: ...  # noqa: D102 the implementations say it

    def dumps_alike(self, values: Sequence[object]) -> tuple[int, Sequence[bytes]] | None: ...  # noqa: D102 as above

    def loads(self, value: bytes, number: bytes, kind: bytes) -> Any: ...  # noqa: D102 as above

    def loads_items(self, rows: Found, keys: Mapping[bytes, Any]) -> dict[Any, Any]: ...  # noqa: D102 as above

    def reads(self, kind: int) -> bool: ...  # noqa: D102 as above


class KindValues:
    """Values of a table with a kind column, each row read as its kind says.

    Rows of kinds 0 to 3 are always read, msgpack's where it is installed, others when `serializer`
    or one of `also_read` made them. Values of `compress_min_bytes` and more are compressed where
    that makes them smaller.
    """

    def __init__(
        self,
        table: Table,
        serializer: str | Serializer = "json",
        also_read: Iterable[str | Serializer] = (),
        compress_min_bytes: int | None = None,
    ) -> None:
        self._serializer = serializer_of(serializer)
        self._table = table
        self._value_bytes = table.value_bytes
        self._compress_min_bytes = _checked(compress_min_bytes)
        # What is shorter is neither compressed nor too large.
        self._as_it_is = min(self._value_bytes + 1, compress_min_bytes or self._value_bytes + 1)
        self._loads: dict[bytes, Callable[[bytes, bytes], Any]] = {
            b"2": lambda value, number: int(number)
        }
        self._add(Kind.BYTES, lambda value: value)
        self._add(Kind.TEXT, bytes.decode)
        # Frequent, and so without a call in between.
        self._loads[b"0"] = lambda value, number: value
        known = [*always_readable(), *map(serializer_of, also_read), self._serializer]
        for one in known:
            self._add(one.kind, one.loads)
        self._kinds = frozenset(map(int, self._loads))
        # As few comparisons as there can be: other kinds lie in between.
        highest = max(self._kinds)
        others = [kind for kind in range(highest) if kind not in self._kinds]
        self.readable: Where = (
            Condition("kind", "<=", highest),
            *[Condition("kind", "!=", kind) for kind in others],
        )

    def _add(self, kind: int, loads: Callable[[bytes], Any]) -> None:
        self._loads[b"%d" % kind] = lambda value, number: loads(value)
        bound = self._table.value_bytes
        self._loads[b"%d" % (kind + COMPRESSED)] = lambda value, number: loads(
            _decompressed(value, bound)
        )

    def reads(self, kind: int) -> bool:
        """True for a kind that `loads` can read."""
        return kind in self._kinds

    def dumps(self, value: object) -> Stored:
        """The columns that hold a value.

        bytes, str and 64-bit int stand as themselves, bytearray and memoryview as bytes; the rest
        goes through the serializer. Raises SerializationError for what that cannot hold,
        ValueTooLargeError for what the value column cannot.
        """
        kind = type(value)
        if kind is str:
            try:
                data = value.encode()  # type: ignore[attr-defined]
            except UnicodeEncodeError as error:
                raise _no_text(error) from error
            if len(data) < self._as_it_is:
                return _TEXT, 0, data
            return self._stored(_TEXT, data)
        if kind is int and INT64_MIN <= value <= INT64_MAX and self._table.number:  # type: ignore[operator]
            return _INTEGER, value, b""  # type: ignore[return-value]
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self._stored(Kind.BYTES, bytes(value))
        return self._stored(self._serializer.kind, _serialized(self._serializer, value))

    def dumps_alike(self, values: Sequence[object]) -> tuple[int, Sequence[bytes]] | None:
        """The one kind and the value columns of many texts, or many bytes, that are small.

        None for all others, which `dumps` takes one by one.
        """
        types = set(map(type, values))
        if types not in ({str}, {bytes}) or sum(map(len, values)) > _SMALL_IN_ALL:  # type: ignore[arg-type]
            return None
        kind, cells = _BYTES, cast(Sequence[bytes], values)
        if types == {str}:
            try:
                kind, cells = _TEXT, list(map(str.encode, cast(Sequence[str], values)))
            except UnicodeEncodeError:
                return None
        return (kind, cells) if max(map(len, cells)) < self._as_it_is else None

    def _stored(self, kind: int, value: bytes) -> Stored:
        if self._compress_min_bytes is not None and len(value) >= self._compress_min_bytes:
            compressed = zlib.compress(value)
            if len(compressed) < len(value):
                kind, value = kind + COMPRESSED, compressed
        if len(value) > self._value_bytes:
            raise _too_large(value, self._value_bytes)
        return kind, 0, value

    def loads(self, value: bytes, number: bytes, kind: bytes) -> Any:
        """The Python value of a row. Raises SerializationError where it cannot be read."""
        try:
            # Text is so frequent that it is read here, without a call.
            if kind == b"1":
                return value.decode()
            loads = self._loads.get(kind)
            if loads is not None:
                return loads(value, number)
        except SerializationError:
            raise
        except Exception as error:  # a serializer may raise anything
            raise_interrupt(error)
            raise _unreadable(error) from error
        raise SerializationError(
            f"a row of kind {_text_of(kind)} cannot be read by this store: it was written "
            "with another serializer; name that as serializer or in also_read"
        )

    def loads_items(self, rows: Found, keys: Mapping[bytes, Any]) -> dict[Any, Any]:
        """The values of rows of (key, value, number, kind), by what `keys` has for theirs.

        KeyError for a row of another key; else as `loads`.
        """
        try:
            return {
                keys[key]: value.decode() if kind == b"1" else self.loads(value, number, kind)
                for key, value, number, kind in rows
            }
        except UnicodeDecodeError as error:
            raise _unreadable(error) from error


class RawValues:
    """Values of a table without a kind column: all bytes, all str, or all by one serializer."""

    readable: Where = ()

    def __init__(self, table: Table, value_type: type | None, serializer: Any) -> None:
        if (value_type is None) == (serializer is None):
            raise ValueError(
                "a table without a kind column holds values of one sort: give "
                "value_type=bytes, value_type=str, or a serializer"
            )
        if value_type not in (None, bytes, str):
            raise TypeError(f"value_type is bytes or str, not {value_type!r}")
        self._table = table
        self._type = value_type
        self._serializer = serializer_of(serializer) if serializer is not None else None

    def reads(self, kind: int) -> bool:
        """True: there is no other."""
        return True

    def dumps(self, value: object) -> Stored:
        """The column that holds a value. Raises SerializationError, ValueTooLargeError."""
        if self._serializer:
            data = _serialized(self._serializer, value)
        elif not isinstance(value, self._type or object):
            raise SerializationError(
                f"the values of this store are {self._type and self._type.__name__}, "
                f"not {type(value).__name__}"
            )
        else:
            data = _text(value) if isinstance(value, str) else bytes(value)  # type: ignore[call-overload]
        if len(data) > self._table.value_bytes:
            raise _too_large(data, self._table.value_bytes)
        return 0, 0, data

    def dumps_alike(self, values: Sequence[object]) -> None:
        """None: each by `dumps`."""

    def loads_items(self, rows: Found, keys: Mapping[bytes, Any]) -> dict[Any, Any]:
        """As `KindValues.loads_items`."""
        return {keys[key]: self.loads(value, number, kind) for key, value, number, kind in rows}

    def loads(self, value: bytes, number: bytes, kind: bytes) -> Any:
        """The Python value of a row. Raises SerializationError where it cannot be read."""
        try:
            if self._serializer:
                return self._serializer.loads(value)
            return value.decode() if self._type is str else value
        except Exception as error:  # a serializer may raise anything
            raise_interrupt(error)
            raise _unreadable(error) from error


def _unreadable(error: Exception) -> SerializationError:
    return SerializationError(f"a stored value cannot be read: {error!r}")


def _serialized(serializer: Serializer, value: object) -> bytes:
    try:
        return serializer.dumps(value)
    except Exception as error:  # a serializer may raise anything
        raise_interrupt(error)
        raise SerializationError(
            f"the serializer cannot hold this {type(value).__name__}: {error}; store bytes, "
            "convert it, or choose another serializer"
        ) from error


def _text(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise _no_text(error) from error


def _no_text(error: UnicodeEncodeError) -> SerializationError:
    return SerializationError(f"the text is not valid Unicode: {error}")


def _too_large(value: bytes, most: int) -> ValueTooLargeError:
    return ValueTooLargeError(f"the value has {len(value)} bytes, the column {most}")


def _checked(compress_min_bytes: int | None) -> int | None:
    if compress_min_bytes is not None and compress_min_bytes < 0:
        raise ValueError(f"compress_min_bytes is a number of bytes, not {compress_min_bytes!r}")
    return compress_min_bytes


def _decompressed(value: bytes, bound: int) -> bytes:
    decompressor = zlib.decompressobj()
    data = decompressor.decompress(value, bound)
    if decompressor.unconsumed_tail:
        raise SerializationError(f"a compressed value is larger than {bound} bytes")
    if not decompressor.eof:
        raise SerializationError("a compressed value is cut short")
    return data


def _text_of(cell: bytes | None) -> str:
    return "NULL" if cell is None else cell.decode("ascii", "replace")


def check_int64(name: str, value: int) -> None:
    """Raise TypeError or OverflowError for what is no integer of 64 bits."""
    if type(value) is int and INT64_MIN <= value <= INT64_MAX:
        return
    _check_int(name, value)
    if not INT64_MIN <= value <= INT64_MAX:
        raise OverflowError(f"{name} is beyond 64 bits: {value}")


def bound(name: str, value: int) -> int:
    """A bound as 64 bits hold it: one beyond them never holds a counter back."""
    _check_int(name, value)
    return min(max(value, INT64_MIN), INT64_MAX)


def _check_int(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is an int, not {type(value).__name__}")
