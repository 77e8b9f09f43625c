"""`hskv stats`: how many rows there are, of what kind, and how much room they take."""

import time
from collections import Counter
from contextlib import closing
from statistics import median
from typing import Any, Final

import click

from ..mariadb.ddl import handlersocket_connections
from ..store.expiry import GRACE_MS
from ..store.rows import Store, heads
from ..store.values import Kind
from .app import App
from .options import json_option, sql_options, url_options
from .values import kind_name

_LOOKS: Final = 100
_MIB: Final = 1 << 20


@click.command()
@url_options
@sql_options
@json_option
@click.pass_obj
def stats(app: App) -> None:
    """Count the rows of the table: live, expired, by kind; and how long a look takes.

    Goes through all keys, and reads no value. With SQL also the sizes on disk.
    """
    with app.store() as store:
        found: dict[str, Any] = {"table": store.table.name, **_counted(store)}
        found["look_microseconds"] = round(_look_seconds(store) * 1e6, 1)
        found["connections"] = store.stats()
        if app.has_sql:
            found |= _by_sql(app, store)
    if app.json:
        app.emit(found)
    else:
        _print(app, found)


def _counted(store: Store) -> dict[str, Any]:
    now = int(time.time() * 1000)
    live: Counter[int] = Counter()
    expired = purgeable = key_bytes = 0
    for page in heads(store):
        for key, kind, expires in page:
            key_bytes += len(key)
            ends = int(expires)
            if ends > now:
                live[int(kind)] += 1
            else:
                expired += 1
                purgeable += ends <= now - GRACE_MS and int(kind) != Kind.LEASE
    kinds = {kind_name(kind): count for kind, count in sorted(live.items())}
    counts = {"live": live.total(), "expired": expired, "purgeable": purgeable}
    return {"rows": live.total() + expired, **counts, "kinds": kinds, "key_bytes": key_bytes}


def _look_seconds(store: Store) -> float:
    """How long it takes to see whether a key is there: the median of many."""
    times = []
    for _ in range(_LOOKS):
        began = time.perf_counter()
        _ = b"hskv stats" in store
        times.append(time.perf_counter() - began)
    return median(times)


def _by_sql(app: App, store: Store) -> dict[str, Any]:
    query = (
        "SELECT data_length, index_length, data_free FROM information_schema.tables "
        "WHERE table_schema = %s AND table_name = %s"
    )
    with closing(app.sql()) as connection, connection.cursor() as cursor:
        cursor.execute(query, (store.client.settings.database, store.table.name))
        names = ("data_bytes", "index_bytes", "free_bytes")
        sizes = dict(zip(names, cursor.fetchone() or (0, 0, 0), strict=True))
        return {**sizes, "handlersocket_connections": handlersocket_connections(connection)}


def _print(app: App, found: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="name")
    table.add_column(overflow="fold")
    for name, text in _lines(found):
        table.add_row(name, text)
    app.console.print(table)


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    kinds = ", ".join(f"{name} {count:,}" for name, count in found["kinds"].items())
    expired = f"{found['expired']:,}, of them {found['purgeable']:,} for hskv purge"
    connects = [found["connections"][side]["connects"] for side in ("read", "write")]
    lines = [
        ("table", found["table"]),
        ("rows", f"{found['rows']:,}"),
        ("live", f"{found['live']:,}" + f" ({kinds})" * bool(kinds)),
        ("expired", expired),
        ("keys", f"{found['key_bytes']:,} bytes"),
        ("a look", f"{found['look_microseconds']:,} µs (median of {_LOOKS})"),
        ("connects", f"{connects[0]} to read, {connects[1]} to write"),
    ]
    if "data_bytes" in found:
        data, index, free = (
            f"{found[name] / _MIB:,.1f} MiB" for name in ("data_bytes", "index_bytes", "free_bytes")
        )
        lines += [
            ("on disk", f"{data} of rows, {index} of indexes, {free} free (as InnoDB estimates)"),
            ("clients", f"{found['handlersocket_connections']} connections to HandlerSocket"),
        ]
    return lines
