r"""The file of a dump: lines of JSON, which says by itself what it is and whether it is whole.

    {"hskv_dump": 1, "table": "hskv.kv", ...}
    {"key":"user:1","kind":1,"value":"ann","version":5,"expires":1790000000000}
    {"rows":1,"sha256":"..."}
    {"end":true,"rows":1,"sha256":"..."}

A row has what its columns have: `number` where it is not 0, `expires` where it is not never; bytes
that are no UTF-8 are NAME_base64. After at most `BLOCK_ROWS` rows comes a check: how many rows
there were, and the SHA-256 of all their lines, LF included. Only a whole dump has the end.
"""

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from json.encoder import encode_basestring
from typing import IO, Any, Final, NamedTuple

from ..exceptions import SerializationError
from ..store.table import NEVER
from ..store.verbs import Cells
from ..wire.requests import INT64_MAX, INT64_MIN

VERSION: Final = 1
BLOCK_ROWS: Final = 1000
BLOCK_BYTES: Final = 1 << 20
_NEVER: Final = b"%d" % NEVER
_CHECK: Final = b'"rows":%d,"sha256":"%b"}\n'
# Longer than any end.
_TAIL_BYTES: Final = 512


class DumpError(SerializationError):
    """A file that is no dump, or a damaged one, or a part of one; the message tells what to do."""


class Check(NamedTuple):
    """How many rows came before, and the SHA-256 of their lines."""

    rows: int
    sha256: str
    end: bool = False


class Writer:
    """Writes a dump, block by block; `digest` and `rows` are those of what is there already."""

    def __init__(self, file: IO[bytes], digest: Any = None, rows: int = 0) -> None:
        self._file = file
        self._digest = digest or hashlib.sha256()
        self._lines: list[bytes] = []
        self._size = 0
        self.rows = rows

    def header(self, **about: Any) -> None:
        """Begin the file, saying what it is about."""
        line = json.dumps({"hskv_dump": VERSION, **about}, ensure_ascii=False)
        self._file.write(line.encode() + b"\n")

    def add(self, rows: Iterable[Sequence[bytes]]) -> None:
        """Write rows, each the cells of all columns as they were received."""
        for cells in rows:
            line = _line(*cells)
            self._lines.append(line)
            self._size += len(line)
            if self._size >= BLOCK_BYTES or len(self._lines) >= BLOCK_ROWS:
                self._end_block()

    def end(self) -> Check:
        """End the file, which is whole then."""
        self._end_block()
        check = Check(self.rows, self._digest.hexdigest(), end=True)
        self._file.write(b'{"end":true,' + _CHECK % (check.rows, check.sha256.encode()))
        return check

    def _end_block(self) -> None:
        if not self._lines:
            return
        block = b"".join(self._lines)
        self._digest.update(block)
        self.rows += len(self._lines)
        self._lines, self._size = [], 0
        self._file.write(block)
        self._file.write(b"{" + _CHECK % (self.rows, self._digest.hexdigest().encode()))


class Block(NamedTuple):
    """The lines of some rows, as the check that follows them found them."""

    lines: list[bytes]
    check: Check

    def rows(self) -> list[Cells]:
        """The rows. Raises DumpError for lines that no dump has."""
        try:
            return [_cells(json.loads(line)) for line in self.lines]
        except (KeyError, TypeError, ValueError) as error:
            raise DumpError(f"a row before row {self.check.rows} is none: {error!r}") from None


class Reader:
    """Reads a dump, checking each block before it is given out.

    `header` is what the file says of itself. Raises DumpError for a file that is no dump.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._read = 0
        self.digest = hashlib.sha256()
        self.rows = 0
        self.offset = 0
        """Where the last block that was given out ends, in bytes from the start."""
        self.header = _header(self._read_line())
        self.offset = self._read

    def blocks(self) -> Iterator[Block]:
        """The blocks that are whole and right. Raises DumpError at the first that is not."""
        lines: list[bytes] = []
        while line := self._read_line():
            if line.startswith(b'{"key') and len(lines) < BLOCK_ROWS:
                lines.append(line)
                continue
            check = self._checked(lines, line)
            if check.end:
                return
            yield Block(lines, check)
            lines = []
        raise DumpError(f"the dump is cut short behind row {self.rows}: {_ADVICE}")

    def _checked(self, lines: list[bytes], line: bytes) -> Check:
        check = _check(line)
        digest = self.digest.copy()
        digest.update(b"".join(lines))
        rows = self.rows + len(lines)
        if check is None or check[:2] != (rows, digest.hexdigest()):
            raise DumpError(f"the dump is damaged behind row {self.rows}: {_ADVICE}")
        if not check.end:
            self.digest, self.rows, self.offset = digest, rows, self._read
        return check

    @property
    def check(self) -> Check:
        """What was read so far."""
        return Check(self.rows, self.digest.hexdigest())

    def _read_line(self) -> bytes:
        line = self._file.readline()
        self._read += len(line)
        return line


_ADVICE: Final = "make another, or take another copy of it"


def last_check(file: IO[bytes]) -> Check:
    """The end of a file that can be gone through twice. DumpError where it has none."""
    file.seek(0, 2)
    file.seek(max(file.tell() - _TAIL_BYTES, 0))
    lines = file.read().splitlines(keepends=True)
    file.seek(0)
    check = _check(lines[-1]) if lines else None
    if check is None or not check.end:
        raise DumpError(f"the dump is cut short: its end is missing; {_ADVICE}")
    return check


def _header(line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)
        version = header["hskv_dump"]
    except (ValueError, KeyError, TypeError):
        raise DumpError("this is no dump of hskv: its first line says nothing of one") from None
    if version != VERSION:
        raise DumpError(f"the dump has format {version}, this hskv reads {VERSION}: upgrade it")
    return dict(header)


def _check(line: bytes) -> Check | None:
    """The check that a line is, None where it is none or not whole."""
    try:
        found = json.loads(line)
        return Check(found["rows"], found["sha256"], found.get("end", False))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _line(
    key: bytes, value: bytes, number: bytes, kind: bytes, version: bytes, expires: bytes
) -> bytes:
    counted = b"" if number == b"0" else b',"number":%b' % number
    ends = b"" if expires == _NEVER else b',"expires":%b' % expires
    parts = (_member(b"key", key), kind, _member(b"value", value), counted, version, ends)
    return b'{%b,"kind":%b,%b%b,"version":%b%b}\n' % parts


def _member(name: bytes, data: bytes) -> bytes:
    try:
        return b'"%b":%b' % (name, encode_basestring(data.decode()).encode())
    except UnicodeDecodeError:
        return b'"%b_base64":"%b"' % (name, b64encode(data))


def _cells(row: dict[str, Any]) -> Cells:
    cells = (
        _data(row, "key"),
        _data(row, "value"),
        row.get("number", 0),
        row["kind"],
        row["version"],
        row.get("expires", NEVER),
    )
    for number in cells[2:]:
        if type(number) is not int or not INT64_MIN <= number <= INT64_MAX:
            raise ValueError("a number is missing, or beyond 64 bits")
    return cells


def _data(row: dict[str, Any], name: str) -> bytes:
    text: str | None = row.get(name)
    return b64decode(row[f"{name}_base64"]) if text is None else text.encode()
