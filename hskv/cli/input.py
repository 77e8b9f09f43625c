"""Values and lifetimes as they are typed on a command line."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from ..store.expiry import DEFAULT, MAX_TTL_SECONDS, TtlOrDefault

_TTL: Final = re.compile(r"(\d+\.?\d*|\.\d+)([smhdw]?)")
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

TYPES: Final = ("bytes", "text", "int", "json")
STDIN: Final = "-"
_LOADS: Final[dict[str, Callable[[str], Any]]] = {"text": str, "int": int, "json": json.loads}


def typed_ttl(ctx: click.Context, parameter: click.Parameter, text: str | None) -> TtlOrDefault:
    """Seconds from 90, 90s, 15m, 12h, 7d or 2w; None for "never", DEFAULT where none is given."""
    if text is None:
        return DEFAULT
    if text == "never":
        return None
    match = _TTL.fullmatch(text)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds < MAX_TTL_SECONDS:
        raise click.BadParameter(
            "a lifetime is seconds above zero, or 15m, 12h, 7d, 2w, or never; below 100 years"
        )
    return seconds


def typed_value(text: str | None, file: Path | None, kind: str | None) -> Any:
    """The value of a command: its argument, or what a file or stdin holds; of a kind of `TYPES`.

    An argument is text unless another kind is named, a file or stdin bytes.
    """
    if text is not None and text != STDIN:
        if file is not None:
            raise click.UsageError("give a value or --file, not both")
        return _converted(os.fsencode(text), kind or "text")
    return _converted(_read(file), kind or "bytes")


def _read(file: Path | None) -> bytes:
    if file is not None and str(file) != STDIN:
        return file.read_bytes()
    if sys.stdin.isatty():
        raise click.UsageError("give a value, or --file, or write the value to stdin")
    return sys.stdin.buffer.read()


def _converted(data: bytes, kind: str) -> Any:
    if kind == "bytes":
        return data
    try:
        return _LOADS[kind](data.decode())
    except UnicodeDecodeError:
        raise click.UsageError(f"the value is no UTF-8, so no {kind}: --type bytes") from None
    except ValueError as error:
        raise click.UsageError(f"the value is no {kind}: {error}") from None
