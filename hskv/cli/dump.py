"""`hskv dump`: every row into a file, whole or not at all."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

import click

from .. import __version__
from ..store.rows import Store, row_pages
from ..store.values import Kind
from .app import App
from .dumpfile import Check, DumpError, Reader, Writer
from .exits import Exit, Failure
from .input import STDIN
from .keys import shown, typed_key
from .options import json_option, url_options
from .progress import Pace, progress

# What stands behind a key in key order, and before any other.
_NEXT: Final = b"\x00"


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default=STDIN)
@click.option("--prefix", type=typed_key, default="", help="Only keys that begin with it.")
@click.option("--resume", is_flag=True, help="Go on with a dump to this file that was stopped.")
@click.option("--overwrite", is_flag=True, help="Replace the file, and what is left of a dump.")
@url_options
@json_option
@click.pass_obj
def dump(app: App, file: Path, prefix: bytes, resume: bool, overwrite: bool) -> None:
    """Write all rows to FILE, or to stdout: every kind, with TTL and version.

    Without a prefix leases and limiters too. Values are not decoded. While others write, each
    row is as it was when it was reached; a key that stays is there exactly once. A FILE is
    whole or does not exist: until then it is FILE.partial.
    """
    to_stdout = str(file) == STDIN
    if to_stdout and (resume or overwrite):
        raise click.UsageError("what went to stdout cannot be gone on with: name a FILE")
    target = _stdout() if to_stdout else _target(file, resume=resume, overwrite=overwrite)
    with app.store() as store, target as part:
        writer, start = _resumed(part, store, prefix) if resume else _begun(part, store, prefix)
        with progress(app, "dump") as pace:
            check = _write(store, writer, prefix, start, pace)
    pace.tell(app, "dumped", check, err=to_stdout)


def _write(store: Store, writer: Writer, prefix: bytes, start: bytes, pace: Pace) -> Check:
    pace.begin(writer.rows)
    for page in row_pages(store, prefix, start, reserved=True):
        writer.add(page)
        pace.reach(writer.rows)
    return writer.end()


def _begun(file: IO[bytes], store: Store, prefix: bytes) -> tuple[Writer, bytes]:
    """A dump that is begun, from the first key on."""
    writer = Writer(file)
    writer.header(
        table=store.table.name,
        prefix=shown(prefix),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        by=f"hskv {__version__}",
        expires="milliseconds since the epoch; left out: never",
        kinds={str(kind.value): kind.name.lower() for kind in Kind},
    )
    return writer, b""


def _resumed(part: IO[bytes], store: Store, prefix: bytes) -> tuple[Writer, bytes]:
    """A dump that is gone on with, and from which key on; a block that is torn is made anew."""
    reader = Reader(part)
    if (reader.header["table"], reader.header["prefix"]) != (store.table.name, shown(prefix)):
        raise Failure("the dump that was stopped is of another table or prefix", Exit.USAGE)
    last = None
    with suppress(DumpError):
        for block in reader.blocks():
            last = block
    part.seek(reader.offset)
    part.truncate()
    start = last.rows()[-1][0] + _NEXT if last else b""
    return Writer(part, reader.digest, reader.rows), start


@contextmanager
def _stdout() -> Iterator[IO[bytes]]:
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()


@contextmanager
def _target(file: Path, *, resume: bool, overwrite: bool) -> Iterator[IO[bytes]]:
    """What becomes the file once it is whole, and stays beside it until then."""
    part = file.with_name(f"{file.name}.partial")
    _check_free(file, part, resume=resume, overwrite=overwrite)
    with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(f"another dump writes {part}", Exit.REFUSED) from None
        if not resume:
            opened.truncate()
        try:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        except BaseException:
            click.echo(f"{part} has what was done; --resume goes on with it", err=True)
            raise
    part.replace(file)


def _check_free(file: Path, part: Path, *, resume: bool, overwrite: bool) -> None:
    if resume and not part.exists():
        raise Failure(f"there is no {part} to go on with", Exit.USAGE)
    if file.exists() and not overwrite:
        raise Failure(f"{file} is there already; --overwrite replaces it", Exit.USAGE)
    if part.exists() and not resume and not overwrite:
        raise Failure(
            f"{part} is left of a dump that was stopped: --resume goes on with it, --overwrite "
            "begins again",
            Exit.USAGE,
        )
