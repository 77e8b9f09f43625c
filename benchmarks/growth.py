"""How the cost of hskv grows: with rows, keys, pipelines, stores, channels; and its import.

All on one core, over unix sockets; microseconds are medians over rounds.
"""

import argparse
import gc
import os
import random
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pymysql
from rich.console import Console
from rich.table import Table

import hskv
from benchmarks.pinning import on_cores
from hskv.mariadb import PrivateServer

VALUE = "x" * 100
NEVER = 2**63 - 1
ROUNDS = 15
ROWS = (1_000, 100_000, 1_000_000)
KEYS = (1, 10, 100, 1_000, 2_000)
DEPTHS = (1, 8, 32, 100)

Store = hskv.KeyValueStore[str, Any]
Line = tuple[str, str]


def microseconds(call: Callable[[], object], calls: int) -> float:
    """The median over rounds of what a call takes."""
    spent = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(calls):
            call()
        spent.append((time.perf_counter() - began) / calls * 1e6)
    return statistics.median(spent)


def rows(server: PrivateServer, store: Store) -> Iterator[Line]:
    """Gets of random keys, as the table grows."""
    fill = (
        f"INSERT INTO kv SELECT CONCAT('key:', seq), '{VALUE}', 0, 1, seq, {NEVER} "
        "FROM seq_{}_to_{}"
    )
    before = 0
    for count in ROWS:
        with closing(pymysql.connect(**server.sql, autocommit=True)) as connection:
            connection.cursor().execute(fill.format(before + 1, count))
        before = count
        keys = [f"key:{random.randint(1, count)}" for _ in range(5_000)]
        turn = iter(keys * (ROUNDS + 1)).__next__
        get_next = partial(_get_next, store, turn)
        for _ in keys:
            # What is asked for comes into the server's memory.
            get_next()
        yield f"get, {count:,} rows", f"{microseconds(get_next, len(keys)):.1f} us"


def _get_next(store: Store, turn: Callable[[], str]) -> None:
    store.get(turn())


def keys(store: Store) -> Iterator[Line]:
    """get_many, by the key."""
    for count in KEYS:
        some = [f"key:{number}" for number in range(1, count + 1)]
        spent = microseconds(partial(store.get_many, some), max(500 // count, 3))
        yield f"get_many of {count:,} keys", f"{spent:.1f} us, {spent / count:.2f} us a key"


def depths(store: Store) -> Iterator[Line]:
    """Finds in a pipeline, by the find."""
    client = store.client
    index = client.open("kv", ["v"])

    def ask(depth: int) -> None:
        pipeline = client.pipeline()
        for number in range(1, depth + 1):
            pipeline.find(index, "=", [f"key:{number}"])
        pipeline.execute()

    for depth in DEPTHS:
        spent = microseconds(partial(ask, depth), max(1_000 // depth, 10))
        yield f"pipeline of {depth} finds", f"{spent:.1f} us, {spent / depth:.2f} us a find"


def memory(url: str) -> Iterator[Line]:
    """What Python keeps for a store that is open, and for each channel of it."""
    tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        stores = [hskv.connect(url) for _ in range(100)]
        gc.collect()
        opened = tracemalloc.get_traced_memory()[0]
        yield "memory of a store", f"{(opened - before) / 100 / 1024:.1f} KiB"
        for store in stores:
            store.get("key:1")
        gc.collect()
        connected = tracemalloc.get_traced_memory()[0]
        yield "memory of a channel", f"{(connected - opened) / 100 / 1024:.1f} KiB"
        for store in stores:
            store.close()
    finally:
        tracemalloc.stop()


def imports() -> Iterator[Line]:
    """What `import hskv` adds to an empty interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def started(text: str, cache: str) -> float:
        # With its bytecode kept, as an installed package has it.
        environment["PYTHONPYCACHEPREFIX"] = cache
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", text], check=True, env=environment)
        return (time.perf_counter() - began) * 1e3

    with TemporaryDirectory() as cache:
        started("import hskv", cache)
        pairs = [(started("pass", cache), started("import hskv", cache)) for _ in range(ROUNDS)]
    added = statistics.median(ours - empty for empty, ours in pairs)
    empty = statistics.median(empty for empty, _ in pairs)
    yield "import hskv", f"{added:.0f} ms more than an empty interpreter ({empty:.0f} ms)"


def main() -> None:
    """Run, show, and write where it is wanted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", type=Path, help="a file for the table, as Markdown")
    arguments = parser.parse_args()
    # The largest table fits into memory, else the disk is what is measured.
    options: dict[str, str | int | None] = {
        "innodb_flush_log_at_trx_commit": 2,
        "innodb_buffer_pool_size": "512M",
    }
    lines: list[Line] = []
    with (
        PrivateServer(options=options) as server,
        on_cores(1, server.pid),
        hskv.connect(server.url) as store,
    ):
        lines += [*rows(server, store), *keys(store), *depths(store), *memory(server.url)]
        lines += imports()
    title = f"How the cost grows (codec {hskv.codec_implementation}, one core, unix sockets)"
    table = Table("what", "cost", title=title, title_justify="left")
    for line in lines:
        table.add_row(*line)
    Console().print(table)
    if arguments.write:
        text = "\n".join(f"| {what} | {cost} |" for what, cost in lines)
        arguments.write.write_text(f"# {title}\n\n| what | cost |\n|---|---|\n{text}\n")


if __name__ == "__main__":
    main()
