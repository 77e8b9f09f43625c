"""`hskv bench`: what the user's own server gives, and how much of it the store costs."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import cycle
from statistics import median
from typing import Final, NamedTuple

import click

from ..store.rows import Store
from ..transport.endpoint import Address
from ..wire import requests
from .app import App
from .exits import Exit, Failure
from .options import json_option, url_options

_ROUNDS: Final = 9
_CALLS: Final = 300
_VALUE: Final = b"x" * 100
# Should it not come to cleaning up, nothing is left.
_TTL_SECONDS: Final = 600


class Figure(NamedTuple):
    """Microseconds of a call: the medians of the rounds, by a bare socket and by the store."""

    operation: str
    raw: float
    store: float

    @property
    def ratio(self) -> float:
        """How much longer the store takes."""
        return self.store / self.raw


@click.command()
@click.option("--calls", type=click.IntRange(1), default=_CALLS, show_default=True)
@url_options
@json_option
@click.pass_obj
def bench(app: App, calls: int) -> None:
    """Measure get, set and incr beside a bare socket that asks for the same.

    One client, one request at a time, values of 100 bytes; in turns, so that both meet the same
    weather. The difference is what the store adds; the rest is the server, and the way there.
    """
    with app.store() as store:
        if store.client.settings.writes != "handlersocket":
            raise Failure("hskv bench measures HandlerSocket; this URL writes by SQL", Exit.USAGE)
        figures = list(_measured(store, calls))
    if app.json:
        app.emit({one.operation: {"raw_us": one.raw, "store_us": one.store} for one in figures})
    else:
        _print(app, figures, calls)


def _measured(store: Store, calls: int) -> Iterator[Figure]:
    mine = store.namespace(f"hskv-bench:{os.urandom(6).hex()}:")
    try:
        mine.set(b"value", _VALUE, ttl=_TTL_SECONDS)
        mine.set(b"count", 0, ttl=_TTL_SECONDS)
        with _raw(store, mine.row_key(b"value"), mine.row_key(b"count")) as raw:
            ours: dict[str, Callable[[], object]] = {
                "get": lambda: mine.get(b"value"),
                "set": lambda: mine.set(b"value", _VALUE, ttl=_TTL_SECONDS),
                "incr": lambda: mine.incr(b"count"),
            }
            for operation, call in ours.items():
                pairs = [(_time(raw[operation], calls), _time(call, calls)) for _ in range(_ROUNDS)]
                bare, own = (median(times) for times in zip(*pairs, strict=True))
                yield Figure(operation, round(bare, 1), round(own, 1))
    finally:
        mine.clear()


def _time(call: Callable[[], object], calls: int) -> float:
    """Microseconds of a call, of many in a row."""
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - began) / calls * 1e6


@contextmanager
def _raw(store: Store, key: bytes, counter: bytes) -> Iterator[dict[str, Callable[[], object]]]:
    """What a socket alone does: prepared requests, and replies that are not looked into."""
    settings, table = store.client.settings, store.table
    database = settings.database or ""
    secrets = (settings.secret, settings.write_secret or settings.secret)
    expires = b"%d" % int((time.time() + _TTL_SECONDS) * 1000)
    live = [requests.Filter(0, ">", b"%d" % int(time.time() * 1000))]
    # Two, in turns: an update that changes nothing costs nothing.
    rows = [[_VALUE, b"0", b"0", version, expires] for version in (b"1", b"2")]
    bodies = {
        "get": [requests.find("=", [key], filters=live)],
        "set": [requests.find_modify("=", [key], "U", row) for row in rows],
        "incr": [requests.find_modify("=", [counter], "+?", [b"1", b"1"], filters=live)],
    }
    columns = {
        "get": ["v", "n", "kind"],
        "set": ["v", "n", "kind", "version", "expires"],
        "incr": ["n", "version"],
    }
    lines = [
        requests.open_index(number, database, table.name, "PRIMARY", columns[one], ["expires"])
        for number, one in enumerate(columns)
    ]
    reader = _connected(settings.readers[0], secrets[0].read(), lines)
    writer = _connected(settings.writers[0], secrets[1].read(), lines)
    with closing(reader), closing(writer):
        yield {
            one: _exchange(
                reader if one == "get" else writer, [b"%d" % number + body for body in bodies[one]]
            )
            for number, one in enumerate(bodies)
        }


def _exchange(sock: socket.socket, lines: list[bytes]) -> Callable[[], object]:
    turns = cycle(lines)

    def call() -> None:
        sock.sendall(next(turns))
        while not sock.recv(1 << 14).endswith(b"\n"):
            pass

    return call


def _connected(address: Address, secret: bytes | None, lines: list[bytes]) -> socket.socket:
    if address.path:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(address.path)
    else:
        sock = socket.create_connection((address.host, address.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    lines = [*([requests.auth(secret)] if secret else []), *lines]
    sock.settimeout(5.0)
    sock.sendall(b"".join(lines))
    replies = b""
    while replies.count(b"\n") < len(lines):
        received = sock.recv(1 << 14)
        if not received:
            raise Failure("the server closed the connection of the bare socket", Exit.AWAY)
        replies += received
    return sock


def _print(app: App, figures: list[Figure], calls: int) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for title in ("socket", "store", "ratio", "store, a second"):
        table.add_column(title, justify="right")
    for one in figures:
        a_second = f"{1e6 / one.store:,.0f}"
        table.add_row(
            one.operation, f"{one.raw} µs", f"{one.store} µs", f"{one.ratio:.2f}", a_second
        )
    app.console.print(table)
    app.console.print(f"medians of {_ROUNDS} rounds of {calls} calls each; nothing is left behind")
