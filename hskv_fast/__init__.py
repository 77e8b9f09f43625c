"""The compiled codec of hskv: the twin of `hskv.wire._codec`, which says what each function does.

It has no policy and no socket, and imports nothing of hskv. An ImportError here means that it was
not compiled when hskv was installed: hskv then runs in pure Python.
"""

from ._codec import (
    decode_replies,
    decode_rows,
    decode_tokens,
    encode_token,
    encode_tokens,
    fill,
    fill_each,
)

__all__ = [
    "decode_replies",
    "decode_rows",
    "decode_tokens",
    "encode_token",
    "encode_tokens",
    "fill",
    "fill_each",
]
