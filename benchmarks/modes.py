"""Stores by HandlerSocket, by SQL, and by both: the same calls in turns, on one server.

    python -m benchmarks.modes [ROUNDS]

Prints calls a second, and their ratio to the store that goes by HandlerSocket alone: the median of
ratios within a round, since a machine is not equally fast in all of them.
"""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from statistics import median
from time import perf_counter
from typing import Any, Final
from urllib.parse import quote

import pymysql

import hskv
from benchmarks.pinning import on_cores
from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

ROUNDS: Final = 15
MANY: Final = 100
VALUE: Final = "x" * 100

Store = KeyValueStore[str, Any]

_unused = count(MANY, MANY)


def items(round_: int, first: int = 0) -> dict[str, str]:
    """So many items, whose values are others in each round."""
    return {f"key:{first + number:06d}": f"{round_:06d}{VALUE}"[:100] for number in range(MANY)}


def new_items(store: Store, turn: int) -> None:
    """Store so many items that were never there."""
    store.set_many(items(turn, next(_unused)))


CALLS: Final[dict[str, tuple[int, Callable[[Store, int], object]]]] = {
    "get": (200, lambda store, _: store.get("key:000001")),
    "get_many(100)": (20, lambda store, _: store.get_many(list(items(0)))),
    "set": (50, lambda store, turn: store.set("key:000002", f"{turn}{VALUE}")),
    "incr": (50, lambda store, _: store.incr("counter")),
    "add, where it is there": (50, lambda store, _: store.add("key:000003", 1)),
    "swap": (50, lambda store, turn: store.swap("key:000004", turn)),
    "set_many(100)": (20, lambda store, turn: store.set_many(items(turn))),
    "set_many(100), new keys": (20, new_items),
}


def rate(store: Store, name: str, turn: int) -> float:
    """Calls a second."""
    times, call = CALLS[name]
    began = perf_counter()
    for number in range(times):
        call(store, turn * times + number)
    return times / (perf_counter() - began)


def measure(stores: dict[str, Store], rounds: int) -> None:
    """Measure and print every call."""
    for name in CALLS:
        for store in stores.values():
            store.set_many(items(0))
            call = CALLS[name][1]
            call(store, 0)
        rates = [{how: rate(stores[how], name, turn) for how in stores} for turn in range(rounds)]
        cells = []
        for how in stores:
            ratio = median(round_[how] / round_["HandlerSocket"] for round_ in rates)
            cells.append(f"{median(round_[how] for round_ in rates):>9,.0f} ({ratio:.2f})")
        print(f"{name:24}" + "".join(f"{cell:>20}" for cell in cells))


def main() -> None:
    """Measure with commits that wait for the disk, and without."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with PrivateServer() as server, ExitStack() as opened:
        sql = f"writes=sql&sql=mysql+unix://root@{quote(str(server.directory / 'sql.sock'))}"
        urls = {
            "HandlerSocket": server.url,
            "writes by SQL": f"{server.url}&{sql}",
            "SQL alone": f"hskv:///hskv?reads=sql&{sql}",
        }
        stores = {
            how: opened.enter_context(hskv.connect(url, cull=False)) for how, url in urls.items()
        }
        for flush in (1, 2):
            with pymysql.connect(**server.sql) as connection, connection.cursor() as cursor:
                cursor.execute(f"SET GLOBAL innodb_flush_log_at_trx_commit = {flush}")
            print(f"\ninnodb_flush_log_at_trx_commit={flush}: calls/s (ratio), {rounds} rounds")
            print(" " * 24 + "".join(f"{how:>20}" for how in stores))
            with on_cores(1, server.pid):
                measure(stores, rounds)


if __name__ == "__main__":
    main()
