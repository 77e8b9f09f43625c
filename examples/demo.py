"""Reads Python's own library into a store, from several processes, then again from the store.

`make demo` runs it, on a private MariaDB that is gone afterwards.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import sysconfig
import threading
import time
import tokenize
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from hskv import HandlerSocketError, KeyValueStore
from hskv.mariadb import PrivateServer

try:
    import pymysql
    from rich import progress as bars
    from rich.console import Console
    from rich.table import Table
except ImportError as error:
    sys.exit(f"demo: {error}: pip install 'hskv[demo]', or run `make demo`")

STDLIB: Final = Path(sysconfig.get_path("stdlib"))
# Installed packages are no part of the library, and tests would double the time.
LEFT_OUT: Final = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
# Small enough that the processes finish together, large enough that a batch is worth a trip.
BATCH_MODULES: Final = 16
TTL_SECONDS: Final = 0.5
LONGEST_WAIT_SECONDS: Final = 10.0
LARGEST_SQL: Final = """\
 SELECT k, CAST(JSON_VALUE(v, '$.lines') AS INT) AS line_count,
         JSON_VALUE(v, '$.size')
  FROM kv WHERE kind = 3 AND k LIKE 'module:%'
  ORDER BY line_count DESC, k LIMIT 5"""
SUM_SQL: Final = "SELECT SUM(n) FROM kv WHERE k LIKE 'tokens:%'"

Store = KeyValueStore[str, Any]


class DemoError(Exception):
    """What the demo promises did not come true."""


@dataclass
class Tally:
    """What was done with some modules; tallies of batches add up to that of a pass."""

    kinds: Counter[str] = field(default_factory=Counter)
    read: int = 0
    served: int = 0
    skipped: int = 0
    seconds: float = 0.0

    def add(self, other: "Tally") -> None:
        """Take in what another process did."""
        self.kinds += other.kinds
        self.read += other.read
        self.served += other.served
        self.skipped += other.skipped


# Each worker process has its own.
_worker_store: Store


def open_store(url: str) -> None:
    """Give a worker its own store: what processes share is the table, not a connection."""
    global _worker_store
    _worker_store = KeyValueStore(url)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """End the worker when the demo was killed: nobody else would."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os._exit(1)


def work_on(names: list[str]) -> Tally:
    """Tally a batch of modules, from the store where it knows them.

    Both passes run this very function: only what the store holds makes them differ.
    """
    tally = Tally()
    rows = _worker_store.get_many([f"module:{name}" for name in names])
    for name in names:
        tally_module(tally, name, rows.get(f"module:{name}"))
    return tally


def tally_module(tally: Tally, name: str, row: dict[str, Any] | None) -> None:
    """Take the counts from the row if the file is still the same, else from the file."""
    try:
        data = (STDLIB / name).read_bytes()
        if row is not None and row["sha256"] == sha256(data).hexdigest():
            tally.kinds += Counter(row["tokens"])
            tally.served += 1
            return
        kinds = count_tokens(data)
    except (OSError, SyntaxError, ValueError, tokenize.TokenError):
        tally.skipped += 1
        return
    keep(name, data, kinds)
    tally.kinds += kinds
    tally.read += 1


def count_tokens(data: bytes) -> Counter[str]:
    """How many tokens of each kind a source has: the slow part, which the store saves."""
    tokens = tokenize.tokenize(BytesIO(data).readline)
    return Counter(tokenize.tok_name[token.type] for token in tokens)


def keep(name: str, data: bytes, kinds: Counter[str]) -> None:
    """Store a module's row, and add its tokens to the counters that all workers share."""
    size, lines, digest = len(data), len(data.splitlines()), sha256(data).hexdigest()
    row = {"size": size, "lines": lines, "tokens": kinds, "sha256": digest}
    _worker_store.set(f"module:{name}", row)
    for kind, count in kinds.items():
        _worker_store.incr(f"tokens:{kind}", count)


class Rate(bars.ProgressColumn):
    """Modules per second since the start, which rich has no column for."""

    def render(self, task: bars.Task) -> str:
        """The text of the column."""
        return f"{task.completed / task.elapsed:,.0f}/s" if task.elapsed else ""


