"""Values of rows, as they are shown and as they are typed."""

import base64
import json
from typing import Any, Final

from ..exceptions import SerializationError
from ..store.table import NEVER, Table
from ..store.values import COMPRESSED, Kind, KindValues
from ..store.verbs import Row
from .exits import Exit, Failure
from .keys import in_json, shown

_KINDS: Final = {kind: kind.name.lower() for kind in Kind} | {Kind.INTEGER: "int"}
_READER: Final = KindValues(Table())


def kind_name(kind: int) -> str:
    """What a kind is called: text, json, json+zlib, user6 and so on."""
    plain = kind - COMPRESSED if COMPRESSED <= kind < 2 * COMPRESSED else kind
    name = _KINDS.get(plain, f"user{plain}")  # type: ignore[call-overload]
    return name if plain == kind else f"{name}+zlib"


def ttl_of(row: Row, now: float) -> float | None:
    """Seconds that a row has left, None for ever."""
    return None if row.expires == NEVER else max(round(row.expires / 1000 - now, 3), 0.0)


def value_of(row: Row) -> Any:
    """The value of a row that any store reads. Ends the command for another."""
    try:
        return _READER.loads(row.value, b"%d" % row.number, b"%d" % row.kind)
    except SerializationError as error:
        if _READER.reads(row.kind):
            raise
        raise Failure(
            f"a value of kind {kind_name(row.kind)} is for the program that wrote it; "
            "--raw gives its bytes",
            Exit.REFUSED,
        ) from error


def line_of(row: Row) -> str:
    """The value of a row in one line of text."""
    try:
        value = value_of(row)
    except (Failure, SerializationError):
        return f"({kind_name(row.kind)}, {len(row.value)} bytes)"
    if isinstance(value, (str, bytes)):
        return shown(value.encode() if isinstance(value, str) else value)
    return as_json(value)


def as_json(value: Any) -> str:
    """A value in JSON; bytes, which msgpack holds and JSON does not, as {"base64": ...}."""
    return json.dumps(value, ensure_ascii=False, default=_base64)


def _base64(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return str(value)


def members(row: Row, now: float) -> dict[str, Any]:
    """A row as an object of JSON: key, kind, value, ttl, version; NAME_base64 for bytes."""
    found: dict[str, Any] = {**in_json("key", row.key), "kind": kind_name(row.kind)}
    try:
        value = value_of(row)
        found |= in_json("value", value) if isinstance(value, bytes) else {"value": value}
    except (Failure, SerializationError):
        found["value_base64"] = base64.b64encode(row.value).decode()
    return {**found, "ttl": ttl_of(row, now), "version": row.version}
