"""A private MariaDB with HandlerSocket, in a directory of its own. Locks: none."""

import atexit
import os
import secrets
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

from ..client import Client
from ..exceptions import HandlerSocketError
from ..store.table import Table
from .files import (
    free_ports,
    install_datadir,
    own_directory,
    prepare_datadir,
    quoted,
    remove,
    short_directory,
    write_private,
    write_settings,
)
from .process import Keeper
from .programs import Programs, ServerStartError, find_programs

_POLL_SECONDS: Final = 0.02
_ATTEMPTS: Final = 5
# HandlerSocket listens before SQL does. It says nothing when it could not.
_LISTENER_SECONDS: Final = 1.0
_LOG_TAIL_LINES: Final = 30
_TAKEN_PORT: Final = "Address already in use"


class PrivateServer:
    """A MariaDB that belongs to this process, with database `hskv` and table `kv` in it.

    A context manager, or `start` and `stop`. Listens on unix sockets, with `tcp=True` for
    HandlerSocket on two free loopback ports; SQL is on a unix socket, with `sql_tcp=True` also
    on a free loopback port, for a user who owns the database: see `sql_url`. The data directory
    is removed at the end unless `datadir` was given. `options` are settings of mariadbd that
    beat the ones made here; None leaves one out. `start_timeout` is in seconds, all of a start
    included. It dies with its process, however that ends, and its directory is removed unless
    a signal ended that; a forked child can neither stop nor start it.

    Raises ServerStartError for missing programs and for a server that does not start.
    """

    def __init__(
        self,
        datadir: str | os.PathLike[str] | None = None,
        *,
        tcp: bool = False,
        sql_tcp: bool = False,
        options: Mapping[str, str | int | None] | None = None,
        start_timeout: float = 15.0,
    ) -> None:
        self._programs: Programs = find_programs()
        self._tcp = tcp
        self._sql_tcp = sql_tcp
        self._options = {name.replace("-", "_"): value for name, value in (options or {}).items()}
        self._start_timeout = start_timeout
        self._owner = os.getpid()
        self._keeper: Keeper | None = None
        self.secret = self._secret("handlersocket_plain_secret")
        self.write_secret = self._secret("handlersocket_plain_secret_wr")
        self._sql_password = secrets.token_hex(16)
        self._ports: dict[str, str] = {}
        self._given_datadir = Path(datadir).absolute() if datadir is not None else None
        self._directory: Path | None = None

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.pid else "stopped"
        return f"<{type(self).__name__} in {self._directory or 'no directory'}, {state}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def directory(self) -> Path:
        """Where its sockets, settings and log are, from `start` to `close`."""
        if self._directory is None:
            raise ServerStartError("this server was never started, or is closed: start it")
        return self._directory

    @property
    def datadir(self) -> Path:
        """Where its data is, from `start` to `close`; for ever where it was given."""
        return self._given_datadir or self.directory / "data"

    @property
    def pid(self) -> int | None:
        """The process id of mariadbd, None when it does not run."""
        return self._keeper.pid if self._keeper else None

    @property
    def url(self) -> str:
        """The URL that `hskv.connect` takes: database `hskv`, table `kv`."""
        read, write = (quote(self._ports.get(name, ""), safe="/") for name in ("read", "write"))
        login = f":{quote(self.secret, safe='')}@" if self.secret else ""
        write_secret = f"write_secret={quote(self.write_secret, safe='')}"
        if self._tcp:
            return f"hskv://{login}127.0.0.1:{read},{write}/hskv/kv?{write_secret}"
        return f"hskv+unix://{login}/hskv/kv?read={read}&write={write}&{write_secret}"

    @property
    def sql_url(self) -> str:
        """The SQL port and its user, as the option `sql` of a URL. Needs `sql_tcp=True`."""
        if not self._sql_tcp:
            raise ServerStartError("SQL listens on a unix socket only: pass sql_tcp=True")
        return f"mysql://hskv:{self._sql_password}@127.0.0.1:{self._ports.get('sql', '')}/"

    @property
    def sql(self) -> dict[str, Any]:
        """Keyword arguments for `pymysql.connect`."""
        return {
            "unix_socket": str(self.directory / "sql.sock"),
            "user": "root",
            "password": "",
            "database": "hskv",
        }

    @property
    def log(self) -> str:
        """The text of the server's log, its secrets masked."""
        try:
            text = (self.directory / "log").read_text(errors="replace")
        except (FileNotFoundError, ServerStartError):
            return ""
        for secret in filter(None, self._hidden):
            text = text.replace(secret, "***")
        return text

    def start(self) -> None:
        """Start the server, again on the same data, at the same URL, after `stop` or `kill`.

        Returns when both HandlerSocket listeners and SQL answer. Idempotent. Raises
        ServerStartError; data of an earlier start is then still there, until `close`.
        """
        if self.pid is not None:
            return
        if os.getpid() != self._owner:
            raise ServerStartError(
                "a forked child cannot start its parent's server: make a PrivateServer in it"
            )
        deadline = time.monotonic() + self._start_timeout
        new = self._directory is None
        try:
            if self._directory is None:
                self._directory = self._make_directory()
                atexit.register(self.close)
            self._start(deadline)
        except BaseException:
            # A server that ran before keeps its data.
            if new:
                self.close()
            else:
                self.kill()
            raise

    def stop(self) -> None:
        """Stop the server and keep its data, until `close`. Idempotent."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server by SIGKILL, as a crash would, and keep its data. Idempotent."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """Stop the server and remove its directory, and its data unless `datadir` was given."""
        if os.getpid() != self._owner:
            return
        # Data that is thrown away needs no orderly stop, which takes HandlerSocket a second.
        self._end(signal.SIGTERM if self._given_datadir else signal.SIGKILL)
        atexit.unregister(self.close)
        directory, self._directory = self._directory, None
        self._ports = {}
        if directory is not None:
            self._discard(directory)

    @property
    def _hidden(self) -> tuple[str, ...]:
        """What the log is not to show."""
        return self.secret, self.write_secret, self._sql_password

    @property
    def _tmpdir(self) -> Path:
        return own_directory(self.directory / "tmp")

    def _make_directory(self) -> Path:
        """Where its sockets, settings and log are to be."""
        return short_directory()

    def _discard(self, directory: Path) -> None:
        """What becomes of its directory in the end."""
        remove([directory])

    def _secret(self, option: str) -> str:
        secret = self._options.get(option, secrets.token_hex(16))
        if not isinstance(secret, str):
            raise TypeError(f"{option} is a str (empty: no login), not {secret!r}")
        return secret

    def _start(self, deadline: float) -> None:
        """Make the data where there is none, and the server answer."""
        prepare_datadir(self.datadir)
        install_datadir(self._programs, self.datadir, self._tmpdir, deadline)
        self._start_somewhere(deadline)

    def _start_somewhere(self, deadline: float) -> None:
        """Start; the first time on other ports when another program took one of ours."""
        choose = not self._ports
        for _ in range(_ATTEMPTS if choose else 1):
            if choose:
                self._ports = self._choose_ports()
            self._write_settings()
            self._spawn()
            trouble = self._wait(deadline, hurry=choose and self._tcp)
            if trouble is None:
                return
            ended = self.pid is None
            self._end(signal.SIGKILL)
            if time.monotonic() > deadline or (ended and _TAKEN_PORT not in self.log):
                break
        raise self._failed(ServerStartError, trouble)

    def _failed(self, kind: type[HandlerSocketError], trouble: object) -> HandlerSocketError:
        """An error that quotes the log."""
        tail = "\n".join(self.log.splitlines()[-_LOG_TAIL_LINES:])
        return kind(f"{trouble}; the end of its log:\n{tail}")

    def _choose_ports(self) -> dict[str, str]:
        names = self._port_names()
        sockets = {name: str(self.directory / f"{name}.sock") for name in ("read", "write")}
        return sockets | dict(zip(names, free_ports(len(names)), strict=True))

    def _port_names(self) -> list[str]:
        """What listens on TCP."""
        return ["read", "write"] * self._tcp + ["sql"] * self._sql_tcp

    def _settings(self) -> dict[str, str | int | None]:
        chosen = {name: value for name, value in self._options.items() if "secret" not in name}
        return {**self._own_settings(), **chosen}

    def _own_settings(self) -> dict[str, str | int | None]:
        return {
            "datadir": str(self.datadir),
            "tmpdir": str(self._tmpdir),
            "socket": str(self.directory / "sql.sock"),
            "pid_file": str(self.directory / "pid"),
            "init_file": str(self.directory / "init.sql"),
            "plugin_dir": self._programs.plugin_directory,
            "plugin_maturity": "beta",
            "plugin_load_add": "handlersocket",
            "handlersocket_address": "127.0.0.1" if self._tcp else "/",
            "handlersocket_port": self._ports["read"],
            "handlersocket_port_wr": self._ports["write"],
            "handlersocket_plain_secret": quoted(self.secret),
            "handlersocket_plain_secret_wr": quoted(self.write_secret),
            "handlersocket_threads": 16,
            "handlersocket_threads_wr": 1,
            "handlersocket_timeout": 300,
            "innodb_flush_log_at_trx_commit": 1,
            "innodb_lock_wait_timeout": 1,
            "lock_wait_timeout": 10,
            "innodb_buffer_pool_size": "64M",
            "innodb_log_file_size": "64M",
            "character_set_server": "utf8mb4",
            "skip_name_resolve": 1,
            **self._network(),
        }

    def _network(self) -> dict[str, str | int | None]:
        if self._sql_tcp:
            return {"bind_address": "127.0.0.1", "port": self._ports["sql"]}
        return {"skip_networking": 1}

    def _write_settings(self) -> None:
        write_settings(self.directory / "my.cnf", self._settings())
        users = user_statements(self._sql_password) if self._sql_tcp else []
        statements = [*table_statements(), *users]
        write_private(self.directory / "init.sql", "".join(f"{one};\n" for one in statements))

    def _spawn(self) -> None:
        command = [*self._command(), *self._arguments()]
        self._keeper = Keeper(self._programs.setpriv, command, self.directory / "log")
        self._keeper.start()

    def _command(self) -> list[str]:
        return [self._programs.mariadbd, f"--defaults-file={self.directory / 'my.cnf'}"]

    def _arguments(self) -> list[str]:
        """What is said on the command line, for one start alone."""
        return []

    def _wait(self, deadline: float, *, hurry: bool) -> str | None:
        """Wait until everything answers; what is wrong, when it does not in time.

        `hurry` where other ports can be tried: no HandlerSocket soon after SQL is trouble then.
        """
        listening = False
        while True:
            if self.pid is None:
                return "mariadbd ended while it started"
            try:
                self._check_sql()
                if hurry and not listening:
                    deadline = min(deadline, time.monotonic() + _LISTENER_SECONDS)
                listening = True
                self._check_handlersocket()
            except (OSError, HandlerSocketError) as error:
                if time.monotonic() > deadline:
                    return f"mariadbd did not answer in time ({error})"
                time.sleep(_POLL_SECONDS)
            else:
                return None

    def _check_sql(self) -> None:
        # SQL comes last in the start of the server, after the init file.
        with socket.socket(socket.AF_UNIX) as sql:
            sql.settimeout(1.0)
            sql.connect(self.sql["unix_socket"])
            if not sql.recv(1):
                raise OSError("SQL hung up")

    def _check_handlersocket(self) -> None:
        with Client(self.url, timeout=1.0, connect_timeout=1.0, pool_size=1) as client:
            index = client.open("kv", ["kind"])
            client.find(index, "=", [b"\x00"])
            # A write that finds no row: the write port must answer too.
            client.modify(index, "=", [b"\x00"], "D")

    def _end(self, number: signal.Signals) -> None:
        if self._keeper is not None and os.getpid() == self._owner:
            self._keeper.end(number)
            self._keeper = None


def table_statements() -> list[str]:
    """What makes the database and the table, where they are not there."""
    table = Table("kv", database="hskv").create_sql().replace("\n", " ")
    table = table.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS", 1)
    return ["CREATE DATABASE IF NOT EXISTS hskv", table]


def user_statements(password: str) -> list[str]:
    """What makes the user of the SQL port: it owns the database, and sees how the server is."""
    user = "'hskv'@'127.0.0.1'"
    return [
        f"CREATE OR REPLACE USER {user} IDENTIFIED BY '{password}'",
        f"GRANT ALL ON hskv.* TO {user}",
        f"GRANT BINLOG MONITOR, PROCESS, SLAVE MONITOR ON *.* TO {user}",
    ]
