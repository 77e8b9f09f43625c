"""A private MariaDB with HandlerSocket, in a directory of its own. Locks: none."""

import atexit
import os
import random
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

from ..client import Client
from ..exceptions import HandlerSocketError
from ..store.table import Table
from .process import (
    Keeper,
    as_server_user,
    closed_to_server_user,
    give_to_server_user,
    is_in_use,
    run,
)
from .programs import Programs, ServerStartError, find_programs

_POLL_SECONDS: Final = 0.02
_ATTEMPTS: Final = 5
# HandlerSocket listens before SQL does. It says nothing when it could not.
_LISTENER_SECONDS: Final = 1.0
# A server whose owner was just killed needs a moment to be gone.
_LOCK_SECONDS: Final = 1.0
_LOG_TAIL_LINES: Final = 30
# What the kernel takes for the path of a unix socket, less the longest name in our directory.
_LONGEST_DIRECTORY: Final = 107 - len("/write.sock")


class PrivateServer:
    """A MariaDB that belongs to this process, with database `hskv` and table `kv` in it.

    A context manager, or `start` and `stop`. Listens on unix sockets, with `tcp=True` for
    HandlerSocket on two free loopback ports; SQL is on a unix socket only. The data directory
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
        options: Mapping[str, str | int | None] | None = None,
        start_timeout: float = 15.0,
    ) -> None:
        self._programs: Programs = find_programs()
        self._tcp = tcp
        self._options = {name.replace("-", "_"): value for name, value in (options or {}).items()}
        self._start_timeout = start_timeout
        self._owner = os.getpid()
        self._keeper: Keeper | None = None
        self.secret = self._secret("handlersocket_plain_secret")
        self.write_secret = self._secret("handlersocket_plain_secret_wr")
        self._ports = ("", "")
        self._given_datadir = Path(datadir).absolute() if datadir is not None else None
        self._directory: Path | None = None

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.pid else "stopped"
        return f"<PrivateServer in {self._directory or 'no directory'}, {state}>"

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
        read, write = (quote(port, safe="/") for port in self._ports)
        login = f":{quote(self.secret, safe='')}@" if self.secret else ""
        write_secret = f"write_secret={quote(self.write_secret, safe='')}"
        if self._tcp:
            return f"hskv://{login}127.0.0.1:{read},{write}/hskv/kv?{write_secret}"
        return f"hskv+unix://{login}/hskv/kv?read={read}&write={write}&{write_secret}"

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
        for secret in filter(None, (self.secret, self.write_secret)):
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
                self._directory = _short_directory()
                atexit.register(self.close)
                give_to_server_user(self._directory)
            self._initialise(deadline)
            self._start_somewhere(deadline)
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
        self._ports = ("", "")
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)

    @property
    def _tmpdir(self) -> Path:
        directory = self.directory / "tmp"
        if not directory.exists():
            directory.mkdir(mode=0o700)
            give_to_server_user(directory)
        return directory

    def _secret(self, option: str) -> str:
        secret = self._options.get(option, secrets.token_hex(16))
        if not isinstance(secret, str):
            raise TypeError(f"{option} is a str (empty: no login), not {secret!r}")
        return secret

    def _initialise(self, deadline: float) -> None:
        datadir = self.datadir
        datadir.mkdir(parents=True, exist_ok=True)
        if (closed := closed_to_server_user(datadir)) is not None:
            raise ServerStartError(
                f"the user mysql cannot enter {closed}, so it cannot use {datadir}: "
                f"chmod o+x {closed}, or give another directory"
            )
        self._wait_for_the_lock()
        if (datadir / "mysql").is_dir():
            return
        give_to_server_user(datadir)
        there = set(datadir.iterdir())
        try:
            trouble = run(self._install_command(), max(0.0, deadline - time.monotonic()))
            if trouble is not None:
                raise ServerStartError(f"mariadb-install-db failed in {datadir}: {trouble}")
        except BaseException:
            # A half of the system tables would pass for all of them at the next start.
            _remove(set(datadir.iterdir()) - there)
            raise

    def _wait_for_the_lock(self) -> None:
        deadline = time.monotonic() + _LOCK_SECONDS
        while is_in_use(self.datadir):
            if time.monotonic() > deadline:
                raise ServerStartError(
                    f"{self.datadir} is in use by another server: stop that one, or give "
                    "another directory"
                )
            time.sleep(_POLL_SECONDS)

    def _install_command(self) -> list[str]:
        return [
            *as_server_user(self._programs.setpriv),
            self._programs.install_db,
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-name-resolve",
            "--skip-test-db",
            f"--datadir={self.datadir}",
            # Two servers that are made at once must not meet in the machine's own.
            f"--tmpdir={self._tmpdir}",
            "--innodb-log-file-size=8M",
            "--innodb-flush-log-at-trx-commit=0",
        ]

    def _start_somewhere(self, deadline: float) -> None:
        """Start; the first time on other ports when another program took one of ours."""
        choose = not self._ports[0]
        for _ in range(_ATTEMPTS if choose and self._tcp else 1):
            if choose:
                self._ports = _free_ports() if self._tcp else self._socket_paths()
            self._write_settings()
            self._spawn()
            trouble = self._wait(deadline, hurry=choose and self._tcp)
            if trouble is None:
                return
            ended = self.pid is None
            self._end(signal.SIGKILL)
            if ended or time.monotonic() > deadline:
                break
        raise ServerStartError(f"{trouble}; the end of its log:\n{self._log_tail()}")

    def _socket_paths(self) -> tuple[str, str]:
        return str(self.directory / "read.sock"), str(self.directory / "write.sock")

    def _settings(self) -> dict[str, str | int | None]:
        read, write = self._ports
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
            "handlersocket_port": read,
            "handlersocket_port_wr": write,
            "handlersocket_plain_secret": _quoted(self.secret),
            "handlersocket_plain_secret_wr": _quoted(self.write_secret),
            "handlersocket_threads": 16,
            "handlersocket_threads_wr": 1,
            "handlersocket_timeout": 300,
            "innodb_flush_log_at_trx_commit": 1,
            "innodb_lock_wait_timeout": 3,
            "lock_wait_timeout": 10,
            "innodb_buffer_pool_size": "64M",
            "innodb_log_file_size": "64M",
            "character_set_server": "utf8mb4",
            "skip_name_resolve": 1,
            "skip_networking": 1,
            **{name: value for name, value in self._options.items() if "secret" not in name},
        }

    def _write_settings(self) -> None:
        settings = self._settings().items()
        lines = [f"{name} = {value}" for name, value in settings if value is not None]
        _write_private(self.directory / "my.cnf", "\n".join(["[mariadbd]", *lines, ""]))
        table = Table("kv", database="hskv").create_sql().replace("\n", " ")
        table = table.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS", 1)
        _write_private(
            self.directory / "init.sql", f"CREATE DATABASE IF NOT EXISTS hskv;\n{table};\n"
        )

    def _spawn(self) -> None:
        command = [self._programs.mariadbd, f"--defaults-file={self.directory / 'my.cnf'}"]
        self._keeper = Keeper(self._programs.setpriv, command, self.directory / "log")
        self._keeper.start()

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

    def _log_tail(self) -> str:
        return "\n".join(self.log.splitlines()[-_LOG_TAIL_LINES:])


def _short_directory() -> Path:
    """A directory whose path leaves room for the name of a socket."""
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 mkdtemp makes a private one in it
        path = Path(parent, "hskv-12345678")
        if len(os.fsencode(path)) <= _LONGEST_DIRECTORY and not closed_to_server_user(path):
            return Path(tempfile.mkdtemp(prefix="hskv-", dir=parent))
    raise ServerStartError("set TMPDIR to a short path that the server's user may enter")


def _remove(paths: set[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
    give_to_server_user(path)


def _free_ports() -> tuple[str, str]:
    """Two free ports below those that the kernel gives out to clients."""
    ports: list[str] = []
    for port in random.sample(range(15000, 32000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(str(port))
        if len(ports) == 2:
            return ports[0], ports[1]
    raise ServerStartError("no two free ports were found between 15000 and 32000")
