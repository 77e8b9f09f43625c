"""`hskv scan`: the keys and values of a store, in key order."""

import sys
import time
from collections.abc import Iterator
from itertools import islice
from shutil import get_terminal_size

import click

from ..store.rows import Store, row_of, row_pages
from ..store.verbs import Row
from .app import App
from .keys import in_json, shown, typed_key
from .options import json_option, url_options
from .values import as_json, line_of, members


@click.command()
@click.argument("prefix", type=typed_key, metavar="[PREFIX]", default="")
@click.option("--start", type=typed_key, default="", metavar="KEY", help="Begin at this key.")
@click.option("--limit", type=click.IntRange(min=1), help="Print at most so many.")
@click.option("--keys", "only_keys", is_flag=True, help="Print keys alone.")
@url_options
@json_option
@click.pass_obj
def scan(app: App, prefix: bytes, start: bytes, limit: int | None, only_keys: bool) -> None:
    r"""Print the keys that begin with PREFIX, and their values, in key order.

    A line each, a TAB between key and value, cut short on a terminal; bytes that are no text
    are printed as \xHH. With --json each line is an object: key, kind, value, ttl, version.
    """
    with app.store() as store:
        for row in islice(_rows(store, prefix, start), limit):
            print_row(app, row, only_keys=only_keys)


def _rows(store: Store, prefix: bytes, start: bytes) -> Iterator[Row]:
    for page in row_pages(store, prefix, start):
        yield from map(row_of, page)


def print_row(app: App, row: Row, *, only_keys: bool) -> None:
    """Print a row as a line: for people or, with --json, for programs."""
    if app.json:
        found = in_json("key", row.key) if only_keys else members(row, time.time())
        line = as_json(found)
    else:
        line = shown(row.key) if only_keys else f"{shown(row.key)}\t{line_of(row)}"
    sys.stdout.write(_cut(line) + "\n")


def _cut(line: str) -> str:
    """A line as a terminal has room for it; whole for anything else."""
    if not sys.stdout.isatty():
        return line
    width = get_terminal_size().columns - 1
    line = line.expandtabs()
    return line if len(line) <= width else line[: width - 1] + "…"
