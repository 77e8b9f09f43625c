"""What the commands share: the server they were given, and how they print."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import click

from ..transport.address import Settings, load_settings
from ..transport.sql_address import SqlLogin, parse_sql_url, pymysql_logins
from .exits import Exit, Failure

if TYPE_CHECKING:
    from rich.console import Console

    from .. import KeyValueStore

_NO_SERVER: Final = (
    "no server is named: set HSKV_URL, or give --url or --url-file "
    "(export HSKV_URL=$(hskv server start --quiet) starts one to try)"
)
_NO_SQL: Final = "this needs SQL: set HSKV_SQL, or give --sql or --sql-file"


class App:
    """What stood on the command line for all commands, and what they make of it.

    A command takes it by `@click.pass_obj`, and the options that it heeds from `options`.
    """

    def __init__(self) -> None:
        self.given_url: str | None = None
        self.given_sql: str | None = None
        self.json = False

    @property
    def url(self) -> str:
        """The URL of the server. Ends the command where none was given."""
        url = self.given_url or os.environ.get("HSKV_URL")
        if not url:
            raise Failure(_NO_SERVER, Exit.USAGE)
        return url

    @property
    def settings(self) -> Settings | None:
        """What the URL says, None where none was given. Ends the command for a wrong one."""
        url = self.given_url or os.environ.get("HSKV_URL")
        with usage():
            return load_settings(url) if url else None

    @property
    def has_sql(self) -> bool:
        """Whether the command was told of SQL."""
        return self._sql_login is not None

    def store(self, *keys: bytes) -> "KeyValueStore[bytes, Any]":
        """A store of bytes keys on the server; close it.

        Ends the command for a wrong URL, and for keys that the store cannot have.
        """
        from .. import KeyValueStore

        with usage():
            store = KeyValueStore(self.url, key_type=bytes)
            for key in keys:
                store.row_key(key)
        return store

    def sql(self) -> Any:
        """A PyMySQL connection to the first SQL host that answers, committed at once; close it.

        Raises PyMySQL's error of the first where none does.
        """
        import pymysql

        errors = []
        for login in self.sql_logins():
            try:
                return pymysql.connect(**login, autocommit=True)
            except pymysql.OperationalError as error:
                errors.append(error)
        raise errors[0]

    def sql_logins(self) -> list[dict[str, Any]]:
        """Keyword arguments for `pymysql.connect`, of each SQL host. Ends the command without."""
        login, settings = self._sql_login, self.settings
        if login is None:
            raise Failure(_NO_SQL, Exit.USAGE)
        with usage():
            return pymysql_logins(login, settings.database if settings else None)

    @property
    def _sql_login(self) -> SqlLogin | None:
        url = self.given_sql or os.environ.get("HSKV_SQL")
        if not url:
            settings = self.settings
            return settings.sql if settings else None
        with usage():
            login = parse_sql_url(url)
            beside = self.settings
        if beside is None or beside.sql is None or login.hosts[0].path:
            return login
        # Somebody else on the same servers, as an administrator is: encrypted as they are.
        return replace(login, tls=beside.sql.tls)

    @cached_property
    def console(self) -> "Console":
        """Where text for people goes: stdout, coloured on a terminal (NO_COLOR is heeded)."""
        from .consoles import console

        return console()

    @cached_property
    def notes(self) -> "Console":
        """Where progress and advice go: stderr."""
        from .consoles import console

        return console(stderr=True)

    def emit(self, value: object) -> None:
        """Print one line of JSON, for `--json`."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


@contextmanager
def usage() -> Iterator[None]:
    """Tells of a ValueError or TypeError inside it as of a mistake on the command line."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from None


def warn(message: str) -> None:
    """Print a warning on stderr."""
    click.secho(f"warning: {message}", err=True, fg="magenta")
