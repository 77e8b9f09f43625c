"""hskv, raw socket loops, pymemcache, redis-py and SQL clients, measured in one run.

Every client is a process of its own. They are measured in turns, in random order, each round; a
ratio is the median over rounds of (time of the raw loop with the store's bytes / time of the
client): 1.00 is that loop, more is faster. Bare times say little: another machine, or another
hour of this one, has others.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

import hskv
from benchmarks.contenders import CONTENDERS, Place
from benchmarks.peers import memcached_server, redis_server
from benchmarks.pinning import on_cores
from benchmarks.report import Table, write
from benchmarks.versions import ROOT, is_installed, versions
from hskv.mariadb import PrivateServer

BASE = "raw loop, same bytes"
SINGLE = ("get", "set", "incr")
MANY = ("get_many(100)", "set_many(100), existing", "set_many(100), new")
LARGE = ("get, 10 KB text", "get, 10 KB random", "get, 1 MB text", "get, 1 MB random")
# How many calls of each make a round of some tens of milliseconds.
CALLS = {**dict.fromkeys(SINGLE, 1_000), **dict.fromkeys(MANY, 40), MANY[2]: 20}
CALLS |= {LARGE[0]: 300, LARGE[1]: 300, LARGE[2]: 20, LARGE[3]: 20}
FINDS_ONLY = ("hskv Client.find", "hskv Client.find, pure Python")
IN_BATCHES_ONLY = ("redis-py pipeline",)
LOADERS = ("hskv store", "hskv store, pure Python", "redis-py", "pymemcache PooledClient")
WRITERS = ("raw loop, same bytes", "hskv store", "redis-py", "PyMySQL", "mysqlclient")
THREADED = (BASE, "hskv store", "pymemcache PooledClient", "redis-py", "PyMySQL")

Times = dict[str, dict[str, list[dict[str, float]]]]
"""By operation and client: what each round took."""


class Client:
    """The process of a client."""

    def __init__(self, name: str, place: Place) -> None:
        self.name = name
        implementation = "python" if name.endswith("pure Python") else "cython"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        if name.startswith("hskv"):
            environment["HSKV_IMPL"] = implementation
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", name, json.dumps(place._asdict())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self._answer()

    def ask(self, request: Any) -> None:
        """Begin something."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended")
        return json.loads(line)

    def answer(self) -> Any:
        """What came of it."""
        return self._answer()

    def measure(self, **request: Any) -> dict[str, float]:
        """One round."""
        self.ask(request)
        measured: dict[str, float] = self._answer()
        return measured

    def end(self) -> None:
        """Let it end."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)


def can(name: str, operation: str) -> bool:
    """True where the client has such an operation."""
    if name in FINDS_ONLY:
        return operation.startswith("get") and "many" not in operation
    if name in IN_BATCHES_ONLY:
        return "many" in operation
    return True


@contextmanager
def servers(*, tcp: bool, flush: int) -> Iterator[tuple[Place, list[int | None]]]:
    """All three, and their processes."""
    with ExitStack() as stack:
        options: dict[str, str | int | None] = {"innodb_flush_log_at_trx_commit": flush}
        mariadb = stack.enter_context(PrivateServer(tcp=tcp, options=options))
        redis = stack.enter_context(redis_server(tcp=tcp, always_durable=flush == 1))
        memcached = stack.enter_context(memcached_server(tcp=tcp))
        place = Place(
            mariadb.url,
            mariadb.sql,
            f"unix://{redis.path}" if redis.path else f"redis://127.0.0.1:{redis.port}/0",
            memcached.path or f"127.0.0.1:{memcached.port}",
        )
        yield place, [mariadb.pid, redis.pid, memcached.pid]


@contextmanager
def clients(names: Sequence[str], place: Place) -> Iterator[dict[str, Client]]:
    """Their processes, and the rows that they read."""
    started = {name: Client(name, place) for name in names}
    try:
        for name in LOADERS:
            if name in started:
                started[name].ask("load")
                started[name].answer()
        yield started
    finally:
        for client in started.values():
            client.end()


def measured(
    title: str,
    operations: Sequence[str],
    names: Sequence[str],
    rounds: int,
    *,
    tcp: bool = False,
    flush: int = 2,
    cores: int = 1,
    console: Console,
) -> Times:
    """Each operation of each client, in turns."""
    times: Times = defaultdict(lambda: defaultdict(list))
    with (
        servers(tcp=tcp, flush=flush) as (place, pids),
        on_cores(cores, *pids),
        clients(names, place) as started,
    ):
        for operation in track(operations, title, console=console):
            able = [name for name in names if can(name, operation)]
            for _ in range(rounds):
                for name in random.sample(able, len(able)):
                    calls = CALLS[operation]
                    one = started[name].measure(operation=operation, calls=calls)
                    times[operation][name].append(one)
    return times


def crowds(rounds: int, console: Console) -> tuple[Times, Times]:
    """Gets by 1, 4 and 16 threads of a process, and by 1, 2 and 4 processes, on all cores."""
    threads: Times = defaultdict(lambda: defaultdict(list))
    processes: Times = defaultdict(lambda: defaultdict(list))
    with servers(tcp=False, flush=2) as (place, _), ExitStack() as stack:
        started = [stack.enter_context(clients(THREADED, place)) for _ in range(4)]
        for _ in track(range(rounds), "threads and processes", console=console):
            for name in random.sample(THREADED, len(THREADED)):
                for count in (1, 4, 16):
                    one = started[0][name].measure(operation="get", calls=2_000, threads=count)
                    threads[f"get, {count} threads"][name].append(one)
                for count in (1, 2, 4):
                    crowd = [some[name] for some in started[:count]]
                    for client in crowd:
                        client.ask({"operation": "get", "calls": 1_000})
                    answers = [client.answer() for client in crowd]
                    together = {
                        # All of them together do so many calls in the time of one.
                        "wall": statistics.mean(one["wall"] for one in answers) / count,
                        "cpu": statistics.mean(one["cpu"] for one in answers),
                    }
                    processes[f"get, {count} processes"][name].append(together)
    return threads, processes


def main() -> None:
    """Run all of it, show it, and write it where it is wanted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", type=Path, help="a directory for tables, JSON and charts")
    parser.add_argument("--only", default="", help="a part of the titles of the runs wanted")
    arguments = parser.parse_args()
    console = Console()
    names = [name for name in CONTENDERS if name != "mysqlclient" or is_installed(name)]
    if hskv.codec_implementation == "python":
        console.print("hskv_fast is not compiled here: what is called hskv is pure Python")
        names = [name for name in names if not name.startswith("hskv") or "pure" in name]
    batch = (*SINGLE, *MANY)
    plans: dict[str, dict[str, Any]] = {
        "one core, unix sockets, flush 2": {"operations": (*batch, *LARGE), "names": names},
        "one core, TCP, flush 2": {"operations": batch, "names": names, "tcp": True},
        "two cores, unix sockets, flush 2": {"operations": batch, "names": names, "cores": 2},
        "one core, unix sockets, flush 1 (redis: appendfsync always)": {
            "operations": ("set", "incr", *MANY[1:]),
            "names": [name for name in names if name in WRITERS],
            "flush": 1,
        },
    }
    tables = []
    for title, plan in plans.items():
        if arguments.only in title:
            times = measured(title, rounds=arguments.rounds, console=console, **plan)
            tables.append(Table(title, BASE, times))
    if arguments.only in "threads and processes":
        for title, times in zip(
            ("threads of one process, all cores", "processes, all cores"),
            crowds(arguments.rounds, console),
            strict=True,
        ):
            tables.append(Table(title, BASE, times))
    for table in tables:
        console.print(*table.rich(), sep="\n")
    if arguments.write:
        write(arguments.write, versions(), tables)


if __name__ == "__main__":
    main()
