"""What the operations of a store stand on: its keys and values, and who carries out plans."""

import logging
import random
from collections.abc import Callable
from typing import Final, Generic, TypeVar, cast

from ..client import Client
from ..exceptions import (
    HandlerSocketError,
    OperationalError,
    OutcomeUnknownError,
    UnsupportedError,
)
from .expiry import DEFAULT, GRACE_MS, KEEP, TtlOrKeep, checked, expires_ms, now_ms
from .keys import Keys
from .mapped import StoreExecutor
from .plans import Plan, Readable
from .table import NEVER, Table
from .values import Kind, Values
from .verbs import Cells, Column, Condition, DeleteExpired, Outcome, Row, Verb
from .versions import new_version

K = TypeVar("K", str, bytes, int)
V = TypeVar("V")
T = TypeVar("T")

_log = logging.getLogger("hskv")

VALUE: Final[tuple[Column, ...]] = ("value", "number", "kind")
"""What a value is made of."""

_CULL_EVERY_WRITES: Final = 100
_CULL_AGAIN_WRITES: Final = 10
_CULL_ROWS: Final = 20
# A lease may count its holders in its row, which then has to stay.
_NO_LEASE: Final = (Condition("kind", "!=", Kind.LEASE),)


class StoreBase(Generic[K, V]):
    """A table, its keys and values, and an executor; the operations derive from it by subject."""

    def __init__(
        self,
        client: Client,
        table: Table,
        keys: Keys,
        values: Values,
        executor: StoreExecutor,
        *,
        default_ttl: float | None,
        clock: Callable[[], float],
        cull: bool,
    ) -> None:
        self.client = client
        self.table = table
        self.key_type = keys.type
        self._keys = keys
        self._values = values
        self._readable = Readable(values.readable, values.reads)
        self._executor = executor
        self._clock = clock
        self._default_ttl = default_ttl
        if default_ttl is not None:
            self._need("expires", "default_ttl")
        self._counts = bool(table.number and table.kind)
        culls = cull and table.expires and table.expires_index
        self._writes_to_cull = random.randrange(_CULL_EVERY_WRITES) if culls else float("inf")

    def _now(self) -> int:
        return now_ms(self._clock)

    def _need(self, column: Column, what: str) -> None:
        if not getattr(self.table, column):
            raise UnsupportedError(
                f"{what} needs the column {column!r}, which the Table does not name"
            )

    def _expires(self, ttl: TtlOrKeep) -> int:
        seconds = self._default_ttl if ttl in (DEFAULT, KEEP) else checked(ttl)
        if seconds is not None:
            self._need("expires", "ttl")
        return expires_ms(self._clock, seconds)

    def _row(self, key: K, value: object, ttl: TtlOrKeep) -> Row:
        return Row(*self._cells(self._keys.row_key(key), value, ttl))

    def _cells(self, row_key: bytes, value: object, ttl: TtlOrKeep) -> Cells:
        """What a `Row` has, which takes longer to make than all of this."""
        kind, number, data = self._values.dumps(value)
        never = ttl is DEFAULT and self._default_ttl is None
        expires = NEVER if never else self._expires(ttl)
        return row_key, data, number, kind, new_version(), expires

    def _do(self, verb: Verb) -> Outcome:
        """Carry out one verb; raises what the server said against it."""
        (outcome,) = self._executor.execute([verb])
        if isinstance(outcome, OperationalError):
            raise outcome
        return outcome

    def _run(self, plan: Plan[T]) -> T:
        """Drive a plan; a broken connection never enters it."""
        try:
            verbs = next(plan)
            while True:
                verbs = plan.send(self._executor.execute(verbs))
        except StopIteration as done:
            return cast(T, done.value)
        finally:
            plan.close()

    def _write(self, row: Row, plan: Plan[T]) -> T:
        try:
            result = self._run(plan)
        except OutcomeUnknownError as error:
            error.version = row.version
            raise
        self._after_writes(1)
        return result

    def _after_writes(self, count: int) -> None:
        # Threads may lose a count between them, which does no harm.
        self._writes_to_cull -= count
        if self._writes_to_cull <= 0:
            self._cull(count)

    def _cull(self, count: int) -> None:
        """Remove a few expired rows after about every hundredth write, so that space comes free.

        After every tenth while there are more.
        """
        self._writes_to_cull = _CULL_AGAIN_WRITES
        if self.client.stats()["write"]["waiting"]:
            # The writer need not wait for a connection with those who have yet to write.
            return
        rows = max(_CULL_ROWS, 2 * count)
        try:
            removed = self._purge(rows)
        except HandlerSocketError as error:
            # The write itself is done.
            _log.warning("expired rows could not be culled: %s", error)
            removed = 0
        # Where all writes are new keys that expire, two must go for each that comes.
        self._writes_to_cull = _CULL_AGAIN_WRITES if removed == rows else _CULL_EVERY_WRITES

    def _purge(self, rows: int) -> int:
        where = _NO_LEASE if self.table.kind else ()
        return cast(int, self._do(DeleteExpired(self._now() - GRACE_MS, rows, where)))
