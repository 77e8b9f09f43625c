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
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NamedTuple

from hskv import HandlerSocketError, KeyValueStore
from hskv.mariadb import PrivateServer

try:
    import pymysql
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
    )
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
LARGEST_SQL: Final = """
    SELECT SUBSTR(CONVERT(k USING utf8mb4), 8), CAST(JSON_VALUE(v, '$.lines') AS INT) AS line_count,
           CAST(JSON_VALUE(v, '$.size') AS INT)
    FROM kv WHERE kind = 3 AND k LIKE 'module:%' ORDER BY line_count DESC, k LIMIT 5"""
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

    def add(self, other: "Tally") -> None:
        """Take in what another process did."""
        self.kinds += other.kinds
        self.read += other.read
        self.served += other.served
        self.skipped += other.skipped


class Pass(NamedTuple):
    """One walk over all modules, and how long it took."""

    title: str
    seconds: float
    tally: Tally

    @property
    def modules(self) -> int:
        """How many modules were looked at."""
        return self.tally.read + self.tally.served + self.tally.skipped


# --- In the worker processes ---------------------------------------------------------------

_worker_store: Store


def open_store(url: str) -> None:
    """Give a worker its own store: what processes share is the table, not a connection."""
    global _worker_store
    _worker_store = KeyValueStore(url)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """End the worker when the demo was killed: nobody else would."""
    parent = multiprocessing.parent_process()
    if parent is not None:
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
    row = {
        "size": len(data),
        "lines": len(data.splitlines()),
        "tokens": kinds,
        "sha256": sha256(data).hexdigest(),
    }
    _worker_store.set(f"module:{name}", row)
    for kind, count in kinds.items():
        _worker_store.incr(f"tokens:{kind}", count)


# --- In the parent -------------------------------------------------------------------------


class Rate(ProgressColumn):
    """Modules per second, which rich has no column for."""

    def render(self, task: Task) -> str:  # type: ignore[override]
        """The text of the column."""
        speed = task.finished_speed or task.speed
        return f"{speed:,.0f}/s" if speed else "-/s"


def find_modules(limit: int) -> list[str]:
    """Paths of the library's modules, relative to it; `limit` 0 for all."""
    paths = [path.relative_to(STDLIB) for path in STDLIB.rglob("*.py")]
    names = sorted(str(path) for path in paths if not LEFT_OUT.intersection(path.parts))
    return names[:limit] if limit else names


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Keep Ctrl-C from processes that start meanwhile: the parent alone answers it, once."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def worker_pool(url: str, processes: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes, each with a store; what is not begun when it ends is dropped."""
    pool = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), open_store, initargs=(url,)
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def submit(pool: ProcessPoolExecutor, names: list[str]) -> dict[Future[Tally], int]:
    """Hand out all batches; with each, how many modules it has."""
    starts = range(0, len(names), BATCH_MODULES)
    batches = [names[start : start + BATCH_MODULES] for start in starts]
    with interrupts_held():
        return {pool.submit(work_on, batch): len(batch) for batch in batches}


def run_pass(console: Console, title: str, url: str, names: list[str], processes: int) -> Pass:
    """Walk over all modules, from as many processes, under a progress bar."""
    tally, started = Tally(), time.perf_counter()
    with worker_pool(url, processes) as pool, progress_bar(console) as progress:
        bar = progress.add_task(title, total=len(names))
        futures = submit(pool, names)
        for future in as_completed(futures):
            tally.add(future.result())
            progress.advance(bar, futures[future])
        seconds = time.perf_counter() - started
    return Pass(title, seconds, tally)


def progress_bar(console: Console) -> Progress:
    """A bar with the rate and the time; where there is no terminal, its end is printed."""
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        console=console,
    )


