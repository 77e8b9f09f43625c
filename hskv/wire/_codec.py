r"""Tokens to wire bytes and back, in pure Python: the reference for `hskv_fast`.

A line is tokens joined by TAB. NULL is the single byte NUL; in any other token a byte from
0x00 to 0x0f is sent as 0x01 and the byte plus 0x40, the rest as it is.
"""

from collections.abc import Sequence

_CONTROL = bytes(range(0x10))
# 0x01 comes first: it is the escape itself, and the other escapes add 0x01 bytes.
_ESCAPES = [
    (bytes([byte]), bytes([0x01, byte + 0x40]))
    for byte in (0x01, *(b for b in range(0x10) if b != 0x01))
]
_ESCAPED = {byte + 0x40: bytes([byte]) for byte in range(0x10)}
# A part of a large token decoded at once: keeps the list of its parts small.
_SLICE = 1 << 16


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
    if len(token.translate(None, _CONTROL)) == len(token):
        return token
    for byte, escape in _ESCAPES:
        token = token.replace(byte, escape)
    return token


def decode_tokens(line: bytes) -> list[bytes | None]:
    """The tokens of a line that has no LF.

    Raises ValueError for an escape that is cut short or names no byte.
    """
    tokens: list[bytes | None] = line.split(b"\t")  # type: ignore[assignment]
    # An int is looked for by memchr, six times as fast as bytes of length one.
    if 0x00 in line:
        tokens = [None if token == b"\x00" else token for token in tokens]
    if 0x01 in line:
        tokens = [token and _decode_token(token) for token in tokens]
    return tokens


def _decode_token(token: bytes) -> bytes:
    if len(token) <= _SLICE:
        return _unescape(token)
    decoded = bytearray()
    start, size = 0, len(token)
    while start < size:
        end = min(start + _SLICE, size)
        if end < size and token[end - 1] == 0x01:
            end += 1
        decoded += _unescape(token[start:end])
        start = end
    return bytes(decoded)


def _unescape(token: bytes) -> bytes:
    head, *escaped = token.split(b"\x01")
    try:
        return head + b"".join([_ESCAPED[part[0]] + part[1:] for part in escaped])
    except (IndexError, KeyError):
        raise ValueError("malformed escape: 0x01 is not followed by 0x40 to 0x4f") from None
