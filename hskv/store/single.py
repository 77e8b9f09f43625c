"""Operations of a store on one key."""

from typing import Any, Literal, cast

from ..exceptions import HandlerSocketError, OutcomeUnknownError
from . import plans
from .base import VALUE, K, StoreBase, T, V
from .expiry import DEFAULT, KEEP, TtlOrDefault, TtlOrKeep, not_keep, now_ms
from .mapping import MISSING, Missing
from .table import NEVER
from .values import check_int64
from .verbs import Column, Condition, Delete, Find, Found, Row, Update, live


class SingleKeys(StoreBase[K, V]):
    """Get, set, change and remove the value of a key."""

    def get(self, key: K, default: Any = None) -> Any:
        """The value of a key, else the default. One round trip, to the read port.

        >>> store["a"] = 1
        >>> store.get("a"), store.get("b"), store.get("b", 0)
        (1, None, 0)
        """
        rows = self._executor.find_value(self._keys.row_key(key), now_ms(self._clock))
        if not rows:
            return default
        value, number, kind = rows[0]
        return self._values.loads(value, number, kind)  # type: ignore[arg-type]

    def __contains__(self, key: object) -> bool:
        """Is there such a key? Reads no value; one round trip. TypeError for another type."""
        return bool(self._executor.find_kind(self._keys.row_key(key), now_ms(self._clock)))

    def get_versioned(self, key: K) -> tuple[V, int]:
        """The value of a key and its version, for `compare_and_set`. KeyError; one round trip.

        The version is another number after each change of the value.

        >>> store["a"] = 1
        >>> value, version = store.get_versioned("a")
        >>> store.compare_and_set("a", value + 1, version), store["a"]
        (True, 2)
        """
        self._need("version", "get_versioned")
        columns: tuple[Column, ...] = (*VALUE, "version")
        rows = cast(Found, self._do(Find((self._keys.row_key(key),), columns, live(self._now()))))
        if not rows:
            raise KeyError(key)
        *cells, version = rows[0]
        return self._values.loads(*cells), int(version)

    def set(self, key: K, value: V, ttl: TtlOrKeep = DEFAULT, *, resolve: bool = False) -> None:
        """Store a value, whatever was there; with `KEEP` it expires when the old one would have.

        Atomic for a key that exists (one round trip); a new key takes two, between which it is
        still missing. OutcomeUnknownError carries the `version` that the row would have; with
        `resolve` the row is looked at first, and where it has it the write is known to be done.

        >>> store.set("session", "abc", ttl=1800)
        >>> store.set("session", "def", ttl=hskv.KEEP)
        >>> 1799 < store.ttl("session") <= 1800
        True
        """
        cells = self._cells(self._keys.row_key(key), value, ttl)
        try:
            if ttl is KEEP:
                self._run(plans.keep_row(Row(*cells), self._now))
            elif not self._executor.replace(cells):
                self._run(plans.set_row(Row(*cells), missing=True))
        except OutcomeUnknownError as error:
            row = Row(*cells)
            error.version = row.version
            if not (resolve and self._is_there(row, error)):
                raise
        self._writes_to_cull -= 1
        if self._writes_to_cull <= 0:
            self._cull(1)

    def add(self, key: K, value: V, ttl: TtlOrDefault = DEFAULT) -> bool:
        """Store a value where the key is missing; was it stored? Atomic, one round trip.

        >>> store.add("a", 1), store.add("a", 2), store["a"]
        (True, False, 1)
        """
        row = self._row(key, value, not_keep(ttl, "add"))
        return self._write(row, plans.add_row(row, self._now))

    def replace(self, key: K, value: V, ttl: TtlOrKeep = DEFAULT) -> bool:
        """Store a value where the key exists; was it stored? Atomic, one round trip.

        >>> store.replace("a", 1), "a" in store
        (False, False)
        """
        row = self._row(key, value, ttl)
        return self._change(row, live(self._now()), ttl)

    def compare_and_set(self, key: K, value: V, version: int, ttl: TtlOrKeep = KEEP) -> bool:
        """Store a value where the key has this version still.

        Was it stored? False too for a key that is gone. Of several clients that know the same
        version one wins. Atomic, one round trip.

        >>> store["a"] = 1
        >>> _, version = store.get_versioned("a")
        >>> store.compare_and_set("a", 2, version), store.compare_and_set("a", 3, version)
        (True, False)
        """
        self._need("version", "compare_and_set")
        check_int64("version", version)
        row = self._row(key, value, ttl)
        return self._change(row, (Condition("version", "=", version), *live(self._now())), ttl)

    def swap(
        self,
        key: K,
        value: V,
        ttl: TtlOrKeep = DEFAULT,
        *,
        default: V | T | Literal[Missing.MISSING] = MISSING,
    ) -> V | T:
        """Store a value and give the one it replaces, else the default, else KeyError.

        The new one is stored all the same. Atomic: what one client puts in, one gets out. One
        round trip, two where the key is missing. SerializationError for a value that cannot be
        read: then nothing is stored.

        >>> store["a"] = 1
        >>> store.swap("a", 2), store.swap("b", 3, default=None)
        (1, None)
        """
        row = self._row(key, value, ttl)
        plan = plans.swap_row(row, self._readable, self._now, keep=ttl is KEEP)
        old = self._write(row, plan).old
        if old is not None:
            return cast(V, self._values.loads(*old))
        if default is MISSING:
            raise KeyError(key)
        return cast(T, default)

    def setdefault(self, key: K, default: V = None, ttl: TtlOrDefault = DEFAULT) -> V:  # type: ignore[assignment]
        """The value of a key; where it is missing, the default is stored and given.

        Atomic, one round trip.

        >>> store.setdefault("a", 1), store.setdefault("a", 2)
        (1, 1)
        """
        row = self._row(key, default, not_keep(ttl, "setdefault"))
        found = self._write(row, plans.default_row(row, self._now, VALUE))
        return default if found is None else cast(V, self._values.loads(*found))

    def delete(self, key: K) -> bool:
        """Remove a key; was it there? Atomic, one round trip.

        >>> store["a"] = 1
        >>> store.delete("a"), store.delete("a")
        (True, False)
        """
        return self._do(Delete((self._keys.row_key(key),), live(self._now()))) == 1

    def touch(self, key: K, ttl: TtlOrDefault = DEFAULT) -> bool:
        """Set when a key expires, leaving its value; was it there? Atomic, one round trip.

        >>> store["a"] = 1
        >>> store.touch("a", ttl=60), store.touch("b", ttl=60)
        (True, False)
        """
        self._need("expires", "touch")
        row_key, where = self._keys.row_key(key), live(self._now())
        expires = self._expires(not_keep(ttl, "touch"))
        return self._do(Update(row_key, where, ("expires",), (expires,))) == 1

    def ttl(self, key: K) -> float | None:
        """Seconds that a key has left, None for ever. KeyError; one round trip.

        >>> store.set("a", 1)
        >>> print(store.ttl("a"))
        None
        """
        self._need("expires", "ttl")
        verb = Find((self._keys.row_key(key),), ("expires",), live(self._now()))
        rows = cast(Found, self._do(verb))
        if not rows:
            raise KeyError(key)
        expires = int(rows[0][0])
        return None if expires == NEVER else max(expires / 1000 - self._clock(), 0.0)

    def _take(self, key: K) -> V | Literal[Missing.MISSING]:
        row = self._run(plans.take_row(self._keys.row_key(key), VALUE, self._readable, self._now))
        return MISSING if row is None else cast(V, self._values.loads(*row))

    def _change(self, row: Row, where: tuple[Condition, ...], ttl: TtlOrKeep) -> bool:
        columns, cells = row.content() if ttl is KEEP else row.changes()
        try:
            changed = self._do(Update(row.key, where, columns, cells)) == 1
        except OutcomeUnknownError as error:
            error.version = row.version
            raise
        self._after_writes(1)
        return changed

    def _is_there(self, row: Row, error: OutcomeUnknownError) -> bool:
        """True when the table holds the row whose reply was lost."""
        if not self.table.version:
            return False
        try:
            found = cast(Found, self._do(Find((row.key,), ("version",))))
        except HandlerSocketError as again:
            error.add_note(f"the row could not be looked at either: {again}")
            return False
        return any(int(version) == row.version for (version,) in found)