def find_modules(limit: int) -> list[str]:
    """Paths of the library's modules, relative to it; `limit` 0 for all."""
    paths = [path.relative_to(STDLIB) for path in STDLIB.rglob("*.py")]
    names = sorted(str(path) for path in paths if not LEFT_OUT.intersection(path.parts))
    return names[:limit] if limit else names


@contextmanager
def worker_pool(url: str, processes: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes, each with a store; what is not begun when it ends is dropped."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, open_store, initargs=(url,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def submit(pool: ProcessPoolExecutor, names: list[str]) -> dict[Future[Tally], int]:
    """Hand out all batches; with each, how many modules it has."""
    starts = range(0, len(names), BATCH_MODULES)
    batches = [names[start : start + BATCH_MODULES] for start in starts]
    # The processes start here and inherit the mask: the parent alone answers Ctrl-C, once.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return {pool.submit(work_on, batch): len(batch) for batch in batches}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_pass(console: Console, title: str, url: str, names: list[str], processes: int) -> Tally:
    """Walk over all modules, from as many processes, under a progress bar."""
    tally, started = Tally(), time.perf_counter()
    with worker_pool(url, processes) as pool, progress_bar(console) as progress:
        bar = progress.add_task(title, total=len(names))
        futures = submit(pool, names)
        for future in as_completed(futures):
            tally.add(future.result())
            progress.advance(bar, futures[future])
        tally.seconds = time.perf_counter() - started
    return tally


def progress_bar(console: Console) -> bars.Progress:
    """A bar with the rate and the time; where there is no terminal, its end is printed."""
    columns = bars.BarColumn(20), bars.MofNCompleteColumn(), Rate(), bars.TimeElapsedColumn()
    return bars.Progress(bars.TextColumn("  {task.description}"), *columns, console=console)


def show_first_pass(console: Console, url: str, names: list[str], processes: int) -> Tally:
    """Read every module into the store."""
    console.print(
        f"\n[bold]2. {len(names)} modules of {STDLIB}, by {processes} processes.[/]\n"
        "  For each module they keep a row, and add its tokens to shared counters."
    )
    tally = run_pass(console, "first pass ", url, names, processes)
    if not tally.read:
        raise DemoError(f"no module in {STDLIB} could be read")
    console.print(f"  {tally.read} read, {tally.skipped} skipped as unreadable. One of the rows:")
    with KeyValueStore(url, prefix="module:") as store:
        name, row = next(iter(store.items()))
        console.print(f"  store['module:{name}'] = {row}", style="dim")
    return tally


def show_second_pass(
    console: Console, url: str, names: list[str], processes: int, first: Tally
) -> Tally:
    """Ask for all of it again."""
    console.print(
        "\n[bold]3. The same again, by new processes.[/]\n"
        "  Where a file's SHA-256 is still that of its row, the row has the counts."
    )
    tally = run_pass(console, "second pass", url, names, processes)
    console.print(f"  {tally.served} of {first.read} served from the store.")
    if tally.served != first.read or tally.kinds != first.kinds:
        raise DemoError("the second pass was not served what the first one stored")
    return tally


def show_expiry(console: Console, store: Store) -> None:
    """Watch a value go that nobody deletes."""
    console.print(f"\n[bold]4. A value that expires.[/]\n  It is stored with ttl={TTL_SECONDS}.")
    store.set("greeting", "hello", ttl=TTL_SECONDS)
    started, left = time.monotonic(), store.ttl("greeting")
    console.print(f"  at once: {store.get('greeting')!r}, with {left:.2f} s left")
    while "greeting" in store:
        if time.monotonic() > started + LONGEST_WAIT_SECONDS:
            raise DemoError(f"a value outlived its ttl by {LONGEST_WAIT_SECONDS} s")
        time.sleep(0.02)
    console.print(f"  {time.monotonic() - started:.2f} s later: {store.get('greeting')!r}")


def query(server: PrivateServer, statement: str) -> list[tuple[Any, ...]]:
    """The rows of a statement, by SQL's own connection: HandlerSocket has no part in it."""
    with closing(pymysql.connect(**server.sql)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def show_sql(console: Console, server: PrivateServer, expected: Counter[str]) -> Table:
    """Check the counters' sum by SQL; gives the table of the largest modules."""
    console.print("\n[bold]5. The same rows through SQL.[/]")
    total = int(query(server, SUM_SQL)[0][0] or 0)
    console.print(f"  {SUM_SQL}\n  -> {total:,} tokens; Python counted {expected.total():,}")
    if total != expected.total():
        raise DemoError("SQL does not see the tokens that Python counted")
    console.print(f" {LARGEST_SQL}\n  -> the last table below")
    table = make_table("Largest modules, by SQL", "module", "lines", "bytes")
    for name, lines, size in query(server, LARGEST_SQL):
        table.add_row(name.decode(), f"{lines:,}", f"{int(size):,}")
    return table


def make_table(title: str, first: str, *others: str) -> Table:
    """An empty table: names on the left, numbers on the right."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right")
    return table


def counters_table(expected: Counter[str], counters: dict[str, int]) -> Table:
    """Each counter beside the plain Python count."""
    title = "Tokens, counted by all processes at once"
    table = make_table(title, "kind", "store", "Python", "same")
    for kind in sorted({*expected, *counters}, key=lambda kind: (-expected[kind], kind)):
        stored, counted = counters.get(kind, 0), expected[kind]
        same = "[green]yes[/]" if stored == counted else "[red]NO[/]"
        table.add_row(kind, f"{stored:,}", f"{counted:,}", same)
    return table


def passes_table(*passes: Tally) -> Table:
    """The time of the passes, each with the start of its processes."""
    columns = "read", "from the store", "seconds", "modules/s", "speed"
    table = make_table("Both passes", "pass", *columns)
    for title, tally in zip(("first", "second"), passes, strict=True):
        rate = f"{(tally.read + tally.served) / tally.seconds:,.0f}"
        times = f"{tally.seconds:.2f}", rate, f"{passes[0].seconds / tally.seconds:.1f} x"
        table.add_row(title, f"{tally.read:,}", f"{tally.served:,}", *times)
    return table


def show_all(console: Console, server: PrivateServer, names: list[str], processes: int) -> None:
    """The demo, on a server that runs."""
    first = show_first_pass(console, server.url, names, processes)
    second = show_second_pass(console, server.url, names, processes, first)
    with KeyValueStore(server.url) as store:
        show_expiry(console, store)
    with KeyValueStore(server.url, prefix="tokens:") as store:
        counters = dict(store.items())
    largest = show_sql(console, server, first.kinds)
    console.print("\n[bold]6. What came of it.[/]\n")
    for table in (counters_table(first.kinds, counters), passes_table(first, second), largest):
        console.print(table, "")
    if counters != first.kinds:
        raise DemoError("the counters in the store differ from the plain Python count")
    console.print("The counters agree with the plain Python count.")


def run(options: argparse.Namespace) -> None:
    """Start a server, show everything on it, and stop it whatever comes."""
    console = Console(highlight=False)
    console.print("[bold]1. A private MariaDB.[/]\n  It is started for this demo only ...")
    started = time.perf_counter()
    with PrivateServer() as server:
        ((version,),) = query(server, "SELECT VERSION()")
        seconds = time.perf_counter() - started
        console.print(f"  MariaDB {version}, process {server.pid}, ready after {seconds:.1f} s")
        show_all(console, server, find_modules(options.limit), options.processes)
    console.print("The server is stopped, and its data removed.")


def parse() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    cores = min(4, os.cpu_count() or 2)
    parser.add_argument("--processes", type=int, default=cores, help="default %(default)s")
    parser.add_argument("--limit", type=int, default=0, help="modules to read; default 0, for all")
    options = parser.parse_args()
    if options.processes < 1 or options.limit < 0:
        parser.error("--processes is at least 1, and --limit at least 0")
    return options


def main() -> int:
    """Run the demo; whatever goes wrong ends it with a message."""
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run(options)
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    except (HandlerSocketError, OSError, pymysql.MySQLError, BrokenExecutor, DemoError) as failed:
        print(f"demo: {failed}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
