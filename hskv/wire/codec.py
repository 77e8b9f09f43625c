"""Chooses, once, which codec runs: the compiled `hskv_fast` or the pure-Python reference.

The environment variable `HSKV_IMPL` forces one of "cython" and "python"; a forced one that is
not there is an ImportError.
"""

import importlib
import os
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType

__all__ = [
    "decode_replies",
    "decode_rows",
    "decode_tokens",
    "encode_token",
    "encode_tokens",
    "fill",
    "fill_each",
    "implementation",
]

_Rows = list[tuple[bytes | None, ...]]
_Decoded = _Rows | tuple[bytes | None, int, _Rows]

_MODULES = {"cython": "hskv_fast", "python": "hskv.wire._codec"}


def _choose(forced: str | None) -> tuple[str, ModuleType]:
    if forced is None:
        try:
            return "cython", importlib.import_module(_MODULES["cython"])
        except ImportError:
            return "python", importlib.import_module(_MODULES["python"])
    if forced not in _MODULES:
        raise ImportError(f"HSKV_IMPL must be one of {', '.join(_MODULES)}, not {forced!r}")
    try:
        return forced, importlib.import_module(_MODULES[forced])
    except ImportError as error:
        raise ImportError(
            f"HSKV_IMPL={forced} was asked for, but {_MODULES[forced]} cannot be imported: "
            "install hskv with its compiled part, or unset HSKV_IMPL"
        ) from error


implementation, _module = _choose(os.environ.get("HSKV_IMPL") or None)
encode_token: Callable[[bytes], bytes] = _module.encode_token
encode_tokens: Callable[[Sequence[bytes | None]], bytes] = _module.encode_tokens
fill: Callable[[bytes, Sequence[bytes | int]], bytes] = _module.fill
fill_each: Callable[[bytes, Iterable[Sequence[bytes | int]]], list[bytes]] = _module.fill_each
decode_tokens: Callable[[bytes], list[bytes | None]] = _module.decode_tokens
decode_rows: Callable[[bytes], _Rows | None] = _module.decode_rows
decode_replies: Callable[[bytes | memoryview], tuple[list[_Decoded], int]] = _module.decode_replies
