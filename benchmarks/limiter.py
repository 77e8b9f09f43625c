"""Rate limiters over hskv, and `limits` over hskv, redis and memcached: what a hit costs.

All are measured in turns, in one run, pinned to one core with their servers: hits per second, and
the client's CPU for each, as medians over rounds. Beside them is how many times faster (more than
1) or slower than `limits` over redis with the same kind of window. `flush` is
`innodb_flush_log_at_trx_commit`; redis and memcached keep nothing on disk.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from limits import RateLimitItemPerHour
from limits.storage import storage_from_string
from limits.strategies import STRATEGIES
from rich.console import Console
from rich.progress import track

import hskv
import hskv.integrations.limits  # makes hskv:// known to limits
from benchmarks.pages import Grid, write
from benchmarks.peers import Peer, memcached_server, redis_server
from benchmarks.pinning import on_cores
from benchmarks.versions import versions
from hskv.mariadb import PrivateServer

HOUR = 3600
PLENTY = 1_000_000_000
FIXED, SLIDING, OTHER = "fixed window", "sliding window", "others"
OF_LIMITS = {FIXED: "fixed-window", SLIDING: "sliding-window-counter", OTHER: "moving-window"}


@dataclass
class Contender:
    """A limiter, and the times of its hits, of the wall and of the client's CPU, in us."""

    kind: str
    name: str
    hit: Callable[[], object]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def measure(self, calls: int) -> None:
        """One round."""
        hit = self.hit
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(calls):
            hit()
        self.wall.append((time.perf_counter() - wall) / calls * 1e6)
        self.cpu.append((time.process_time() - cpu) / calls * 1e6)


def own(url: str, flush: int) -> Iterator[Contender]:
    """The limiters of hskv itself: hits that pass, and one that is refused."""
    store = hskv.connect(url)
    fixed = store.limiter("bench", PLENTY, HOUR)
    yield Contender(FIXED, f"hskv, flush {flush}", partial(fixed.hit, "ann"))
    sliding = store.limiter("bench", PLENTY, HOUR, "sliding-window")
    yield Contender(SLIDING, f"hskv, flush {flush}", partial(sliding.hit, "ann"))
    gcra = store.limiter("bench", PLENTY, HOUR, "gcra")
    yield Contender(OTHER, f"hskv gcra, flush {flush}", partial(gcra.hit, "ann"))
    full = store.limiter("full", 1, HOUR)
    full.hit("ann")
    yield Contender(OTHER, f"hskv fixed window, refused, flush {flush}", partial(full.hit, "ann"))


def by_limits(name: str, url: str, kinds: tuple[str, ...]) -> Iterator[Contender]:
    """The strategies of `limits` over a storage."""
    storage = storage_from_string(url)
    for kind in kinds:
        limit = RateLimitItemPerHour(100 if kind == OTHER else PLENTY)
        strategy = STRATEGIES[OF_LIMITS[kind]](storage)
        title = f"limits {OF_LIMITS[kind]}, {name}" if kind == OTHER else f"limits, {name}"
        yield Contender(kind, title, partial(strategy.hit, limit, "ann"))


def contenders(stack: ExitStack, *, tcp: bool) -> Iterator[tuple[list[Contender], int]]:
    """All of them, with the process of their server."""
    for flush in (2, 1):
        options = {"innodb_flush_log_at_trx_commit": flush}
        server = stack.enter_context(PrivateServer(tcp=tcp, options=options))
        name = f"hskv, flush {flush}"
        measured = [*own(server.url, flush), *by_limits(name, server.url, (FIXED, SLIDING, OTHER))]
        yield measured, server.pid or 0
    redis = stack.enter_context(redis_server(tcp=tcp))
    yield list(by_limits("redis", redis_url(redis), (FIXED, SLIDING, OTHER))), redis.pid
    memcached = stack.enter_context(memcached_server(tcp=tcp))
    where = f"127.0.0.1:{memcached.port}" if tcp else memcached.path
    yield list(by_limits("memcached", f"memcached://{where}", (FIXED, SLIDING))), memcached.pid


def redis_url(peer: Peer) -> str:
    """A URL as `limits` wants it."""
    return f"redis+unix://{peer.path}" if peer.path else f"redis://127.0.0.1:{peer.port}/0"


def run(console: Console, *, tcp: bool, rounds: int, calls: int) -> list[Contender]:
    """Measure all of them over one transport."""
    with ExitStack() as stack:
        started = list(contenders(stack, tcp=tcp))
        measured = [contender for group, _ in started for contender in group]
        for contender in measured:
            contender.hit()
        stack.enter_context(on_cores(1, *(pid for _, pid in started)))
        for _ in track(range(rounds), f"{rounds} rounds", console=console):
            for contender in measured:
                contender.measure(calls)
    return measured


def table(title: str, measured: list[Contender]) -> Grid:
    """Hits a second, client CPU for each, and the speed as a multiple of redis's."""
    base = {one.kind: one for one in measured if one.name.endswith("redis")}
    rows: list[list[str]] = []
    for kind in (FIXED, SLIDING, OTHER):
        rows.append([kind])
        for one in measured:
            if one.kind == kind:
                pairs = zip(base[kind].wall, one.wall, strict=True)
                ratio = statistics.median(theirs / ours for theirs, ours in pairs)
                rate, cpu = 1e6 / statistics.median(one.wall), statistics.median(one.cpu)
                rows.append([one.name, f"{rate:,.0f}", f"{cpu:.1f}", f"{ratio:.2f}"])
    header = ["", "hits/s", "client us/hit", "speed"]
    return Grid(f"{title} (speed: limits over redis = 1)", header, rows)


def main() -> None:
    """Run, over unix sockets and TCP."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=500, help="hits, per round")
    parser.add_argument("--write", type=Path, help="a file for the tables, as Markdown")
    arguments = parser.parse_args()
    # Now, since the files may be others when the run ends.
    measured_on = versions()
    console = Console()
    grids = []
    for tcp in (False, True):
        measured = run(console, tcp=tcp, rounds=arguments.rounds, calls=arguments.calls)
        grids.append(table("TCP" if tcp else "unix sockets", measured))
    for grid in grids:
        console.print(grid.rich())
    if arguments.write:
        head = f"# Rate limits, by `make bench-limiter`\n\n{__doc__}"
        write(arguments.write, head.rstrip(), measured_on, grids)


if __name__ == "__main__":
    main()
