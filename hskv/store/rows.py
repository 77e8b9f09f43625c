"""Whole rows of a store, as they stand: whatever their kind, no value is decoded.

For what copies rows, or shows them to people. The store's table must have every column.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

from ..exceptions import KeyTooLongError, UnsupportedError
from . import plans
from .keys import FIRST
from .plans import Progress
from .ranges import next_rows
from .store import KeyValueStore
from .verbs import COLUMNS, Cells, Column, Find, Found, Row, Scan, live

_RESERVED: Final = b"\x00"
_HEADS: Final = 1000

Store = KeyValueStore[bytes, Any]


def find_row(store: Store, key: bytes) -> Row | None:
    """The live row of a key, None where there is none. One round trip."""
    where = live(store._now())
    found = cast(Found, store._do(Find((store.row_key(key),), COLUMNS, where)))
    return row_of(found[0]) if found else None


def row_of(cells: Sequence[bytes]) -> Row:
    """A row from the cells of all `COLUMNS`, as they were received."""
    key, value, *numbers = cells
    return Row(key, value, *map(int, numbers))


def row_pages(
    store: Store, prefix: bytes = b"", start: bytes = b"", *, reserved: bool = False
) -> Iterator[Found]:
    """Pages of live rows in key order, each row the cells of all `COLUMNS`, keys without prefix.

    Of the keys that begin with `prefix`, from `start` on; `reserved` those of leases, limiters
    and the like too, where the store has no prefix. One round trip for each page of about 1 MiB.
    """
    own = len(store._keys.prefix)
    first, end = store._keys.range(prefix or None)
    if reserved and not own and not prefix:
        first = _RESERVED
    first = max(first, store._keys.prefix + start)
    for page in store._pages(COLUMNS, first, end, lambda page: next_rows(page, 1000)):
        yield [(cells[0][own:], *cells[1:]) for cells in page] if own else page


def heads(store: Store) -> Iterator[Found]:
    """Pages of (key, kind, expires) of every row of the table, also of those that have expired."""
    start, after = _RESERVED, False
    while True:
        columns: tuple[Column, ...] = ("key", "kind", "expires")
        page = cast(Found, store._do(Scan(start, None, columns, _HEADS, after=after)))
        yield page
        if len(page) < _HEADS:
            return
        start, after = page[-1][0], True


def prefix_of(store: Store) -> bytes:
    """What stands before every key of a store in its table."""
    return store._keys.prefix


def put_rows(store: Store, rows: Sequence[Cells]) -> None:
    """Store whole rows, whatever was there, each as `KeyValueStore.set` does.

    Keys are without the store's prefix. For each 1,000 rows or MiB one round trip, two where keys
    are new. After a failure some are stored and some are not. Raises KeyTooLongError and
    UnsupportedError before anything is sent.
    """
    if not rows:
        return
    prefix = store._keys.prefix
    if prefix:
        if min(rows)[0] < FIRST:
            raise UnsupportedError(
                "leases and limiters have a place of their own under each prefix, and rows of them "
                "cannot go under another: use a URL without a prefix"
            )
        rows = [(prefix + cells[0], *cells[1:]) for cells in rows]
    longest = max(len(cells[0]) for cells in rows)
    if longest > store.table.key_bytes:
        raise KeyTooLongError(
            f"a key has {longest} bytes with its prefix, the column {store.table.key_bytes}: "
            "make the column wider"
        )
    for packet in plans.packets(rows):
        store._run(plans.set_rows(packet, Progress()))
