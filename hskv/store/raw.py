"""The rows of a store's table as they are, and whether they can be written and read."""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ..client import Condition, Index, Value
from ..client import Row as WireRow
from ..exceptions import KeyMismatchError, OperationalError
from ..lookups import checked_condition
from ..manager import Manager
from .base import K, StoreBase, V
from .executors import check_raw
from .expiry import expires_ms, now_ms
from .values import Kind
from .verbs import Delete, Insert, Row
from .versions import new_version

_CHECKS: Final = 20
_CHECK_AGAIN_SECONDS: Final = 0.05


class RawRows(StoreBase[K, V]):
    """Find and change rows by what HandlerSocket offers."""

    _looked_at = False

    def row_key(self, key: K) -> bytes:
        """The key as it stands in the table, for `find` and `modify`. No I/O.

        Raises TypeError, KeyTooLongError, and ValueError for a key that no item can have.

        >>> store.namespace("user:").row_key("ann")
        b'user:ann'
        """
        return self._keys.row_key(key)

    def find(
        self,
        operation: str,
        key: Sequence[Value],
        columns: Sequence[str] | None = None,
        *,
        index_name: str | None = None,
        limit: int = 1,
        offset: int = 0,
        in_: tuple[int, Sequence[Value]] | None = None,
        filters: Iterable[Condition] = (),
        while_: Iterable[Condition] = (),
    ) -> list[WireRow]:
        """Rows of the store's table as they are: `Client.find` without an `Index`.

        `columns` are the table's own names, all that the store uses unless given; the index is
        that of the key. Row keys carry the prefix, and expired rows are found too.

        >>> store["a"] = 1
        >>> store.find("=", ["a"], ["n"])
        [(b'1',)]
        """
        conditions: dict[str, Any] = {"filters": tuple(filters), "while_": tuple(while_)}
        index = self._raw_index(columns, index_name, **conditions)
        conditions["in_"] = in_
        return self.client.find(index, operation, key, limit=limit, offset=offset, **conditions)

    def modify(
        self,
        operation: str,
        key: Sequence[Value],
        modify_operation: str,
        changes: Mapping[str, Value] | None = None,
        *,
        index_name: str | None = None,
        limit: int = 1,
        offset: int = 0,
        in_: tuple[int, Sequence[Value]] | None = None,
        filters: Iterable[Condition] = (),
        while_: Iterable[Condition] = (),
    ) -> int:
        """Change rows of the store's table as they are; how many: `Client.modify`.

        `changes` maps the table's own column names to what is set (U), added (+) or subtracted
        (-); a delete (D) takes none. Nothing is done about versions and expiry.

        >>> store["a"] = 1
        >>> store.modify("=", ["a"], "+", {"n": 4}), store["a"]
        (1, 5)
        """
        columns = list(changes) if changes else None
        conditions: dict[str, Any] = {"filters": tuple(filters), "while_": tuple(while_)}
        index = self._raw_index(columns, index_name, **conditions)
        conditions["in_"] = in_
        values = list((changes or {}).values())
        arguments = (index, operation, key, modify_operation, values)
        return self.client.modify(*arguments, limit=limit, offset=offset, **conditions)

    @property
    def manager(self) -> Manager:
        """A `Manager`, pyhs's API, on the same connections, for any table.

        With `sql=` the store's own table is looked at first, as before its other requests: raises
        UnsupportedError. Of other tables nobody asks whether HandlerSocket may be used.

        >>> store["a"] = 1
        >>> store.manager.get("hskv", "kv", ["k", "n"], "a")
        [('k', 'a'), ('n', '1')]
        """
        self._look()
        return Manager.over(self.client)

    def check(self) -> None:
        """Write a row, read it and remove it, to see whether the store is set up right.

        Raises what goes wrong: ReadOnlyError for swapped ports, AuthenticationError,
        TableNotFoundError, ColumnNotFoundError; OperationalError when the read port does not see
        what the write port wrote; KeyMismatchError when the key column is narrower than the Table
        says. Three round trips.

        >>> store.check()
        """
        # As wide as keys may be: a narrower column would cut it, and answer for other keys.
        canary = self._keys.reserved(b"T", os.urandom(16)).ljust(self.table.key_bytes, b"\0")
        version = new_version()
        row = Row(canary, b"canary", 0, Kind.BYTES, version, expires_ms(self._clock, 60.0))
        self._do(Insert(row))
        try:
            seen = self._sees(canary, b"canary")
        finally:
            self._do(Delete((canary,)))
        if not seen:
            raise OperationalError(
                "the read port does not see what the write port wrote: do both belong to the same "
                "server, and is autocommit=1 there?"
            )

    def _sees(self, row_key: bytes, value: bytes) -> bool:
        """Whether reads give a value; a replica is waited for."""
        for _ in range(_CHECKS):
            for found, cell, *_ in self._executor.find_items([row_key], now_ms(self._clock)):
                if found != row_key:
                    raise KeyMismatchError(
                        f"the key column of {self.table.name!r} is narrower than key_bytes="
                        f"{self.table.key_bytes}, and cuts keys in silence: one would answer for "
                        "another; make it wider, or give the Table its width"
                    )
                return cell == value
            if self.client.settings.writes != "sql":
                break
            time.sleep(_CHECK_AGAIN_SECONDS)
        return False

    def stats(self) -> dict[str, dict[str, int]]:
        """Counts of the connections: see `Client.stats`. No I/O.

        >>> store.stats()["read"]["waiting"]
        0
        """
        return self.client.stats()

    def _look(self) -> None:
        if not self._looked_at:
            check_raw(self.client, self.table, self.key_type)
            self._looked_at = True

    def _raw_index(
        self,
        columns: Sequence[str] | None,
        index_name: str | None,
        filters: Sequence[Condition],
        while_: Sequence[Condition],
    ) -> Index:
        self._look()
        if columns is None:
            columns = self.table.columns()
        named = dict.fromkeys(checked_condition(one)[0] for one in (*filters, *while_))
        return self.client.open(
            self.table.name,
            columns,
            index_name=index_name or self.table.index,
            filter_columns=tuple(named),
            database=self.table.database,
        )
