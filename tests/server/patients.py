"""Servers that a test breaks, and treats by nothing but the lines that the doctor prints."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any, Final
from urllib.parse import quote

import pymysql

from hskv.mariadb import PrivateServer
from hskv.mariadb.doctor import Finding, Report, Where, examine

# What HandlerSocket is told of, and what it needs to be loaded.
HANDLERSOCKET: Final = (
    "handlersocket_address",
    "handlersocket_port",
    "handlersocket_port_wr",
    "handlersocket_plain_secret",
    "handlersocket_plain_secret_wr",
    "handlersocket_threads",
    "handlersocket_threads_wr",
    "handlersocket_timeout",
)


class Patient(PrivateServer):
    """A server with some settings broken, the URL that its client has, and that client's clock."""

    def __init__(self, **broken: str | int | None) -> None:
        super().__init__(tcp=True, sql_tcp=True)
        self._lines: dict[str, str | int | None] = broken
        self.start()
        self.client_url = self.url
        self.login: dict[str, Any] = self.sql
        self.clock_is_off_by = 0.0

    def _settings(self) -> dict[str, str | int | None]:
        return {**super()._settings(), **self._lines}

    def _check_handlersocket(self) -> None:
        # It may well be silent.
        pass

    def clock(self) -> float:
        return time.time() + self.clock_is_off_by

    def examine(self, *, by_sql: bool = True, **options: Any) -> Report:
        return examine(self.client_url, [self.login] if by_sql else [], clock=self.clock, **options)

    def ask(self, statement: str) -> tuple[tuple[Any, ...], ...]:
        with (
            closing(pymysql.connect(**self.sql, autocommit=True)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)
            return tuple(cursor.fetchall())

    def restart(self, **broken: str | int | None) -> None:
        """Start anew, with further settings broken."""
        self._end_quickly()
        self._lines |= broken
        self.start()

    def recover(self) -> None:
        """Be as at the start, whatever was done."""
        if self._lines or self.pid is None:
            self._end_quickly()
            self._lines = {}
            self.start()
        self.client_url, self.login, self.clock_is_off_by = self.url, self.sql, 0.0

    def _end_quickly(self) -> None:
        # With a binary log a crash leaves what only the same log can recover.
        if "log_bin" in self._lines:
            self.stop()
        self.kill()

    def treat(self, findings: Iterable[Finding]) -> None:
        """Do what is printed, no more and no less."""
        lines: dict[str, str | int | None] = {}
        answers: tuple[Any, ...] = ()
        for mend in [mend for finding in findings for mend in finding.mend]:
            if mend.where is Where.CONFIGURATION:
                name, _, value = mend.line.partition("=")
                secret = self.write_secret if name.strip().endswith("_wr") else self.secret
                lines[name.strip()] = value.strip().replace("***", secret)
            elif mend.where is Where.SQL:
                answers = sum(self.ask(mend.line), ())
            elif mend.where is Where.URL:
                self._use(mend.line, answers)
            else:
                self._run(_filled(mend.line, answers))
        if lines:
            self._lines |= lines
            self.restart()

    def _use(self, url: str, answers: tuple[Any, ...]) -> None:
        """Take a URL over, with one's secrets in the places that are left for them."""
        if url.startswith("mysql://"):
            match = re.fullmatch(r"mysql://(\w+):\*\*\*@([\d.]+):(\d+)/", url)
            assert match, url
            password = self._sql_password
            login = {"host": match[2], "port": int(match[3]), "database": "hskv"}
            self.login = {"user": match[1], "password": password, **login}
            return
        url = _filled(url, [quote(str(answer), safe="") for answer in answers])
        own, _, query = url.partition("?")
        query = query.replace("write_secret=***", f"write_secret={self.write_secret}")
        # Of SQL: root on its socket has no password.
        query = query.replace("root:***@", "root@").replace(":***@", f":{self._sql_password}@")
        self.client_url = own.replace(":***@", f":{quote(self.secret, safe='')}@") + "?" + query

    def _run(self, command: str) -> None:
        if command.startswith("systemctl"):
            assert command in ("systemctl restart mariadb", "systemctl start mariadb")
            self.restart()
        elif command == "timedatectl set-ntp true":
            # What it does; the machine's own clock is not ours to set.
            self.clock_is_off_by = 0.0
        elif command.startswith("(umask"):
            subprocess.run(["sh", "-c", command], check=True)
        else:
            program, *arguments = command.split()
            assert program == "hskv", command
            environment = {**os.environ, "HSKV_URL": self.client_url}
            hskv = [sys.executable, "-m", "hskv", *arguments]
            subprocess.run(hskv, env=environment, check=True, capture_output=True)


def _filled(line: str, answers: Sequence[Any]) -> str:
    """A line with what SQL answered in the places that are left for it."""
    for place, answer in zip(("FIRST", "SECOND"), answers, strict=False):
        line = line.replace(place, str(answer))
    return line


def ids(report: Report) -> set[str]:
    return {finding.id for finding in report.findings}


def of(report: Report, name: str) -> list[Finding]:
    found = [finding for finding in report.findings if finding.id == name]
    assert found, f"{name} was not found, but {ids(report)}"
    return found
