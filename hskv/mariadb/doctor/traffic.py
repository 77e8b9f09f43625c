"""What shows only while it goes on: a row that passes through, rows that wait, clocks."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import monotonic, sleep
from typing import Any, Final

from ...client import Client
from ...store.expiry import GRACE_MS, now_ms
from ...store.schema import query
from ...store.store import KeyValueStore
from ...store.table import Table
from ...store.values import Kind
from ...transport.address import Address
from .findings import Finding, Mend, Where
from .ports import elsewhere
from .server import Server
from .target import Target

_MANY_ROWS: Final = 10_000
_CANARY_SECONDS: Final = 60.0
# How long a replica may take to have a row, if max_lag allows it.
_REPLICATION_SECONDS: Final = 3.0
_POLL_SECONDS: Final = 0.02
_CLOCK_SECONDS: Final = 0.5
_CLOCK_READINGS: Final = 5


def canary_findings(
    client: Client, table: Table, server: Server | None, target: Target
) -> Iterator[Finding]:
    """Write a row, look for it on the read ports and by SQL, remove it.

    Raises UnsupportedError for a table whose keys leave no room for it.
    """
    values: dict[str, Any] = {} if table.kind else {"value_type": bytes}
    canaries = KeyValueStore(client, table, key_type=bytes, **values).reserved(b"T")
    name = os.urandom(16)
    row_key = canaries.row_key(name)
    canaries.set(name, b"canary", ttl=_CANARY_SECONDS)
    try:
        blind = [one for one in target.settings.readers if not _sees(client, one, table, row_key)]
        known = server is None or _has_row(server, table, row_key)
    finally:
        canaries.delete(name)
    mend = elsewhere(server, target)
    for address in blind:
        what = f"{address} does not see what was written"
        yield Finding("ports-of-two-servers", what, mend)
    if not known:
        what = "SQL does not see what was written"
        yield Finding("sql-of-another-server", what, mend)


def _sees(client: Client, address: Address, table: Table, row_key: bytes) -> bool:
    """Whether a row comes to be seen at a read port; at once where it writes to the same server."""
    settings = client.settings
    lag = min(settings.max_lag, _REPLICATION_SECONDS) if settings.writes == "sql" else 0.0
    deadline = monotonic() + lag
    alone = replace(settings, readers=(address,), writers=(), sql=None)
    with Client.from_settings(alone) as reader:
        index = reader.open(
            table.name, [table.key], index_name=table.index, database=table.database
        )
        while not (found := reader.find(index, "=", [row_key])) and monotonic() < deadline:
            sleep(_POLL_SECONDS)
    return bool(found)


def _has_row(server: Server, table: Table, row_key: bytes) -> bool:
    column, name = table.quoted_name, table.key.replace("`", "``")
    statement = f"SELECT 1 FROM {column} WHERE `{name}` = %s"  # noqa: S608 quoted
    return bool(query(server.connection, statement, row_key))


def expired_findings(client: Client, table: Table, clock: Callable[[], float]) -> Iterator[Finding]:
    """Whether many rows have expired that nobody has removed; leases are left out, as they stay."""
    if table.expires is None or table.expires_index is None:
        return
    filters = [table.kind] if table.kind else []
    index = client.open(
        table.name,
        [table.expires],
        index_name=table.expires_index,
        filter_columns=[table.expires, *filters],
        database=table.database,
    )
    rows = client.find(
        index,
        ">=",
        [0],
        limit=_MANY_ROWS + 1,
        filters=[(column, "!=", int(Kind.LEASE)) for column in filters],
        while_=[(table.expires, "<=", now_ms(clock) - GRACE_MS)],
    )
    if len(rows) > _MANY_ROWS:
        what = f"more than {_MANY_ROWS:,} rows expired over a minute ago, and are still there"
        yield Finding("expired-rows", what, (Mend(Where.SHELL, "hskv purge"),))


def clock_findings(server: Server, clock: Callable[[], float]) -> Iterator[Finding]:
    """Whether this machine and the server agree on the time."""
    apart, round_trip = min(
        (_clock_reading(server.connection, clock) for _ in range(_CLOCK_READINGS)),
        key=lambda reading: reading[1],
    )
    if abs(apart) > _CLOCK_SECONDS + round_trip / 2:
        word = "ahead of" if apart > 0 else "behind"
        what = f"the server's clock is {abs(apart):.1f} s {word} that of this machine"
        yield Finding("clock", what, (Mend(Where.SHELL, "timedatectl set-ntp true"),))


def _clock_reading(connection: Any, clock: Callable[[], float]) -> tuple[float, float]:
    """How far the server's clock is ahead, and how long it took to ask; seconds."""
    before = clock()
    ((then,),) = query(connection, "SELECT UNIX_TIMESTAMP(NOW(6))")
    after = clock()
    return float(then) - (before + after) / 2, after - before
