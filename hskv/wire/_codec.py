r"""Tokens to wire bytes and back, in pure Python: the reference for `hskv_fast`.

A line is tokens joined by TAB. NULL is the single byte NUL; in any other token a byte from
0x00 to 0x0f is sent as 0x01 and the byte plus 0x40, the rest as it is.
"""

from collections.abc import Iterable, Sequence
from functools import cache

_CONTROL = bytes(range(0x10))
# 0x01 comes first: it is the escape itself, and the other escapes add 0x01 bytes.
_ESCAPES = [
    (bytes([byte]), bytes([0x01, byte + 0x40]))
    for byte in (0x01, *(b for b in range(0x10) if b != 0x01))
]
_ESCAPED = {byte + 0x40: bytes([byte]) for byte in range(0x10)}
# A part of a large token decoded at once: keeps the list of its parts small.
_SLICE = 1 << 16
# A longer line is decoded token by token, which is slower by a little and takes half the memory.
_LARGE = 1 << 22
# InnoDB has at most 1,017 columns; a list that repeats them may be longer.
_COUNTS: dict[bytes | None, int] = {b"%d" % count: count for count in range(4097)}
_LF = 0x0A

_Rows = list[tuple[bytes | None, ...]]
_Decoded = _Rows | tuple[bytes | None, int, _Rows]


def encode_tokens(tokens: Sequence[bytes | None]) -> bytes:
    """The tokens as wire bytes, joined by TAB, without the LF that ends a line."""
    try:
        joined = b"".join(tokens)  # type: ignore[arg-type]
    except TypeError:
        return b"\t".join([b"\x00" if t is None else encode_token(t) for t in tokens])
    if len(joined.translate(None, _CONTROL)) == len(joined):
        return b"\t".join(tokens)  # type: ignore[arg-type]
    return b"\t".join([encode_token(t) for t in tokens])  # type: ignore[arg-type]


def encode_token(token: bytes) -> bytes:
    """One token, never NULL, as wire bytes."""
    # Of bytes, and so a TypeError for all else.
    if len(bytes.translate(token, None, _CONTROL)) == len(token):
        return token
    for byte, escape in _ESCAPES:
        token = token.replace(byte, escape)
    return token


def fill(template: bytes, values: Sequence[bytes | int]) -> bytes:
    """A template with a token in place of each %b and an integer of 64 bits of each %d.

    Raises TypeError for values that do not go with the template.
    """
    filled = template % tuple(values)
    # Most tokens need no escape; to look at all at once is half the cost.
    if len(filled) - len(filled.translate(None, _CONTROL)) == _controls(template):
        return filled
    return template % tuple([v if isinstance(v, int) else encode_token(v) for v in values])


def fill_each(template: bytes, rows: Iterable[Sequence[bytes | int]]) -> list[bytes]:
    """As `fill`, for the values of each row."""
    return [fill(template, values) for values in rows]


def decode_tokens(line: bytes) -> list[bytes | None]:
    """The tokens of a line that has no LF.

    Raises ValueError for an escape that is cut short or names no byte.
    """
    if len(line) > _LARGE:
        return _decode_large(line)
    tokens: list[bytes | None] = line.split(b"\t")  # type: ignore[assignment]
    # An int is looked for by memchr, six times as fast as bytes of length one.
    if 0x00 in line:
        tokens = [None if token == b"\x00" else token for token in tokens]
    if 0x01 in line:
        tokens = [token and _unescape(token) for token in tokens]
    return tokens


def decode_rows(data: bytes) -> _Rows | None:
    """The rows of one whole reply that has some; None where `data` is anything else."""
    if data.find(_LF) != len(data) - 1 or data[:2] != b"0\t":
        return None
    try:
        decoded = _decoded(data[:-1])
    except ValueError:
        return None
    return decoded if isinstance(decoded, list) else None


def decode_replies(data: bytes | memoryview) -> tuple[list[_Decoded], int]:
    """Every whole line, and how many bytes they are in all.

    A line that begins with "0" is a list of rows, of as many cells as it has columns. One without
    rows, and what is no "0", which words follow, is its first token, the number of its columns, and
    one row or none. Raises ValueError for a malformed escape, and where columns and values do not
    fit.
    """
    data = bytes(data)
    *lines, rest = data.split(b"\n")
    return [_decoded(line) for line in lines], len(data) - len(rest)


@cache
def _controls(template: bytes) -> int:
    return len(template) - len(template.translate(None, _CONTROL))


def _decoded(line: bytes) -> _Decoded:
    code, *cells = decode_tokens(line)
    columns = _COUNTS.get(cells[0]) if cells else None
    if columns is None:
        raise ValueError("a reply has no number of columns")
    size = len(cells) - 1
    if not size or code != b"0":
        return code, columns, [tuple(cells[1:])] if size else []
    if size == columns:
        return [tuple(cells[1:])]
    if not columns or size % columns:
        raise ValueError("the values of a reply do not fit its columns")
    starts = range(1, size + 1, columns)
    return [tuple(cells[start : start + columns]) for start in starts]


def _decode_large(line: bytes) -> list[bytes | None]:
    """As `decode_tokens`, without a copy of the line beside the tokens."""
    tokens: list[bytes | None] = []
    start = 0
    while start <= len(line):
        end = line.find(b"\t", start)
        end = len(line) if end < 0 else end
        null = end - start == 1 and line[start] == 0x00
        tokens.append(None if null else _decode_part(line, start, end))
        start = end + 1
    return tokens


def _decode_part(line: bytes, start: int, end: int) -> bytes:
    slices = []
    while start < end:
        stop = min(start + _SLICE, end)
        if stop < end and line[stop - 1] == 0x01:
            stop += 1
        part = line[start:stop]
        slices.append(_unescape(part) if 0x01 in part else part)
        start = stop
    return slices[0] if len(slices) == 1 else b"".join(slices)


def _unescape(token: bytes) -> bytes:
    head, *escaped = token.split(b"\x01")
    try:
        return head + b"".join([_ESCAPED[part[0]] + part[1:] for part in escaped])
    except (IndexError, KeyError):
        raise ValueError("malformed escape: 0x01 is not followed by 0x40 to 0x4f") from None
