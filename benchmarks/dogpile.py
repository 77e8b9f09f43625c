"""dogpile.cache over hskv, redis, memcached and memory: what a region's operations cost.

All backends are measured in turns, in one run, pinned to one core with their servers. A figure is
the median over rounds, in microseconds, and beside it how many times faster (more than 1) or
slower than the redis backend of the same transport it is. Every get_or_create is a hit. `flush` is
`innodb_flush_log_at_trx_commit`; redis keeps nothing on disk but where it says so, memcached never.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dogpile.cache import make_region
from rich.console import Console
from rich.progress import track

from benchmarks.pages import Grid, write
from benchmarks.peers import Peer, memcached_server, redis_server
from benchmarks.pinning import on_cores
from benchmarks.versions import versions
from hskv.mariadb import PrivateServer

VALUE = {"name": "x" * 80, "count": 7}
KEYS = [f"key:{number:03}" for number in range(100)]
BASE = "redis"
HITS = ("get", "get_or_create")
HOUR = 3600


def create() -> Any:
    """Never called: everything is in the cache."""
    raise AssertionError("a hit was none")


@dataclass
class Backend:
    """One configuration, and the times of its operations in each round."""

    name: str
    region: Any
    times: dict[str, list[float]] = field(default_factory=dict)

    def operations(self) -> dict[str, tuple[Callable[[], object], int]]:
        """Each operation, and into how many calls its round is divided."""
        region, key = self.region, KEYS[7]
        many = dict.fromkeys(KEYS, VALUE)
        return {
            "get": (lambda: region.get(key), 1),
            "get_or_create": (lambda: region.get_or_create(key, create), 1),
            "set": (lambda: region.set(key, VALUE), 1),
            "get 100": (lambda: region.get_multi(KEYS), 20),
            "set 100": (lambda: region.set_multi(many), 20),
        }

    def measure(self, calls: int) -> None:
        """One round of every operation."""
        self.region.set_multi(dict.fromkeys(KEYS, VALUE))
        for name, (action, divisor) in self.operations().items():
            turns = max(calls // divisor, 1)
            started = time.perf_counter()
            for _ in range(turns):
                action()
            spent = (time.perf_counter() - started) / turns * 1e6
            self.times.setdefault(name, []).append(spent)

    def check(self) -> None:
        """What is measured works."""
        self.region.set_multi(dict.fromkeys(KEYS, VALUE))
        if self.region.get(KEYS[7]) != VALUE or self.region.get_multi(KEYS) != [VALUE] * 100:
            raise SystemExit(f"{self.name} does not give back what it was given")


def region(name: str, **arguments: Any) -> Any:
    """A region whose values dogpile takes as fresh for an hour."""
    return make_region().configure(name, expiration_time=HOUR, arguments=arguments)


def redis_url(peer: Peer) -> str:
    """A URL as redis-py wants it."""
    return f"unix://{peer.path}" if peer.path else f"redis://127.0.0.1:{peer.port}/0"


def backends(stack: ExitStack, *, tcp: bool) -> Iterator[tuple[Backend, int | None]]:
    """Every backend, with the process of its server."""
    for flush in (2, 1):
        options = {"innodb_flush_log_at_trx_commit": flush}
        server = stack.enter_context(PrivateServer(tcp=tcp, options=options))
        yield Backend(f"hskv, flush {flush}", region("hskv", url=server.url)), server.pid
    for name, durable in ((BASE, False), ("redis, fsync always", True)):
        peer = stack.enter_context(redis_server(tcp=tcp, always_durable=durable))
        yield Backend(name, region("dogpile.cache.redis", url=redis_url(peer))), peer.pid
    peer = stack.enter_context(memcached_server(tcp=tcp))
    where = f"unix:{peer.path}" if peer.path else f"127.0.0.1:{peer.port}"
    yield (
        Backend("pymemcache", region("dogpile.cache.pymemcache", url=where)),
        peer.pid,
    )
    yield Backend("memory", region("dogpile.cache.memory_pickle")), None


def run(console: Console, *, tcp: bool, rounds: int, calls: int) -> list[Backend]:
    """Measure all of them over one transport."""
    with ExitStack() as stack:
        started = list(backends(stack, tcp=tcp))
        stack.enter_context(on_cores(1, *(pid for _, pid in started if pid)))
        measured = [backend for backend, _ in started]
        for backend in measured:
            backend.check()
        for _ in track(range(rounds), f"{rounds} rounds", console=console):
            for backend in measured:
                backend.measure(calls)
    return measured


def speed(base: Backend, measured: Backend, operation: str) -> float:
    """How many times as fast as another, which was measured in the same rounds."""
    pairs = zip(base.times[operation], measured.times[operation], strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)


def table(title: str, measured: list[Backend]) -> Grid:
    """Microseconds, and the speed as a multiple of redis's."""
    names = list(measured[0].times)
    base = next(backend for backend in measured if backend.name == BASE)
    rows = [
        [
            backend.name,
            *(
                f"{statistics.median(backend.times[name]):.1f} ({speed(base, backend, name):.2f})"
                for name in names
            ),
        ]
        for backend in measured
    ]
    return Grid(f"{title}: microseconds (speed, redis = 1)", ["", *names], rows)


def goals(title: str, measured: list[Backend]) -> Grid:
    """Hits of hskv as a multiple of those of its peers: above 1.00 it is faster."""
    by_name = {backend.name: backend for backend in measured}
    rows = [
        [f"{name} beside {peer}"]
        + [f"{speed(by_name[peer], by_name[name], one):.2f}" for one in HITS]
        for name in ("hskv, flush 2", "hskv, flush 1")
        for peer in (BASE, "pymemcache")
    ]
    return Grid(f"{title}: hits, how many times as fast", ["", *HITS], rows)


def main() -> None:
    """Run, over unix sockets and TCP."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=1_000, help="of a single request, per round")
    parser.add_argument("--write", type=Path, help="a file for the tables, as Markdown")
    arguments = parser.parse_args()
    # Now, since the files may be others when the run ends.
    measured_on = versions()
    console = Console()
    grids = []
    for tcp in (False, True):
        measured = run(console, tcp=tcp, rounds=arguments.rounds, calls=arguments.calls)
        title = "TCP" if tcp else "unix sockets"
        grids += [table(title, measured), goals(title, measured)]
    for grid in grids:
        console.print(grid.rich())
    if arguments.write:
        head = f"# dogpile.cache regions, by `make bench-dogpile`\n\n{__doc__}"
        write(arguments.write, head.rstrip(), measured_on, grids)


if __name__ == "__main__":
    main()
