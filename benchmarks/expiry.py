"""What freeing the space of expired rows costs the writes it rides on, and other writers.

The cull is measured by turns of sets with and without it, on a table in which every set is of a new
key whose predecessors have expired: the most there can be to cull. The purge is measured by the
longest and the median set of another process while it removes rows.
"""

import argparse
import itertools
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

import hskv
from hskv.mariadb import PrivateServer

EXPIRED_SECONDS = 3600


def ago() -> float:
    """A clock that is late, to write rows that have expired already."""
    return time.time() - EXPIRED_SECONDS


def fill(url: str, rows: int, name: str) -> None:
    """Write rows that expired long ago."""
    with hskv.connect(url, clock=ago, cull=False) as store:
        store.set_many(((f"{name}:{n}", "x" * 100) for n in range(rows)), ttl=1)


def microseconds(action: Callable[[], object], calls: int) -> float:
    """The time of one call."""
    started = time.perf_counter()
    for _ in range(calls):
        action()
    return (time.perf_counter() - started) / calls * 1e6


def cull(url: str, rounds: int, calls: int) -> dict[str, float]:
    """Medians over rounds of a set, with and without the cull, in microseconds."""
    times: dict[str, list[float]] = {"without": [], "with": []}
    stores = {"without": hskv.connect(url, cull=False), "with": hskv.connect(url, cull=True)}
    numbers = itertools.count()
    for _ in range(rounds):
        for name, store in stores.items():
            fill(url, calls, f"old{next(numbers)}")

            def write(store: hskv.KeyValueStore[str, Any] = store) -> None:
                store.set(f"new:{next(numbers)}", "x" * 100, ttl=60)

            times[name].append(microseconds(write, calls))
    return {name: statistics.median(values) for name, values in times.items()}


def write_on(url: str, stop: Event, result: Any) -> None:
    """Set one key again and again; the times of all, in milliseconds."""
    times = []
    with hskv.connect(url, cull=False) as store:
        for number in itertools.count():
            started = time.perf_counter()
            store["busy"] = number
            times.append((time.perf_counter() - started) * 1e3)
            if stop.is_set():
                break
    result.put((statistics.median(times), max(times)))


def purge(url: str, rows: int, batch: int) -> tuple[float, float, float]:
    """Seconds of a purge; median and longest set of another process meanwhile, in milliseconds."""
    fill(url, rows, "dead")
    context = multiprocessing.get_context("spawn")
    stop, result = context.Event(), context.Queue()
    writer = context.Process(target=write_on, args=(url, stop, result))
    writer.start()
    with hskv.connect(url) as store:
        time.sleep(1.0)
        started = time.perf_counter()
        removed = store.purge_expired(batch=batch)
        seconds = time.perf_counter() - started
    stop.set()
    median, longest = result.get(timeout=30)
    writer.join()
    if removed < rows:
        raise SystemExit(f"only {removed} of {rows} rows were removed")
    return seconds, median, longest


def main() -> None:
    """Measure both, and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--rows", type=int, default=50_000, help="to purge")
    arguments = parser.parse_args()
    console = Console()
    with PrivateServer(options={"innodb_flush_log_at_trx_commit": 2}) as server:
        medians = cull(server.url, arguments.rounds, arguments.calls)
        console.print(
            f"a set of a new key: {medians['without']:.1f} us without the cull, "
            f"{medians['with']:.1f} us with it ({medians['with'] / medians['without']:.2f} times)"
        )
        with hskv.connect(server.url) as store:
            store.purge_expired()
        grid = Grid("batch", "purge, rows/s", "another's set, median ms", "longest ms")
        for batch in (100, 1000, 10_000):
            seconds, median, longest = purge(server.url, arguments.rows, batch)
            rate = arguments.rows / seconds
            grid.add_row(f"{batch}", f"{rate:,.0f}", f"{median:.2f}", f"{longest:.1f}")
        console.print(grid)


if __name__ == "__main__":
    try:
        main()
    except hskv.HandlerSocketError as error:
        sys.exit(str(error))
