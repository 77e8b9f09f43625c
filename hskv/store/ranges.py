"""Operations of a store on keys in their order, and on rows that have expired."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, cast

from ..exceptions import UnsupportedError
from . import plans
from .base import VALUE, K, StoreBase, V
from .verbs import Column, Found, Scan, live

_ITEM: Final[tuple[Column, ...]] = ("key", *VALUE)
_PAGE_BYTES: Final = 1 << 20
# What comes behind small values may be large ones: more rows would save little.
_PAGE_ROWS: Final = 128


class Ranges(StoreBase[K, V]):
    """Go through keys in order, and remove them."""

    def scan(
        self, prefix: K | None = None, start: K | None = None, batch: int = 1000
    ) -> Iterator[tuple[K, V]]:
        """Items in key order: of the keys that begin with `prefix`, from `start` on.

        Reads as it goes, in pages of about 1 MiB and at most `batch` (and 128) rows, one round trip
        each; who writes meanwhile does not disturb it: a key that stays is met exactly once.

        >>> store.set_many({"a:1": 1, "a:2": 2, "a:3": 3, "b": 4})
        >>> list(store.scan("a:", start="a:2"))
        [('a:2', 2), ('a:3', 3)]
        """
        if batch < 1:
            raise ValueError(f"batch is a number of rows, not {batch!r}")
        first, end = self._keys.range(prefix)
        if start is not None:
            asked = self._keys.row_key(start)
            # Decimal numbers do not compare as their text does, and have no prefix.
            first = asked if self.key_type is int else max(first, asked)
        return self._scanned(first, end, batch)

    def delete_prefix(self, prefix: K) -> int:
        """Remove every key that begins with a prefix; how many were there.

        One round trip for each 1,000. Keys added meanwhile may stay.

        >>> store.set_many({"user:ann": 1, "user:bob": 2, "other": 3})
        >>> store.delete_prefix("user:"), list(store)
        (2, ['other'])
        """
        return self._run(plans.clear_range(*self._keys.range(prefix), self._now))

    def clear(self) -> None:
        """Remove every key of this store (of its prefix); one round trip for each 1,000.

        >>> store["a"] = 1
        >>> store.clear()
        >>> len(store)
        0
        """
        self._run(plans.clear_range(*self._keys.range(), self._now))

    def purge_expired(self, batch: int = 1000, limit: int | None = None) -> int:
        """Remove rows that expired more than a minute ago, of the whole table; how many.

        At most `limit`, `batch` in each round trip: other writers wait for the duration of one.
        Leases are left alone.

        >>> store.purge_expired()
        0
        """
        self._need("expires", "purge_expired")
        if not self.table.expires_index:
            raise UnsupportedError("purge_expired needs an index on the expires column")
        if batch < 1:
            raise ValueError(f"batch is a number of rows, not {batch!r}")
        removed = 0
        while limit is None or removed < limit:
            rows = batch if limit is None else min(batch, limit - removed)
            count = self._purge(rows)
            removed += count
            if count < rows:
                break
        return removed

    def _take_first(self) -> tuple[K, V] | None:
        plan = plans.take_first(*self._keys.range(), _ITEM, self._readable, self._now)
        row = self._run(plan)
        return None if row is None else (self._keys.key(row[0]), self._values.loads(*row[1:]))

    def _key_pages(self, rows: int) -> Iterator[list[K]]:
        for page in self._pages(("key",), *self._keys.range(), lambda _: rows):
            yield [self._keys.key(row[0]) for row in page]

    def _items(self) -> Iterator[tuple[K, V]]:
        return self._scanned(*self._keys.range(), _PAGE_ROWS)

    def _scanned(self, start: bytes, end: bytes | None, most: int) -> Iterator[tuple[K, V]]:
        for page in self._pages(_ITEM, start, end, lambda page: next_rows(page, most)):
            rows = deque(page)
            # Values that were given out are let go of before more are read.
            del page
            while rows:
                key, *cells = rows.popleft()
                yield self._keys.key(key), self._values.loads(*cells)
                del cells

    def _pages(
        self,
        columns: tuple[Column, ...],
        start: bytes,
        end: bytes | None,
        rows: Callable[[Found], int],
    ) -> Iterator[Found]:
        """Pages of live rows in key order; `rows` says how many to ask for after the last page."""
        after, limit = False, rows(())
        while True:
            where = live(self._now())
            page = cast(Found, self._do(Scan(start, end, columns, limit, where, after)))
            if len(page) < limit:
                if page:
                    yield page
                return
            start, after, limit = page[-1][0], True, rows(page)
            yield page
            del page


def next_rows(page: Found, most: int) -> int:
    """How many rows to ask for after a page: begins with one, so that large ones do no harm."""
    if not page:
        return 1
    average = max(sum(len(row[1]) for row in page) // len(page), 1)
    return max(min(most, _PAGE_ROWS, 8 * len(page), _PAGE_BYTES // average), 1)
