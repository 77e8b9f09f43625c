"""Operations of a store on many keys at once."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, repeat
from typing import Any, Final, Generic, cast

from ..exceptions import (
    BatchError,
    HandlerSocketError,
    KeyMismatchError,
    OperationalError,
    OutcomeUnknownError,
)
from . import plans
from .base import K, StoreBase, V
from .expiry import DEFAULT, TtlOrDefault, not_keep
from .mapping import TableMapping
from .plans import Progress
from .table import NEVER
from .verbs import Cells, Delete, Found, live
from .versions import new_version

_KEYS_PER_REQUEST: Final = 1000


class Batches(StoreBase[K, V]):
    """Get, set and remove many keys."""

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """The items of those keys that are there, in the order given.

        One round trip for each 1,000 keys; each of them is one snapshot.

        >>> store.set_many({"a": 1, "b": 2})
        >>> store.get_many(["b", "a", "c"])
        {'b': 2, 'a': 1}
        """
        asked = self._keys.row_keys(keys)
        found: dict[K, V] = {}
        for chunk in _chunks(list(asked)):
            rows = self._executor.find_items(chunk, self._now())
            try:
                found |= self._values.loads_items(cast(Found, rows), asked)
            except KeyError as error:
                raise _another_key(error.args[0]) from None
        return found

    def set_many(
        self, items: Mapping[K, V] | Iterable[tuple[K, V]], ttl: TtlOrDefault = DEFAULT
    ) -> None:
        """Store many values; each as `set` does, the whole not atomically.

        All keys of a mapping are checked before the first value is sent; from an iterator items
        are taken as they are sent. Packets of at most 1,000 rows and about 1 MiB take one round
        trip, two where they hold new keys; of several values for a key the last counts. Raises
        BatchError with `stored`, `failed` and `unknown` keys when it cannot finish (of an
        iterator, those that were taken from it); when nothing was sent, the error itself.

        >>> store.set_many({"a": 1, "b": 2}, ttl=3600)
        >>> store.set_many((f"square:{n}", n * n) for n in range(3))
        >>> len(store)
        5
        """
        ttl = not_keep(ttl, "set_many")
        self._expires(ttl)
        # Another store is gone through as it is sent: its items may change meanwhile.
        if isinstance(items, Mapping) and not isinstance(items, TableMapping):
            batch: _Batch[K] = _Batch(items)
            packets = self._packets(self._keys.row_keys(items), items.values(), ttl)
        else:
            batch = _Batch()
            taken = batch.taken(items.items() if isinstance(items, Mapping) else items)
            pairs = ((self._keys.row_key(key), value) for key, value in taken)
            packets = plans.packets(self._rows(pairs, ttl))
        try:
            for packet in packets:
                batch.begin(len(packet))
                self._run(plans.set_rows(packet, batch.progress))
                self._after_writes(len(packet))
        except (HandlerSocketError, TypeError, ValueError) as error:
            if not batch.sent:
                raise
            raise batch.error(error) from error

    def delete_many(self, keys: Iterable[K]) -> int:
        """Remove keys; how many were there. One round trip for each 1,000, not atomic as a whole.

        Raises BatchError when it cannot finish; `stored` are then the keys that are gone.

        >>> store.set_many({"a": 1, "b": 2})
        >>> store.delete_many(["a", "b", "c"])
        2
        """
        row_keys = list(self._keys.row_keys(keys))
        batch: _Batch[K] = _Batch(map(self._keys.key, row_keys))
        count = 0
        try:
            for chunk in _chunks(row_keys):
                batch.begin(len(chunk))
                batch.progress.sent = set(range(len(chunk)))
                count += cast(int, self._do(Delete(chunk, live(self._now()))))
                batch.progress.stored = batch.progress.sent
        except OperationalError as error:
            # Those in front of the row that could not be deleted are gone.
            raise batch.error(error, half_done=True) from error
        except HandlerSocketError as error:
            raise batch.error(error) from error
        return count

    def _packets(
        self, row_keys: Iterable[bytes], values: Iterable[V], ttl: TtlOrDefault
    ) -> Iterator[list[Cells]]:
        """What to send of a mapping; small texts, or bytes, without a look at each of them."""
        keys, rest = iter(row_keys), iter(values)
        while some := list(islice(rest, plans.PACKET_ROWS)):
            theirs = islice(keys, len(some))
            alike = self._values.dumps_alike(some)
            if alike is None:
                yield from plans.packets(self._rows(zip(theirs, some, strict=True), ttl))
                continue
            kind, cells = alike
            versions = iter(new_version, None)
            same = repeat(0), repeat(kind), versions, repeat(self._expires(ttl))
            yield list(zip(theirs, cells, *same, strict=False))

    def _rows(self, pairs: Iterable[tuple[bytes, V]], ttl: TtlOrDefault) -> Iterator[Cells]:
        dumps = self._values.dumps
        ends = self._expires(ttl) != NEVER
        for row_key, value in pairs:
            kind, number, data = dumps(value)
            expires = self._expires(ttl) if ends else NEVER
            yield row_key, data, number, kind, new_version(), expires


class _Batch(Generic[K]):
    """How far a batch got: keys that wait, those of the packet under way, those that are done."""

    def __init__(self, keys: Iterable[K] = ()) -> None:
        self.progress = Progress()
        self.sent = False
        self._keys: list[Any] = list(keys)
        self._begun = self._end = 0

    def taken(self, items: Iterable[tuple[K, V]]) -> Iterator[tuple[K, V]]:
        """The items, whose keys are counted in as they are taken."""
        for key, value in items:
            self._keys.append(key)
            yield key, value

    def begin(self, count: int) -> None:
        """The next so many keys are about to be sent; those before are done."""
        self._begun, self._end = self._end, self._end + count
        self.progress = Progress()
        self.sent = True

    def error(self, error: Exception, *, half_done: bool = False) -> BatchError:
        """What to raise when the batch cannot go on for an error.

        `half_done`: the request that failed may have done a part of what it was sent for.
        """
        unknown_outcome = half_done or isinstance(error, OutcomeUnknownError)
        sent = self.progress.sent if unknown_outcome else set()
        stored, failed, unknown = self._keys[: self._begun], list[Any](), list[Any]()
        for position, key in enumerate(self._keys[self._begun : self._end]):
            if position in self.progress.stored:
                stored.append(key)
            else:
                (unknown if position in sent else failed).append(key)
        failed += self._keys[self._end :]
        return BatchError(
            f"the batch could not be finished ({len(stored)} stored, {len(failed)} failed, "
            f"{len(unknown)} unknown): {error}",
            stored=tuple(stored),
            failed=tuple(failed),
            unknown=tuple(unknown),
        )


def _chunks(keys: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(keys), _KEYS_PER_REQUEST):
        yield keys[start : start + _KEYS_PER_REQUEST]


def _another_key(row_key: bytes | None) -> KeyMismatchError:
    return KeyMismatchError(
        f"the server answered for the key {row_key!r}, which was not asked for: the key column is "
        "not VARBINARY, or the reply was damaged on its way"
    )
