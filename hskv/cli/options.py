"""Options that several commands have; they may stand before the command or behind it."""

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from .app import App, warn
from .sql import holds_password

_Command = TypeVar("_Command", bound=Callable[..., Any])

_FILE: Final = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
_SHOWN: Final = "{} shows its password in the list of processes: set {}, or use {}-file"


def url_options(command: _Command) -> _Command:
    """--url and --url-file: the server."""
    name = _option("--url", _set_url, metavar="URL", help="The server; else HSKV_URL.")
    file = _option("--url-file", _set_url_file, type=_FILE, help="A file with the URL in it.")
    return name(file(command))  # type: ignore[no-any-return]


def sql_options(command: _Command) -> _Command:
    """--sql and --sql-file: the same server by SQL."""
    text = "SQL: mysql://USER:PASSWORD@HOST/; else HSKV_SQL."
    name = _option("--sql", _set_sql, metavar="URL", help=text)
    file = _option("--sql-file", _set_sql_file, type=_FILE, help="A file with that URL in it.")
    return name(file(command))  # type: ignore[no-any-return]


def json_option(command: _Command) -> _Command:
    """--json: print for programs."""
    text = "Print JSON, for programs."
    return _option("--json", _set_json, is_flag=True, help=text)(command)  # type: ignore[no-any-return]


def _option(name: str, callback: Callable[..., None], **settings: Any) -> Callable[..., Any]:
    return click.option(name, expose_value=False, callback=callback, **settings)


def _set_url(ctx: click.Context, parameter: click.Parameter, url: str | None) -> None:
    if url is not None:
        ctx.ensure_object(App).given_url = url
        if holds_password(url):
            warn(_SHOWN.format("--url", "HSKV_URL", "--url"))


def _set_url_file(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    if path is not None:
        ctx.ensure_object(App).given_url = _read(path)


def _set_sql(ctx: click.Context, parameter: click.Parameter, url: str | None) -> None:
    if url is not None:
        ctx.ensure_object(App).given_sql = url
        if holds_password(url):
            warn(_SHOWN.format("--sql", "HSKV_SQL", "--sql"))


def _set_sql_file(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    if path is not None:
        ctx.ensure_object(App).given_sql = _read(path)


def _set_json(ctx: click.Context, parameter: click.Parameter, chosen: bool) -> None:
    app = ctx.ensure_object(App)
    app.json = app.json or chosen


def _read(path: Path) -> str:
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} cannot be read: {error}") from None
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        warn(f"other users may read {path}: chmod 600 {path}")
    return text
