"""Whole rows of a store, as they stand: whatever their kind, no value is decoded.

For what copies rows, or shows them to people. The store's table must have every column.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

from . import plans
from .plans import Progress
from .store import KeyValueStore, next_rows
from .verbs import COLUMNS, Cells, Find, Found, Row, live

_RESERVED: Final = b"\x00"

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


def put_rows(store: Store, rows: Sequence[Cells]) -> None:
    """Store whole rows, whatever was there, each as `KeyValueStore.set` does.

    At most `plans.PACKET_ROWS`, keys without the store's prefix and each only once. One round
    trip, two where keys are new. After a failure some are stored and some are not.
    """
    prefix = store._keys.prefix
    packet = [(prefix + cells[0], *cells[1:]) for cells in rows] if prefix else rows
    store._run(plans.set_rows(packet, Progress()))
