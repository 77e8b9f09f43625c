"""What a store must not do on a server or a table, looked at by SQL before its first request.

HandlerSocket crashes on some tables, its writes reach no replica, and with autocommit=0 it
acknowledges what it never commits; it tells nothing of all that.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ..client import Row
from ..exceptions import UnsupportedError
from ..sql import SqlClient
from ..transport.sql_channel import State
from .mapped import StoreExecutor
from .sql import TableFacts, table_facts
from .sql_text import SqlText
from .verbs import Outcome, Verb

_ENGINES = (b"InnoDB", b"Aria", b"MyISAM", b"ROCKSDB")


class GuardedExecutor:
    """Looks whether its executor may be used when it is first asked; then it is that executor.

    Raises what `check` does, each time until it passes.
    """

    def __init__(self, inner: StoreExecutor, check: Callable[[], None]) -> None:
        self._inner = inner
        self._check = check

    def find_value(self, key: bytes, now: int) -> Sequence[Row]:
        """As of any executor, like the rest."""
        return self._opened().find_value(key, now)

    def find_kind(self, key: bytes, now: int) -> Sequence[Row]:
        """A live row's kind."""
        return self._opened().find_kind(key, now)

    def find_items(self, keys: Sequence[bytes], now: int) -> Sequence[Row]:
        """Live rows."""
        return self._opened().find_items(keys, now)

    def replace(self, *cells: Any) -> bool:
        """Set a whole row."""
        return self._opened().replace(*cells)

    def count(self, key: bytes, now: int, amount: int, comparison: str, bound: int) -> int | None:
        """Add to a live integer."""
        return self._opened().count(key, now, amount, comparison, bound)

    def execute(self, verbs: Sequence[Verb]) -> list[Outcome]:
        """Verbs in one packet."""
        return self._opened().execute(verbs)

    def _opened(self) -> StoreExecutor:
        self._check()
        inner = self._inner
        for name in ("find_value", "find_kind", "find_items", "replace", "count", "execute"):
            # From now on without a step in between.
            setattr(self, name, getattr(inner, name))
        return inner


def check_handlersocket(client: SqlClient, text: SqlText, *, writes: bool) -> None:
    """Raise UnsupportedError where HandlerSocket must not be used; two round trips, once.

    `writes`: it is to write too. A table that is not there is no matter of this.
    """
    if (text.table_name, writes) in client.passed:
        return
    # A server that takes no writes knows it too.
    client = client.anywhere()
    facts = table_facts(client, text)
    why = _of_server(client.state(), writes=writes)
    if facts is not None:
        why = why or _of_table(facts)
    if why:
        raise UnsupportedError(why)
    if facts is not None:
        client.passed.add((text.table_name, writes))


def _of_server(state: State, *, writes: bool) -> str | None:
    if not state.autocommit:
        return (
            "the server has autocommit=0, with which HandlerSocket commits nothing: set "
            "autocommit=1 in its configuration, and restart it"
        )
    if writes and (state.log_bin or state.wsrep_on):
        what = "is a node of Galera" if state.wsrep_on else "has a binary log"
        return (
            f"the server {what}, which HandlerSocket's writes never reach: no other copy of the "
            "data would get them; write by SQL: writes=sql"
        )
    return None


def _of_table(facts: TableFacts) -> str | None:
    if facts.kind != b"BASE TABLE":
        what = facts.kind.decode()
        return f"the table is a {what}, which HandlerSocket crashes on or corrupts: reads=sql"
    if b"partitioned" in facts.options:
        return "the table is partitioned, and a scan by HandlerSocket crashes the server: reads=sql"
    if facts.engine not in _ENGINES:
        return f"the engine {facts.engine.decode()} does not scan in key order: use InnoDB"
    return None
