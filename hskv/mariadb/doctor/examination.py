"""The examination: what is looked at, in which order."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any, Final

from ...client import Client
from ...exceptions import HandlerSocketError
from ...store.table import Table
from ...transport.address import load_settings
from ...transport.sql_address import pymysql_logins
from .catalogue import Need, Severity
from .copies import copy_findings
from .findings import Finding, Report
from .listeners import Listener, probe_all
from .ports import bind_findings, listener_findings
from .server import Server, is_away, missing_rights, read_server, refusal, rights_finding
from .settings import plugin_findings, random_secrets, setting_findings, weak_secrets
from .tables import is_known, opened_findings, table_findings, waiting_statements
from .target import Target
from .traffic import canary_findings, clock_findings, expired_findings

_LIMITS: Final = {"autocommit": True, "connect_timeout": 5, "read_timeout": 10}


def examine(
    url: str,
    sql: Sequence[Mapping[str, Any]] = (),
    *,
    table: Table | None = None,
    clock: Callable[[], float] = time.time,
) -> Report:
    """Look at a server, its settings and the table of a URL, and say what is wrong.

    `sql` are keyword arguments for `pymysql.connect`, for each server that may be the one to write
    to; else what the option `sql` of the URL says. Without SQL neither the settings nor the
    columns of the table are seen. `table` is what the store takes its table for: that of the URL
    unless given. `clock` is the client's, in seconds. Writes and removes a row of its own, as
    `KeyValueStore.check` does; opens the table only where it is sure to be no view, and closes
    all its connections. Takes some seconds at most, where a port is silent.

    Raises ValueError for a URL that cannot be meant, and PyMySQL's errors where SQL goes away
    meanwhile.

    >>> report = examine(url)
    >>> report.healthy, report.verdict
    (True, 'healthy, as far as could be seen')
    """
    examination = _Examination(url, table, clock)
    with ExitStack() as stack:
        connection = examination.connect(sql)
        if connection is not None:
            stack.enter_context(closing(connection))
        examination.look_by_sql()
        examination.look_at_ports()
        examination.look_at_rows()
    return examination.report


class _Examination:
    """One examination: what the later steps know of the earlier ones."""

    def __init__(self, url: str, table: Table | None, clock: Callable[[], float]) -> None:
        self._target = Target(url, load_settings(url))
        table = table or Table(self._target.settings.table or "kv")
        database = table.database or self._target.settings.database
        self._table = replace(table, database=database)
        self._clock = clock
        self._server: Server | None = None
        self._listeners: tuple[Listener, ...] = ()
        self._table_is_known = False
        self._is_down = False
        self.report = Report(lacking={Need.SQL: "SQL was not given (--sql)"})

    def connect(self, sql: Sequence[Mapping[str, Any]]) -> Any:
        """A connection by SQL; None, and a finding, where there can be none.

        Of several servers, to one that can be written to.
        """
        named = self._target.settings.sql
        servers = sql or (pymysql_logins(named) if named is not None else ())
        for number, login in enumerate(servers, start=1):
            server = self._answering(login)
            if server is None:
                continue
            if server.is_on("read_only") and number < len(servers):
                server.connection.close()
                continue
            self._server, self._is_down = server, False
            del self.report.lacking[Need.SQL]
            return server.connection
        if servers:
            self.report.lacking[Need.SQL] = "SQL does not answer"
        return None

    def _answering(self, login: Mapping[str, Any]) -> Server | None:
        """What SQL says of a server; None, and a finding, where it says nothing."""
        import pymysql

        with ExitStack() as stack:
            try:
                connection = pymysql.connect(**{**login, **_LIMITS})
                stack.callback(connection.close)
                server = read_server(connection)
            except pymysql.err.Error as error:
                self._take([refusal(error, login)])
                self._is_down = is_away(error)
                return None
            stack.pop_all()
        return server

    def look_by_sql(self) -> None:
        """Settings and columns. First, since only SQL knows whether the table can be opened."""
        self._take(copy_findings(self._server, self._target))
        server = self._server
        if server is None:
            return
        if self._target.reads:
            self._take(plugin_findings(server, self._target))
        self._take(setting_findings(server, self._target))
        self._take(clock_findings(server, self._clock))
        self._take(waiting_statements(server))
        self._look_at_columns(server)

    def _look_at_columns(self, server: Server) -> None:
        missing = missing_rights(server.connection, self._table)
        if missing:
            self._take([rights_finding(server.connection, self._table, missing)])
            for need in missing:
                self.report.lacking[need] = f"the SQL user has no {need.upper()}"
        if Need.SELECT not in missing:
            found = table_findings(server, self._table, self._target)
            self._table_is_known = self._take(found)

    def look_at_ports(self) -> None:
        """What answers there, and who may ask."""
        if not self._target.reads:
            self.report.lacking[Need.PORTS] = "the URL reads and writes by SQL"
            return
        target, server = self._target, self._server
        self._listeners = listeners = probe_all(target.settings)
        if not all(listener.works for listener in listeners):
            self.report.lacking[Need.PORTS] = "a port does not answer, or lets nobody in"
        if server is not None:
            self._take(random_secrets(server, target))
        self._take(weak_secrets({one.side: one.secret for one in listeners}, target))
        self._take(bind_findings(listeners, server))
        found = listener_findings(listeners, server, target)
        # Of a server that is down, it is not to be said twice.
        self._take(one for one in found if not (self._is_down and one.id == "port-refused"))

    def look_at_rows(self) -> None:
        """What the table has in it, and whether a row gets through."""
        why = self._why_closed()
        if why is None:
            try:
                with Client.from_settings(self._target.settings) as client:
                    why = self._open(client)
            except HandlerSocketError as error:
                why = str(error)
        if why is not None:
            self.report.lacking[Need.TABLE] = why

    def _why_closed(self) -> str | None:
        """Why the table cannot be opened, if it cannot."""
        found = {finding.id for finding in self.report.findings}
        if not self._target.reads:
            return "the URL reads and writes by SQL"
        if not all(listener.right and not listener.other_secret for listener in self._listeners):
            return self.report.lacking.get(Need.PORTS, "the ports are not in order")
        if "several-servers" in found:
            return "a store refuses to write to several servers"
        if "metadata-lock" in found:
            return "to open the table now would wait, and make others wait"
        return "autocommit is off" if "autocommit" in found else None

    def _open(self, client: Client) -> str | None:
        """Use the table, where it may be opened; else the reason why not."""
        if not self._table_is_known:
            if self._server is not None and Need.SELECT not in self.report.lacking:
                return "the table has faults"
            if not is_known(client, self._table):
                return "only SQL can tell that the table is there, and is no view"
            if not self._take(opened_findings(client, self._table)):
                return "the table has faults"
        server = None if Need.SELECT in self.report.lacking else self._server
        self._take(canary_findings(client, self._table, server, self._target))
        self._take(expired_findings(client, self._table, self._clock))
        return None

    def _take(self, findings: Iterable[Finding]) -> bool:
        """Put findings into the report; whether there were no problems among them."""
        found = list(findings)
        for finding in found:
            self.report.add(finding)
        return all(finding.entry.severity is not Severity.PROBLEM for finding in found)
