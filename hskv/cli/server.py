"""`hskv server`: a private MariaDB whose data stays."""

import os
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any, Final, TypeVar

import click

from .app import App
from .exits import Exit, Failure
from .options import json_option

_Command = TypeVar("_Command", bound=Callable[..., Any])

# HandlerSocket takes a second or two to stop, InnoDB as long as it has to write.
_STOP_SECONDS: Final = 60.0


def default_directory() -> Path:
    """Where the server is kept unless told otherwise."""
    home = os.environ.get("XDG_DATA_HOME")
    if home:
        return Path(home, "hskv")
    # The server's user, as whom root runs mariadbd, may not enter root's home.
    return Path("/var/lib/hskv") if os.geteuid() == 0 else Path.home() / ".local/share/hskv"


def _directory_option(command: _Command) -> _Command:
    text = "Where its data is kept; else $XDG_DATA_HOME/hskv."
    kind = click.Path(file_okay=False, path_type=Path)
    option = click.option("--directory", type=kind, default=default_directory, help=text)
    return option(command)


def _start_options(command: _Command) -> _Command:
    settings = click.option(
        "--set",
        "settings",
        metavar="NAME=VALUE",
        multiple=True,
        callback=_pairs,
        help="A setting of mariadbd for this start; may be repeated.",
    )
    timeout = click.option(
        "--timeout",
        type=click.FloatRange(min=1),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="How long it may take until it answers.",
    )
    return _directory_option(settings(timeout(command)))


def _pairs(
    ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if not all(name and equals for name, equals, _ in pairs):
        raise click.BadParameter("a setting is NAME=VALUE, such as innodb_buffer_pool_size=1G")
    return {name: value for name, _, value in pairs}


@click.group()
def server() -> None:
    """A private MariaDB to try hskv with, or to keep: it starts at once, and its data stays."""


@server.command()
@_start_options
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Print its URL alone.")
@click.pass_obj
def start(app: App, directory: Path, settings: dict[str, str], timeout: float, quiet: bool) -> None:
    """Start it in the background. Prints its URL, which stays the same."""
    from ..mariadb import supervisor
    from ..mariadb.kept import kept_url

    started = supervisor.start(directory, settings, timeout)
    if quiet:
        click.echo(kept_url(directory.absolute()))
    else:
        pid = supervisor.supervisor_pid(directory)
        _show(app, directory, pid, "has started" if started else "runs already")


@server.command()
@_start_options
@json_option
@click.pass_obj
def run(app: App, directory: Path, settings: dict[str, str], timeout: float) -> None:
    """Run it in the foreground, until Ctrl-C or `hskv server stop`."""
    from ..mariadb import supervisor

    def ready() -> None:
        _show(app, directory, os.getpid(), "runs until Ctrl-C")

    trouble = supervisor.run(directory, settings, timeout, ready)
    if trouble:
        raise Failure(trouble, Exit.AWAY)
    click.echo("stopped; its data stays")


@server.command()
@_directory_option
def stop(directory: Path) -> None:
    """Stop it, and keep its data."""
    from ..mariadb import supervisor

    stopped = supervisor.stop(directory.absolute(), _STOP_SECONDS)
    click.echo("stopped; its data stays" if stopped else f"no server runs in {directory}")


@server.command()
@_directory_option
@json_option
@click.pass_obj
def status(app: App, directory: Path) -> Exit:
    """Tell whether it runs (exit code 0, else 1), and its URL."""
    from ..mariadb import supervisor

    if supervisor.is_ready(directory):
        _show(app, directory, supervisor.supervisor_pid(directory), "runs")
        return Exit.OK
    if app.json:
        app.emit({"running": False, "directory": str(directory.absolute())})
    else:
        click.echo(f"no server runs in {directory}; hskv server start starts one")
    return Exit.NO


def _show(app: App, directory: Path, pid: int | None, what: str) -> None:
    """Print where the server is, and what to do with it."""
    from ..mariadb.kept import kept_sql_url, kept_url

    directory = directory.absolute()
    url, sql = kept_url(directory), kept_sql_url(directory)
    if app.json:
        found = {"running": True, "pid": pid, "url": url, "sql": sql}
        app.emit({**found, "directory": str(directory), "log": str(directory / "log")})
        return
    click.secho(f"MariaDB {what}; its data stays in {directory}", fg="green")
    click.echo(f"export HSKV_URL={quote(url)}")
    click.echo(f"export HSKV_SQL={quote(sql)}")
