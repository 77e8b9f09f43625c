"""`hskv drain`: a change of the table while nobody has it open."""

import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any, Final

import click

from ..mariadb.ddl import change_table, handlersocket_connections
from .app import App
from .exits import Exit, Failure
from .options import json_option, sql_options, url_options

_POLL_SECONDS: Final = 0.2


@click.command()
@click.argument("statement", required=False)
@click.option("--before", metavar="COMMAND", help="Run first: it makes the clients let go.")
@click.option("--after", metavar="COMMAND", help="Run last, whatever happened: they go on.")
@click.option("--timeout", type=click.FloatRange(min=0), default=30.0, show_default=True)
@url_options
@sql_options
@json_option
@click.pass_obj
def drain(
    app: App, statement: str | None, before: str | None, after: str | None, timeout: float
) -> None:
    """Wait until no client of HandlerSocket is connected; then run STATEMENT, if given.

    HandlerSocket keeps the tables that it has opened open for as long as anyone is connected,
    and ALTER, DROP, TRUNCATE and the like wait for that. This command cannot reach into other
    programs: they call client.drain() and, afterwards, client.resume(), or are stopped and
    started; --before and --after are shell commands that see to it. Needs SQL, by a user with
    PROCESS; of several hosts the first that takes writes runs the statement.
    """
    logins = app.sql_logins()
    let_go, go_on = _shell(app, before), _shell(app, after)
    began = time.monotonic()
    _tell_connections(app, logins)
    if statement:
        change_table(statement, logins, drain=let_go, resume=go_on, timeout=timeout)
    else:
        try:
            let_go()
            _wait(logins, timeout)
        finally:
            go_on()
    seconds = round(time.monotonic() - began, 3)
    if app.json:
        app.emit({"ran": statement, "seconds": seconds})
    else:
        click.echo(f"{'the statement was run' if statement else 'drained'}, after {seconds} s")


def _shell(app: App, command: str | None) -> Callable[[], None]:
    def run() -> None:
        if command and subprocess.run(command, shell=True, check=False).returncode:  # noqa: S602 the user's own
            raise Failure(f"failed: {command}", Exit.REFUSED)

    return run


def _counts(logins: list[dict[str, Any]]) -> list[int]:
    """HandlerSocket's connections on each server."""
    import pymysql

    with ExitStack() as stack:
        connections = [stack.enter_context(closing(pymysql.connect(**one))) for one in logins]
        return [handlersocket_connections(connection) for connection in connections]


def _tell_connections(app: App, logins: list[dict[str, Any]]) -> None:
    for login, count in zip(logins, _counts(logins), strict=True):
        place = login.get("unix_socket") or f"{login['host']}:{login['port']}"
        click.echo(f"{place}: connections to HandlerSocket: {count}", err=True)


def _wait(logins: list[dict[str, Any]], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while count := sum(_counts(logins)):
        if time.monotonic() > deadline:
            raise Failure(
                f"connections to HandlerSocket that are still open: {count}; stop the clients, or "
                "let them call client.drain()",
                Exit.REFUSED,
            )
        time.sleep(_POLL_SECONDS)
