"""How stale a read from a replica is: from the acknowledgement of a write until it is seen there.

A store writes a number by SQL and, as soon as that is acknowledged, asks each of the other
servers by HandlerSocket until it shows. Three servers of each engine on this machine, alone and
while other processes write too. `missed` is how often the first look, right after the
acknowledgement, still gave the number before.
"""

import argparse
import multiprocessing
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.synchronize import Event
from typing import Any, Final

from rich.console import Console
from rich.table import Table

import hskv
from hskv import KeyValueStore
from hskv.mariadb import PrivateGalera, PrivateReplication
from hskv.mariadb.cluster import Node, PrivateCluster

Cluster = PrivateCluster[Any]
Store = KeyValueStore[str, Any]

ENGINES: Final[dict[str, Callable[[], Cluster]]] = {
    "asynchronous": partial(PrivateReplication, 2, semi_sync=False),
    "semi-sync": partial(PrivateReplication, 2),
    "Galera": PrivateGalera,
}
HEADER: Final = (
    "engine",
    "others write",
    "write ms p50 / p99",
    "missed",
    "stale ms p50 / p99 / max",
)
CONTEXT: Final = multiprocessing.get_context("spawn")
KEYS: Final = 1000
LOOK_EVERY_SECONDS: Final = 0.0001
GIVE_UP_SECONDS: Final = 30.0


@dataclass
class Measured:
    """What was seen: seconds that writes took, and until each of the other servers showed them."""

    engine: str
    others: float = 0.0
    writes: list[float] = field(default_factory=list)
    stale: list[float] = field(default_factory=list)
    missed: int = 0

    def cells(self) -> list[str]:
        """A row of the table."""
        write = " / ".join(f"{percentile(self.writes, part):.2f}" for part in (0.5, 0.99))
        stale = " / ".join(f"{percentile(self.stale, part):.2f}" for part in (0.5, 0.99, 1.0))
        others = f"{self.others:,.0f}/s" if self.others else "none"
        return [self.engine, others, write, f"{self.missed / len(self.stale):.0%}", stale]


def percentile(seconds: Sequence[float], part: float) -> float:
    """Of a list, in milliseconds."""
    return 1000 * sorted(seconds)[min(int(part * len(seconds)), len(seconds) - 1)]


def write_on(url: str, number: int, stop: Event, done: Any) -> None:
    """A process that writes until it is stopped; how much, in `done`."""
    count = 0
    store: Store
    with hskv.connect(url) as store:
        while not stop.is_set():
            store.set(f"{number}:{count % KEYS}", b"x" * 100)
            count += 1
            done[number] = count


@contextmanager
def others_writing(url: str, processes: int) -> Iterator[Any]:
    """Other processes write meanwhile, all at work from the beginning."""
    stop, done = CONTEXT.Event(), CONTEXT.Array("q", max(processes, 1))
    workers = [
        CONTEXT.Process(target=write_on, args=(url, number, stop, done), daemon=True)
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    while not all(done[: len(workers)]):
        time.sleep(0.01)
    try:
        yield done
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def reader_of(cluster: Cluster, server: Node) -> Store:
    """A store that reads from this server alone, and writes as all do."""
    return hskv.connect(f"{server.read_url}?writes=sql&sql={cluster.sql_url}&read=replica")


def measure(engine: str, cluster: Cluster, processes: int, seconds: float) -> Measured:
    """Write and look for so long."""
    measured = Measured(engine)
    with ExitStack() as stack:
        store: Store = stack.enter_context(hskv.connect(cluster.url))
        readers = [
            stack.enter_context(reader_of(cluster, server)) for server in cluster.servers[1:]
        ]
        done = stack.enter_context(others_writing(cluster.url, processes))
        before, began = sum(done), time.perf_counter()
        number = store.get("number", 0)
        while time.perf_counter() < began + seconds:
            number += 1
            write_and_look(store, readers, number, measured)
        measured.others = (sum(done) - before) / (time.perf_counter() - began)
    return measured


def write_and_look(store: Store, readers: list[Store], number: int, measured: Measured) -> None:
    """One write, and all of the other servers until they show it."""
    began = time.perf_counter()
    store.set("number", number)
    acknowledged = time.perf_counter()
    measured.writes.append(acknowledged - began)
    waiting = late_among(readers, number)
    measured.missed += len(waiting)
    measured.stale += [time.perf_counter() - acknowledged] * (len(readers) - len(waiting))
    while waiting:
        time.sleep(LOOK_EVERY_SECONDS)
        late = late_among(waiting, number)
        now = time.perf_counter()
        measured.stale += [now - acknowledged] * (len(waiting) - len(late))
        if now > acknowledged + GIVE_UP_SECONDS:
            raise SystemExit(f"{measured.engine}: a write is not seen after {GIVE_UP_SECONDS} s")
        waiting = late


def late_among(readers: list[Store], number: int) -> list[Store]:
    """Those that still show an older number."""
    return [reader for reader in readers if reader.get("number", 0) < number]


def show(console: Console, rows: list[list[str]]) -> None:
    """A table for the terminal, and the same for a page."""
    table = Table(*HEADER)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    lines = [list(HEADER), ["---"] * len(HEADER), *rows]
    console.print("\n".join(f"| {' | '.join(line)} |" for line in lines))


def main() -> None:
    """Measure each engine, without and with others."""
    parser = argparse.ArgumentParser("make bench-staleness", description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="for each; default 15")
    parser.add_argument("--processes", type=int, default=4, help="other writers; default 4")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    options = parser.parse_args()
    console = Console(highlight=False, width=120)
    rows = []
    for engine in options.engines:
        with ENGINES[engine]() as cluster:
            for processes in (0, options.processes):
                console.print(f"{engine}, {processes} other writers, {options.seconds:g} s ...")
                rows.append(measure(engine, cluster, processes, options.seconds).cells())
    show(console, rows)
    version, system = platform.python_version(), platform.machine()
    console.print(
        f"Python {version}, hskv {hskv.__version__}, {system}, all servers on one machine"
    )


if __name__ == "__main__":
    main()
