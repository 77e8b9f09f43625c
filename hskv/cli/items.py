"""`hskv get`, `set`, `add`, `delete`, `ttl` and `touch`: one key, as a store has it."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from ..store.expiry import DEFAULT, KEEP
from ..store.rows import find_row
from ..store.verbs import Row
from .app import App
from .exits import Exit
from .input import TYPES, typed_ttl, typed_value
from .keys import shown, typed_key
from .options import json_option, url_options
from .values import as_json, members, ttl_of, value_of

_Command = TypeVar("_Command", bound=Callable[..., Any])

KEY: Final = click.argument("key", type=typed_key, metavar="KEY")
TTL: Final = click.option(
    "--ttl",
    callback=typed_ttl,
    metavar="TTL",
    help="Seconds to live, or 15m, 12h, 7d, 2w, or never.",
)


def _value_options(command: _Command) -> _Command:
    value = click.argument("value", required=False)
    kind = click.option(
        "--type",
        "kind",
        type=click.Choice(TYPES),
        help="What the value is; else text, and bytes of a file or stdin.",
    )
    path = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
    file = click.option("--file", type=path, help="Take the value from a file; - is stdin.")
    return KEY(value(kind(file(TTL(command)))))


def missing(app: App, key: bytes) -> Exit:
    """Tell that there is no such key."""
    if app.json:
        app.emit(None)
    else:
        click.echo(f"hskv: there is no key {shown(key)}", err=True)
    return Exit.NO


@click.command()
@KEY
@click.option("--raw", is_flag=True, help="The bytes of the value column as they stand.")
@url_options
@json_option
@click.pass_obj
def get(app: App, key: bytes, raw: bool) -> Exit:
    """Print the value of a key; exit code 1 where it is missing.

    Bytes and text come exactly as they are stored, to a terminal escaped; anything else as a
    line of JSON.
    """
    with app.store(key) as store:
        row = find_row(store, key)
    if row is None:
        return missing(app, key)
    if app.json:
        app.emit(members(row._replace(key=key), time.time()))
    elif raw:
        _write(row.value)
    else:
        _write_value(row)
    return Exit.OK


def _write_value(row: Row) -> None:
    value = value_of(row)
    if isinstance(value, str):
        _write(value.encode())
    elif isinstance(value, bytes):
        _write(value)
    else:
        click.echo(as_json(value))


def _write(data: bytes) -> None:
    """Write exactly these bytes; to a terminal nothing that would upset it."""
    if sys.stdout.isatty():
        # Line ends and tabs are harmless.
        lines = data.decode("utf-8", "surrogateescape").split("\n")
        text = "\n".join("\t".join(map(_safe, line.split("\t"))) for line in lines)
        click.echo(text.removesuffix("\n"))
        return
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _safe(text: str) -> str:
    return shown(text.encode("utf-8", "surrogateescape"))


@click.command("set")
@_value_options
@click.option("--keep-ttl", is_flag=True, help="A key that is there expires when it did.")
@url_options
@json_option
@click.pass_obj
def set_(
    app: App, key: bytes, value: str | None, kind: str, file: Path, ttl: Any, keep_ttl: bool
) -> None:
    """Store a value, whatever was there.

    The VALUE is text unless --type says otherwise; without it, or as -, it comes from stdin.
    """
    if keep_ttl and ttl is not DEFAULT:
        raise click.UsageError("give --ttl or --keep-ttl, not both")
    content = typed_value(value, file, kind)
    with app.store(key) as store:
        store.set(key, content, KEEP if keep_ttl else ttl)
    if app.json:
        app.emit({"stored": True})


@click.command()
@_value_options
@url_options
@json_option
@click.pass_obj
def add(app: App, key: bytes, value: str | None, kind: str, file: Path, ttl: Any) -> Exit:
    """Store a value where the key is missing; exit code 1 where it is there.

    Of several who try at once one succeeds. VALUE as of `hskv set`.
    """
    content = typed_value(value, file, kind)
    with app.store(key) as store:
        stored = store.add(key, content, ttl)
    if app.json:
        app.emit({"stored": stored})
    elif not stored:
        click.echo(f"hskv: the key {shown(key)} is there already; nothing was stored", err=True)
    return Exit.OK if stored else Exit.NO


@click.command()
@click.argument("keys", type=typed_key, metavar="KEY...", nargs=-1, required=True)
@url_options
@json_option
@click.pass_obj
def delete(app: App, keys: tuple[bytes, ...]) -> Exit:
    """Remove keys; exit code 1 unless all of them were there."""
    with app.store(*keys) as store:
        count = store.delete_many(keys)
    asked = len(set(keys))
    if app.json:
        app.emit({"deleted": count})
    elif count < asked:
        click.echo(f"hskv: {asked - count} of {asked} keys were not there", err=True)
    return Exit.OK if count == asked else Exit.NO


@click.command()
@KEY
@url_options
@json_option
@click.pass_obj
def ttl(app: App, key: bytes) -> Exit:
    """Print how many seconds a key has left, or never; exit code 1 where it is missing."""
    with app.store(key) as store:
        row = find_row(store, key)
    if row is None:
        return missing(app, key)
    seconds = ttl_of(row, time.time())
    if app.json:
        app.emit({"ttl": seconds})
    else:
        click.echo("never" if seconds is None else seconds)
    return Exit.OK


@click.command()
@KEY
@click.argument("ttl", callback=typed_ttl, metavar="TTL")
@url_options
@json_option
@click.pass_obj
def touch(app: App, key: bytes, ttl: float | None) -> Exit:
    """Set when a key expires: in seconds, or 15m, 12h, 7d, 2w, or never.

    Its value stays. Exit code 1 where it is missing.
    """
    with app.store(key) as store:
        touched = store.touch(key, ttl)
    if not touched:
        return missing(app, key)
    if app.json:
        app.emit({"ttl": ttl})
    return Exit.OK