def show_passes(console: Console, url: str, names: list[str], processes: int) -> list[Pass]:
    """Read every module, then ask for all of it again."""
    console.print(
        f"\n[bold]2. {len(names)} modules of {STDLIB}, by {processes} processes.[/] Each keeps "
        "a row for every module it reads, and adds its tokens to counters that all share."
    )
    first = run_pass(console, "first pass ", url, names, processes)
    console.print(f"  {first.tally.read} read, {first.tally.skipped} skipped as unreadable.")
    console.print(
        "\n[bold]3. The same again, by new processes.[/] A module whose SHA-256 is that of its "
        "row is not read again: its counts come from the store."
    )
    second = run_pass(console, "second pass", url, names, processes)
    console.print(f"  {second.tally.served} of {first.tally.read} served from the store.")
    if second.tally.served != first.tally.read or second.tally.kinds != first.tally.kinds:
        raise DemoError("the second pass was not served what the first one stored")
    return [first, second]


def show_expiry(console: Console, store: Store) -> None:
    """Watch a value go, which nobody deletes."""
    console.print(f"\n[bold]4. A value that expires.[/] Stored with ttl={TTL_SECONDS}:")
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
    console.print(f"  {SUM_SQL}\n  -> {total:,}, by Python {expected.total():,}", highlight=False)
    if total != expected.total():
        raise DemoError("SQL does not see the tokens that Python counted")
    table = make_table("Largest modules, by SQL", "module", "lines", "bytes")
    for name, lines, size in query(server, LARGEST_SQL):
        table.add_row(name, f"{lines:,}", f"{size:,}")
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
    table = make_table(
        "Tokens, counted by all processes at once", "kind", "store", "Python", "same"
    )
    for kind in sorted({*expected, *counters}, key=lambda kind: (-expected[kind], kind)):
        stored, counted = counters.get(kind, 0), expected[kind]
        same = "[green]yes[/]" if stored == counted else "[red]NO[/]"
        table.add_row(kind, f"{stored:,}", f"{counted:,}", same)
    return table


def passes_table(passes: list[Pass]) -> Table:
    """The time of the passes, each with the start of its processes."""
    table = make_table(
        "Both passes", "pass", "read", "from the store", "seconds", "modules/s", "speed"
    )
    for one in passes:
        numbers = f"{one.seconds:.2f}", f"{one.modules / one.seconds:,.0f}"
        speed = f"{passes[0].seconds / one.seconds:.1f} x"
        table.add_row(one.title, str(one.tally.read), str(one.tally.served), *numbers, speed)
    return table


def show_all(console: Console, server: PrivateServer, names: list[str], processes: int) -> None:
    """The demo, on a server that runs."""
    passes = show_passes(console, server.url, names, processes)
    expected = passes[0].tally.kinds
    with KeyValueStore(server.url) as store:
        show_expiry(console, store)
        counters = KeyValueStore(server.url, prefix="tokens:")
        with counters:
            counted = dict(counters.items())
    largest = show_sql(console, server, expected)
    console.print("\n[bold]6. What came of it.[/]\n")
    for table in (counters_table(expected, counted), passes_table(passes), largest):
        console.print(table, "")
    if counted != expected:
        raise DemoError("the counters in the store differ from the plain Python count")
    console.print("The counters agree with the plain Python count.")


def run(options: argparse.Namespace) -> None:
    """Start a server, show everything on it, and stop it whatever comes."""
    console = Console(highlight=False)
    console.print("[bold]1. A private MariaDB.[/] It is started for this demo only ...")
    started = time.perf_counter()
    with PrivateServer() as server:
        ((version,),) = query(server, "SELECT VERSION()")
        seconds = time.perf_counter() - started
        console.print(f"  MariaDB {version}, process {server.pid}, after {seconds:.1f} s")
        show_all(console, server, find_modules(options.limit), options.processes)
    console.print("The server is stopped, and its data removed.")


def at_least(least: int) -> Callable[[str], int]:
    """A type for argparse that refuses smaller numbers by a message."""

    def number(text: str) -> int:
        if not (text.isdecimal() and int(text) >= least):
            raise argparse.ArgumentTypeError(f"a number from {least} on, not {text!r}")
        return int(text)

    return number


def parse() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    processes = min(4, os.cpu_count() or 2)
    parser.add_argument("--processes", type=at_least(1), default=processes, metavar="N")
    parser.add_argument(
        "--limit", type=at_least(0), default=0, metavar="N", help="modules to read; 0 for all"
    )
    return parser.parse_args()


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
