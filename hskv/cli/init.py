"""`hskv init`: the table, and what the server must be told."""

from contextlib import closing
from typing import Any, Final

import click

from ..mariadb.writable import connect_writable
from ..store.inspection import inspect_table
from ..store.table import Table
from .app import App
from .options import json_option, sql_options, url_options

# A client that looks for a table which is not there keeps its name locked.
_LOCK_SECONDS: Final = 10


@click.command()
@click.option("--database", metavar="NAME", help="The database; else that of the URL.")
@click.option("--table", "name", metavar="NAME", help="The table; else that of the URL, or kv.")
@click.option("--settings", is_flag=True, help="Print the settings for my.cnf alone.")
@url_options
@sql_options
@json_option
@click.pass_obj
def init(app: App, database: str | None, name: str | None, settings: bool) -> None:
    """Make the table by SQL, where that is named; else print what to do.

    That is the statement that makes the table, and the lines of my.cnf that load HandlerSocket:
    where the URL says, on loopback without one, with fresh secrets each time. A table that is
    there already is looked at, and left. Of several hosts of SQL the first that takes writes
    makes it: of a primary and its replicas the primary.
    """
    url = app.settings
    table_database = database or (url.database if url else None)
    table = Table(name or (url.table if url else None) or "kv", database=table_database)
    if app.has_sql and not settings:
        _make(app, table)
    else:
        _print(app, None if settings else table, table_database)


def _print(app: App, table: Table | None, database: str | None) -> None:
    """Print what to do: the statement, where a table is given, and the lines of my.cnf."""
    from .settings import my_cnf

    lines = my_cnf(app.url if app.settings else None, database)
    if app.json:
        statement = {"sql": table.create_sql()} if table else {}
        app.emit({**statement, "my_cnf": lines})
        return
    if table:
        click.echo(f"-- By SQL, or by hskv init --sql URL:\n{table.create_sql()};\n")
        click.echo("# In my.cnf; then restart the server:")
    click.echo(lines, nl=False)


def _make(app: App, table: Table) -> None:
    """Make the table, and its database, where they are not there."""
    if table.database is None:
        raise click.UsageError("in which database? Give --database, or a URL that names it")
    logins = ({**login, "database": None} for login in app.sql_logins())
    with closing(connect_writable(logins)) as connection:
        made = _made(connection, table)
        inspect_table(connection, table.name, database=table.database)
    if app.json:
        app.emit({"made": made, "database": table.database, "table": table.name})
    else:
        what = "was made" if made else "is there already, and fit for hskv"
        click.echo(f"the table {table.name} in {table.database} {what}")


def _made(connection: Any, table: Table) -> bool:
    there = "SELECT 1 FROM information_schema.{} WHERE table_schema = %s AND table_name = %s"
    with connection.cursor() as cursor:
        if cursor.execute(there.format("tables"), (table.database, table.name)):
            return False
        cursor.execute(f"SET SESSION lock_wait_timeout = {_LOCK_SECONDS}")
        if not cursor.execute(
            "SELECT 1 FROM information_schema.schemata WHERE schema_name = %s", (table.database,)
        ):
            cursor.execute("CREATE DATABASE `{}`".format(str(table.database).replace("`", "``")))
        cursor.execute(table.create_sql())
    return True
