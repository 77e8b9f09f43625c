"""What SQL says of the server: its variables, its plugin, what the SQL user may see."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ...store.schema import query
from ...store.table import Table, quoted
from .catalogue import Need
from .findings import Finding, Mend, Where

_VARIABLES: Final = (
    "autocommit",
    "innodb_flush_log_at_trx_commit",
    "innodb_lock_wait_timeout",
    "innodb_rollback_on_timeout",
    "lock_wait_timeout",
    "log_bin",
    "plugin_maturity",
    "read_only",
    "wsrep_on",
)


class Variable(NamedTuple):
    """A variable of the server, and where its value comes from: CONFIG, COMPILE-TIME, SQL, ..."""

    value: str
    origin: str


@dataclass(frozen=True)
class Server:
    """What SQL says of the server."""

    connection: Any
    variables: Mapping[str, Variable]
    plugin: bool

    def __getitem__(self, name: str) -> str:
        """The value of a variable, empty where there is none."""
        return self.variables[name].value if name in self.variables else ""

    def origin(self, name: str) -> str:
        """Where the value of a variable comes from."""
        return self.variables[name].origin if name in self.variables else ""

    def is_on(self, name: str) -> bool:
        """Whether a variable is ON."""
        return self[name] in ("ON", "1")

    def number(self, name: str) -> int:
        """The value of a variable that is a number."""
        return int(self[name] or 0)


def is_away(error: Exception) -> bool:
    """Whether an error of PyMySQL says that there is no server."""
    return bool(error.args) and error.args[0] in (2002, 2003)


def refusal(error: Exception, sql: Mapping[str, Any]) -> Finding:
    """The finding of an SQL server that cannot be had. `sql` is how it was to be reached."""
    number, *words = error.args
    what = f"{_name(sql)}: {words[0] if words else number}"
    if is_away(error):
        return Finding("sql-refused", what, (Mend(Where.SHELL, "systemctl start mariadb"),))
    user, path = f"{sql.get('user')}:***@", sql.get("unix_socket")
    url = f"mysql+unix://{user}{path}" if path else f"mysql://{user}{_name(sql)}/"
    return Finding("sql-refused", what, (Mend(Where.URL, url),))


def _name(sql: Mapping[str, Any]) -> str:
    return str(sql.get("unix_socket") or f"{sql.get('host')}:{sql.get('port', 3306)}")


def read_server(connection: Any) -> Server:
    """Ask a server by SQL; two queries that every user may ask."""
    names = ", ".join(f"'{name.upper()}'" for name in _VARIABLES)
    rows = query(
        connection,
        "SELECT LOWER(variable_name), global_value, global_value_origin "  # noqa: S608 constants
        "FROM information_schema.system_variables "
        f"WHERE variable_name LIKE 'HANDLERSOCKET%' OR variable_name IN ({names})",
    )
    variables = {name: Variable(value or "", origin) for name, value, origin in rows}
    active = query(
        connection,
        "SELECT 1 FROM information_schema.plugins "
        "WHERE plugin_name = 'handlersocket' AND plugin_status = 'ACTIVE'",
    )
    return Server(connection, variables, bool(active))


def missing_rights(connection: Any, table: Table) -> list[Need]:
    """What the SQL user may not do, of what the doctor needs.

    As far as information_schema tells: rights that come by a role are taken for missing.
    """
    grantee = _grantee(connection)
    everywhere = _rights(connection, "user_privileges", "grantee = %s", grantee)
    here = everywhere | _rights(
        connection,
        "schema_privileges",
        "grantee = %s AND %s LIKE table_schema",
        grantee,
        str(table.database),
    )
    here |= _rights(
        connection,
        "table_privileges",
        "grantee = %s AND table_schema = %s AND table_name = %s",
        grantee,
        str(table.database),
        table.name,
    )
    needed = {Need.PROCESS: everywhere, Need.SELECT: here, Need.TRIGGER: here}
    return [need for need, rights in needed.items() if need.upper() not in rights]


def rights_finding(connection: Any, table: Table, missing: list[Need]) -> Finding:
    """The finding of rights that are missing."""
    grantee = _grantee(connection)
    names = [need.upper() for need in missing]
    where = {"PROCESS": "*.*"}
    own = f"{quoted(str(table.database))}.*"
    mend = [
        Mend(Where.SQL, f"GRANT {name} ON {where.get(name, own)} TO {grantee}") for name in names
    ]
    what = f"the SQL user {grantee} has no {', '.join(names)}"
    return Finding("rights", what, tuple(mend))


def _grantee(connection: Any) -> str:
    """The SQL user, as GRANT has it."""
    user, _, host = query(connection, "SELECT CURRENT_USER()")[0][0].rpartition("@")
    return f"'{user}'@'{host}'"


def _rights(connection: Any, view: str, where: str, *arguments: str) -> set[str]:
    statement = f"SELECT privilege_type FROM information_schema.{view} WHERE {where}"  # noqa: S608
    return {row[0] for row in query(connection, statement, *arguments)}
