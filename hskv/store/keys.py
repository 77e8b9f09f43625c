"""Keys of a store, and the row keys that stand for them in the table.

A row key is the prefix and the key. Row keys that begin with NUL are reserved for rows that are
no items: NUL, a letter for what they are, the prefix, NUL, a name.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from ..exceptions import KeyTooLongError, SerializationError, UnsupportedError
from ..wire.requests import INT64_MIN
from .table import Table

# Keys from NUL on are reserved for rows that are no items of any mapping.
FIRST: Final = b"\x01"
_DEFAULT_KEY_BYTES: Final = 255

Range = tuple[bytes, bytes | None]
"""The first row key of a range, and the first beyond it; None where it has no end."""


class Keys(ABC):
    """Keys of one type, under a prefix."""

    type: type
    prefix: bytes = b""

    @abstractmethod
    def row_key(self, key: object) -> bytes:
        """The row key of a key.

        Raises TypeError for another type, KeyTooLongError, ValueError for a reserved key.
        """

    @abstractmethod
    def key(self, row_key: bytes) -> Any:
        """The key of a row key of this store. Raises SerializationError where it is none."""

    @abstractmethod
    def range(self, prefix: Any = None) -> Range:
        """The row keys of this store, or of those of its keys that begin with a prefix."""

    @abstractmethod
    def reserved(self, letter: bytes, name: str | bytes) -> bytes:
        """The row key of something that is no item. UnsupportedError on most mapped tables."""

    def row_keys(self, keys: Iterable[Any]) -> dict[bytes, Any]:
        """The row keys of several keys, each once, in the order given, and what they stand for."""
        if isinstance(keys, (str, bytes)):
            raise TypeError(f"keys is an iterable of keys, not one {type(keys).__name__}")
        return {self.row_key(key): key for key in keys}


class TextKeys(Keys):
    """Keys of str (as UTF-8) or bytes."""

    def __init__(self, table: Table, key_type: type, prefix: str | bytes) -> None:
        self.type = key_type
        self.prefix = prefix.encode() if isinstance(prefix, str) else prefix
        self._key_bytes = table.key_bytes
        self._byte_exact = table.byte_exact
        if b"\x00" in self.prefix:
            raise ValueError("a prefix cannot hold NUL: such keys are reserved")
        if len(self.prefix) >= self._key_bytes:
            raise KeyTooLongError(
                f"the prefix has {len(self.prefix)} bytes, the key column {self._key_bytes}"
            )
        self._check_exact(self.prefix, "a prefix")

    def row_key(self, key: object) -> bytes:
        """As `Keys.row_key`."""
        if not isinstance(key, self.type):
            raise TypeError(f"keys are {self.type.__name__}, not {type(key).__name__}")
        try:
            row_key: bytes = self.prefix + (key if self.type is bytes else key.encode())  # type: ignore[attr-defined,operator]
        except UnicodeEncodeError as error:
            raise _not_unicode(error) from error
        if row_key >= FIRST and len(row_key) <= self._key_bytes:
            return row_key
        if len(row_key) > self._key_bytes:
            raise KeyTooLongError(
                f"the key has {len(row_key)} bytes with its prefix, the column "
                f"{self._key_bytes}: shorten or hash it"
            )
        raise ValueError("an empty key, or one that begins with NUL, is reserved")

    def row_keys(self, keys: Iterable[Any]) -> dict[bytes, Any]:
        """As `Keys.row_keys`."""
        if isinstance(keys, (str, bytes)):
            return super().row_keys(keys)
        keys = list(keys)
        if self.type is str and {str}.issuperset(map(type, keys)):
            # Checked as a whole, which is a third of the cost; what fails is told one by one.
            with suppress(UnicodeEncodeError):
                encoded = list(map(str.encode, keys))
                if self.prefix:
                    encoded = [self.prefix + key for key in encoded]
                # An empty key, or one that begins with NUL; sometimes another that looks like it.
                packed = b"\n".join((b"", *encoded, b""))
                odd = b"\n\x00" in packed or b"\n\n" in packed
                if not odd and max(map(len, encoded), default=0) <= self._key_bytes:
                    return dict(zip(encoded, keys, strict=True))
        return super().row_keys(keys)

    def key(self, row_key: bytes) -> Any:
        """As `Keys.key`."""
        key = row_key[len(self.prefix) :]
        if self.type is bytes:
            return key
        try:
            return key.decode()
        except UnicodeDecodeError:
            raise SerializationError(
                f"the key {key!r} is not UTF-8: open the store with key_type=bytes"
            ) from None

    def range(self, prefix: Any = None) -> Range:
        """As `Keys.range`."""
        if prefix is not None and not isinstance(prefix, (str, bytes)):
            raise TypeError(f"a prefix is str or bytes, not {type(prefix).__name__}")
        start = self.prefix + (_encoded(prefix) if prefix else b"")
        self._check_exact(start, "a prefix")
        if start[:1] == b"\x00":
            raise ValueError("no key begins with NUL: such keys are reserved")
        stem = start.rstrip(b"\xff")
        end = stem[:-1] + bytes([stem[-1] + 1]) if stem else None
        return start or FIRST, end

    def reserved(self, letter: bytes, name: str | bytes) -> bytes:
        """As `Keys.reserved`."""
        encoded = _encoded(name)
        self._check_exact(b"\x00", "a lease, a limiter or a canary")
        row_key = b"\x00" + letter + self.prefix + b"\x00" + encoded
        if len(row_key) <= self._key_bytes and encoded[:1] != b"\x00":
            return row_key
        from hashlib import sha256  # slow to import, and seldom wanted

        # After NUL NUL, where no name begins, stands a digest: of all of it, as one part may fit.
        row_key = b"\x00" + letter + b"\x00\x00" + sha256(row_key).digest()
        if len(row_key) > self._key_bytes:
            raise UnsupportedError(
                f"a name this long needs a key column of {len(row_key)} bytes, not "
                f"{self._key_bytes}: shorten it, or make the column wider"
            )
        return row_key

    def _check_exact(self, used: bytes, what: str) -> None:
        if used and not self._byte_exact:
            raise UnsupportedError(
                f"{what} needs a key column that compares byte by byte: make it VARBINARY, and "
                "say byte_exact=True in the Table"
            )


class IntKeys(Keys):
    """Keys of int, on an integer column."""

    type = int

    def __init__(self, table: Table, prefix: str | bytes) -> None:
        if prefix:
            raise ValueError("integer keys have no prefix")
        width = 8 if table.key_bytes == _DEFAULT_KEY_BYTES else table.key_bytes
        if width not in (1, 2, 3, 4, 8):
            raise ValueError(f"an integer column has 1, 2, 3, 4 or 8 bytes, not {width}")
        span = 1 << (8 * width)
        self._numbers = range(span) if table.key_unsigned else range(-span // 2, span // 2)

    def row_key(self, key: object) -> bytes:
        """As `Keys.row_key`."""
        if not isinstance(key, int) or isinstance(key, bool):
            raise TypeError(f"keys are int, not {type(key).__name__}")
        if key not in self._numbers:
            raise KeyTooLongError(
                f"the key {key} is not in {self._numbers[0]} to {self._numbers[-1]}, "
                "which is what the column holds"
            )
        return b"%d" % key

    def key(self, row_key: bytes) -> Any:
        """As `Keys.key`."""
        try:
            return int(row_key)
        except ValueError:
            raise SerializationError(f"the key {row_key!r} is no number") from None

    def range(self, prefix: Any = None) -> Range:
        """As `Keys.range`."""
        if prefix is not None:
            raise ValueError("integer keys have no prefix")
        return b"%d" % INT64_MIN, None

    def reserved(self, letter: bytes, name: str | bytes) -> bytes:
        """As `Keys.reserved`."""
        raise UnsupportedError("an integer key column has no room for leases and limiters")


class ReservedKeys(Keys):
    """Names of what is no item, as keys of a store of their own; they cannot be gone through."""

    type = bytes

    def __init__(self, keys: Keys, letter: bytes) -> None:
        self.prefix = keys.prefix
        self._keys = keys
        self._letter = letter

    def row_key(self, key: Any) -> bytes:
        """As `Keys.row_key`."""
        return self._keys.reserved(self._letter, key)

    def key(self, row_key: bytes) -> Any:
        """A name may have been hashed: UnsupportedError."""
        raise UnsupportedError("reserved names cannot be gone through")

    def range(self, prefix: Any = None) -> Range:
        """They are no range: UnsupportedError."""
        raise UnsupportedError("reserved names cannot be gone through")

    def reserved(self, letter: bytes, name: str | bytes) -> bytes:
        """As `Keys.reserved`."""
        return self._keys.reserved(letter, name)


def keys_of(table: Table, key_type: type, prefix: str | bytes) -> Keys:
    """The keys of a store. Raises ValueError, TypeError, KeyTooLongError, UnsupportedError."""
    if key_type is int:
        return IntKeys(table, prefix)
    if key_type not in (str, bytes):
        raise TypeError(f"key_type is str, bytes or int, not {key_type!r}")
    return TextKeys(table, key_type, prefix)


def _encoded(key: Any) -> bytes:
    if isinstance(key, bytes):
        return key
    if not isinstance(key, str):
        raise TypeError(f"a name is str or bytes, not {type(key).__name__}")
    try:
        encoded = key.encode()
    except UnicodeEncodeError as error:
        raise _not_unicode(error) from error
    return encoded


def _not_unicode(error: UnicodeEncodeError) -> ValueError:
    return ValueError(f"the key is not valid Unicode: {error}; use bytes keys")
