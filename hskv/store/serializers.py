"""How values that are neither bytes, str nor 64-bit integers become bytes: by choice of a store.

Each serializer has a number, its kind, which stands in the row, so that a row says by itself how
it is to be read. msgpack and pickle are imported only where they are used.
"""

import importlib.util
import json
from typing import Any, Final, Protocol, cast

JSON: Final = 3
MSGPACK: Final = 4
PICKLE: Final = 5
USER_KINDS: Final = range(6, 16)


class Serializer(Protocol):
    """What a store takes for a serializer of one's own.

    `kind` is a number from 6 to 15, another for each serializer that was ever used on a table.
    `loads` must give what `dumps` was given; either may raise anything.
    """

    @property
    def kind(self) -> int: ...  # noqa: D102 the class says it

    def dumps(self, value: Any, /) -> bytes: ...  # noqa: D102 the class says it

    def loads(self, data: bytes, /) -> Any: ...  # noqa: D102 the class says it


class JsonSerializer:
    """JSON in UTF-8, which SQL's JSON functions read; refuses what JSON would lose or change."""

    kind: Final = JSON

    def dumps(self, value: object) -> bytes:
        """Compact JSON. Raises TypeError for keys that are no str, ValueError for NaN."""
        _refuse_other_keys(value)
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()

    def loads(self, data: bytes) -> Any:
        """The value; tuples were lists all along."""
        return json.loads(data)


class MsgpackSerializer:
    """MessagePack: smaller and quicker than JSON, and holds bytes. Needs the extra `msgpack`."""

    kind: Final = MSGPACK

    def __init__(self) -> None:
        try:
            import msgpack
        except ImportError as error:
            raise ImportError(
                "the serializer 'msgpack' needs the package of that name: "
                "pip install 'hskv[msgpack]'"
            ) from error
        self._msgpack = msgpack

    def dumps(self, value: object) -> bytes:
        """MessagePack. Raises TypeError, ValueError, OverflowError for what it cannot hold."""
        return cast(bytes, self._msgpack.packb(value))

    def loads(self, data: bytes) -> Any:
        """The value; tuples come back as lists."""
        return self._msgpack.unpackb(data, strict_map_key=False)


class PickleSerializer:
    """pickle: holds nearly everything, and runs whatever whoever writes to the table wants run."""

    kind: Final = PICKLE

    def __init__(self) -> None:
        import pickle

        self._pickle = pickle

    def dumps(self, value: object) -> bytes:
        """A pickle of protocol 5."""
        return self._pickle.dumps(value, 5)

    def loads(self, data: bytes) -> Any:
        """The value. Only for tables that nobody else can write to."""
        return self._pickle.loads(data)


_NAMED: Final[dict[str, type[Any]]] = {
    "json": JsonSerializer,
    "msgpack": MsgpackSerializer,
    "pickle": PickleSerializer,
}


def serializer_of(chosen: "str | Serializer") -> Serializer:
    """The serializer of a name, or the given object itself.

    Raises ValueError for an unknown name or a kind outside 6 to 15, TypeError for an object that
    is no serializer, ImportError where msgpack is missing.
    """
    if isinstance(chosen, str):
        if chosen not in _NAMED:
            raise ValueError(f"serializer {chosen!r} is none of {', '.join(_NAMED)}")
        return cast(Serializer, _NAMED[chosen]())
    kind = getattr(chosen, "kind", None)
    if not (callable(getattr(chosen, "dumps", None)) and callable(getattr(chosen, "loads", None))):
        raise TypeError("a serializer is a name, or an object with dumps, loads and kind")
    if type(chosen) not in _NAMED.values() and kind not in USER_KINDS:
        first, last = USER_KINDS[0], USER_KINDS[-1]
        raise ValueError(
            f"the kind of one's own serializer is from {first} to {last}, not {kind!r}"
        )
    return chosen


def always_readable() -> list[Serializer]:
    """The serializers whose rows every store reads: JSON, and msgpack where it is installed."""
    found: list[Serializer] = [JsonSerializer()]
    if importlib.util.find_spec("msgpack"):
        found.append(_Later())
    return found


class _Later:
    """msgpack, imported when the first such row is met."""

    kind: Final = MSGPACK

    def dumps(self, value: object) -> bytes:
        return MsgpackSerializer().dumps(value)

    def loads(self, data: bytes) -> Any:
        return MsgpackSerializer().loads(data)


def _refuse_other_keys(value: object) -> None:
    # json.dumps would turn 1 and None into "1" and "null" without a word.
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"keys must be str, not {type(key).__name__}")
            _refuse_other_keys(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_other_keys(item)
