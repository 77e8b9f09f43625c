"""Reads Python's own library into a store, from several processes, then again from the store."""

import sysconfig
import time
import tokenize
from collections import Counter
from concurrent.futures import as_completed
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pymysql
from rich import progress as bars
from rich.console import Console
from rich.table import Table

from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

from .workers import DemoError, submit, worker_pool

STDLIB: Final = Path(sysconfig.get_path("stdlib"))
# Installed packages are no part of the library, and tests would double the time.
LEFT_OUT: Final = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
# Small enough that the processes finish together, large enough that a batch is worth a trip.
BATCH_MODULES: Final = 16
LARGEST_SQL: Final = """\
 SELECT k, CAST(JSON_VALUE(v, '$.lines') AS INT) AS line_count,
         JSON_VALUE(v, '$.size')
  FROM kv WHERE kind = 3 AND k LIKE 'module:%'
  ORDER BY line_count DESC, k LIMIT 5"""
SUM_SQL: Final = "SELECT SUM(n) FROM kv WHERE k LIKE 'tokens:%'"

Store = KeyValueStore[str, Any]


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


def run_pass(console: Console, title: str, url: str, names: list[str], processes: int) -> Tally:
    """Walk over all modules, from as many processes, under a progress bar."""
    tally, started = Tally(), time.perf_counter()
    batches = [names[at : at + BATCH_MODULES] for at in range(0, len(names), BATCH_MODULES)]
    with worker_pool(processes, open_store, url) as pool, progress_bar(console) as progress:
        bar = progress.add_task(title, total=len(names))
        futures = submit(pool, work_on, [(batch,) for batch in batches])
        sizes = dict(zip(futures, map(len, batches), strict=True))
        for future in as_completed(futures):
            tally.add(future.result())
            progress.advance(bar, sizes[future])
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


def query(server: PrivateServer, statement: str) -> list[tuple[Any, ...]]:
    """The rows of a statement, by SQL's own connection: HandlerSocket has no part in it."""
    with closing(pymysql.connect(**server.sql)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def show_sql(console: Console, server: PrivateServer, expected: Counter[str]) -> Table:
    """Check the counters' sum by SQL; gives the table of the largest modules."""
    console.print("\n[bold]7. The same rows through SQL.[/]")
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


def show_results(console: Console, url: str, first: Tally, second: Tally, largest: Table) -> None:
    """The tables at the end; the counters must be what Python counted."""
    with KeyValueStore[str, int](url, prefix="tokens:") as store:
        counters = dict(store.items())
    console.print("\n[bold]8. What came of it.[/]\n")
    for table in (counters_table(first.kinds, counters), passes_table(first, second), largest):
        console.print(table, "")
    if counters != first.kinds:
        raise DemoError("the counters in the store differ from the plain Python count")
    console.print("The counters agree with the plain Python count.")
