r"""Keys and values as they are typed and shown: what is no printable text as \xHH, \ as \\."""

import base64
import os
import re
from typing import Any, Final

import click

_ESCAPE: Final = re.compile(rb"\\(?:(\\)|x([0-9a-fA-F]{2}))?")


def typed_key(text: str) -> bytes:
    r"""The key that was typed on a command line. BadParameter for a \ that is no escape."""
    return _ESCAPE.sub(_unescaped, os.fsencode(text))


def _unescaped(match: re.Match[bytes]) -> bytes:
    if match[1]:
        return b"\\"
    if not match[2]:
        raise click.BadParameter(r"in a key \ is written \\, and any byte may be written \xHH")
    return bytes.fromhex(match[2].decode())


def shown(data: bytes) -> str:
    """Bytes as they can be typed for a key; safe for a terminal."""
    text = data.decode("utf-8", "surrogateescape").replace("\\", "\\\\")
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def _escaped(one: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in one.encode("utf-8", "surrogateescape"))


def in_json(name: str, data: bytes) -> dict[str, Any]:
    """Bytes as a member of a JSON object: as text, or as NAME_base64 where they are none."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}
