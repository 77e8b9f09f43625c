"""`hskv load`: the rows of a dump into a table."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from ..store.rows import Store, put_rows
from .app import App
from .bookmark import Bookmark
from .dumpfile import Block, Check, Reader, last_check
from .exits import Exit, Failure
from .input import STDIN
from .options import json_option, url_options
from .progress import Pace, progress


@click.command()
@click.argument(
    "file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    default=STDIN,
)
@click.option("--check", "only_check", is_flag=True, help="Read the file, and store nothing.")
@click.option("--resume", is_flag=True, help="Go on with a load of this file that was stopped.")
@click.option("--restart", is_flag=True, help="Load from the first row, whatever was done before.")
@url_options
@json_option
@click.pass_obj
def load(app: App, file: Path, only_check: bool, resume: bool, restart: bool) -> None:
    """Store the rows of a dump, from FILE or stdin, in place of what their keys had.

    TTLs go on as if nothing had happened: a row that has expired meanwhile is left out. Each
    block is checked before it is stored; of a FILE that is not whole nothing is.
    """
    from_stdin = str(file) == STDIN
    if from_stdin and resume:
        raise click.UsageError("what came from stdin cannot be gone on with: name a FILE")
    with _source(file) as (opened, total), progress(app, "load") as pace:
        reader = Reader(opened)
        pace.begin(0, total)
        if only_check:
            for block in reader.blocks():
                block.rows()
                pace.reach(reader.rows)
            pace.tell(app, "checked", reader.check)
            return
        with app.store() as store:
            bookmark = None if from_stdin else Bookmark(file, store)
            done = bookmark.found(resume=resume, restart=restart) if bookmark else None
            pace.begin(done.rows if done else 0, total)
            with _told(bookmark):
                expired = _load(store, reader, done, bookmark, pace)
    pace.tell(app, "loaded", reader.check, expired=expired)


@contextmanager
def _source(file: Path) -> Iterator[tuple[IO[bytes], int | None]]:
    """The dump, and how many rows it has, which is known of a file that is whole."""
    if str(file) == STDIN:
        yield sys.stdin.buffer, None
        return
    with file.open("rb") as opened:
        whole = last_check(opened) if opened.seekable() else None
        yield opened, whole and whole.rows


@contextmanager
def _told(bookmark: Bookmark | None) -> Iterator[None]:
    """Tells how to go on with what stops half way."""
    try:
        yield
    except BaseException:
        if bookmark and bookmark.path.exists():
            click.echo(f"{bookmark.path} has how far it came; --resume goes on", err=True)
        raise
    if bookmark:
        bookmark.remove()


def _load(
    store: Store, reader: Reader, done: Check | None, bookmark: Bookmark | None, pace: Pace
) -> int:
    """Store the rows behind `done`; how many were left out since they have expired."""
    expired = 0
    for block in _behind(reader, done):
        rows = block.rows()
        now = int(time.time() * 1000)
        alive = [cells for cells in rows if cells[5] > now]
        expired += len(rows) - len(alive)
        put_rows(store, alive)
        if bookmark:
            bookmark.put(block.check)
        pace.reach(reader.rows)
    return expired


def _behind(reader: Reader, done: Check | None) -> Iterator[Block]:
    """The blocks that were not stored before."""
    blocks = reader.blocks()
    while done and reader.check != done:
        if next(blocks, None) is None or reader.rows > done.rows:
            raise Failure("the load that was stopped was of another dump: --restart", Exit.USAGE)
    yield from blocks
