"""Everything the doctor can find, by name: how grave it is, why it matters, what it takes to see.

docs/doctor.md has the same list, and a test compares them.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final, NamedTuple


class Severity(StrEnum):
    """How grave a finding is."""

    PROBLEM = "problem"
    """It does not work, loses or corrupts data, or lets anybody in."""
    WARNING = "warning"
    """It works, and will hurt one day."""


class Need(StrEnum):
    """What it takes to see something."""

    SQL = "sql"
    """A connection by SQL."""
    PROCESS = "process"
    """The right of the SQL user to see what other connections do."""
    SELECT = "select"
    """The right of the SQL user to see the table at all."""
    TRIGGER = "trigger"
    """The right of the SQL user to see the triggers of the table."""
    PORTS = "ports"
    """Both ports, with a login."""
    TABLE = "table"
    """The table, opened by HandlerSocket: which is done only where it is known to be no view."""


class Entry(NamedTuple):
    """What is known of a finding beforehand. `page` is a file in docs/.

    `needs` are what it takes to see it, or each of `instead`.
    """

    severity: Severity
    why: str
    page: str
    needs: frozenset[Need]
    instead: frozenset[Need]

    def is_seen(self, lacking: Collection[Need]) -> bool:
        """Whether it can be seen where something is lacking."""
        ways = [self.needs, *[self.instead] * bool(self.instead)]
        return any(way.isdisjoint(lacking) for way in ways)


def _problem(why: str, page: str, *needs: Need, instead: Collection[Need] = ()) -> Entry:
    return Entry(Severity.PROBLEM, why, page, frozenset(needs), frozenset(instead))


def _warning(why: str, page: str, *needs: Need, instead: Collection[Need] = ()) -> Entry:
    return Entry(Severity.WARNING, why, page, frozenset(needs), frozenset(instead))


_SERVER: Final = "docs/server.md"
_TABLES: Final = "docs/sessions.md"
_SECURITY: Final = "docs/security.md"
_REPLICATION: Final = "docs/replication.md"
_ERRORS: Final = "docs/errors.md"

CATALOGUE: Final[Mapping[str, Entry]] = {
    # The plugin and its ports.
    "plugin-missing": _problem(
        "Without the plugin HandlerSocket there is nothing to connect to.", _SERVER, Need.SQL
    ),
    "plugin-maturity": _problem(
        "HandlerSocket is of maturity beta, and MariaDB loads nothing below plugin_maturity.",
        _SERVER,
        Need.SQL,
    ),
    "port-unset": _problem(
        "HandlerSocket listens on no port that it was not given.", _SERVER, Need.SQL
    ),
    "ports-equal": _problem(
        "On one port for both, only the read listener starts, and it refuses writes.",
        _SERVER,
        Need.SQL,
    ),
    "bind-address": _problem(
        "Who reaches the ports and has the secret owns every database; one byte stops a listener "
        "before any login.",
        _SECURITY,
        Need.SQL,
        instead=[Need.PORTS],
    ),
    "port-refused": _problem(
        "Nothing listens where the URL says: MariaDB does not run, or was not told to listen "
        "there.",
        _SERVER,
    ),
    "port-silent": _problem(
        "A listener that accepts and never answers was stopped (a byte Q, a KILL of its thread), "
        "and comes back with a restart only.",
        _SECURITY,
    ),
    "port-foreign": _problem(
        "What listens there is not HandlerSocket, and gets a secret sent.", _SERVER
    ),
    "ports-crossed": _problem(
        "The read port refuses writes; reads on the write port lock rows and wait for all writers.",
        _SERVER,
        Need.PORTS,
    ),
    "ports-of-two-servers": _problem(
        "What is written to one server is not read from the other.", _REPLICATION, Need.TABLE
    ),
    "sql-of-another-server": _problem(
        "The server that SQL shows is not the one that HandlerSocket serves: what is found here "
        "of settings and tables may be another's.",
        _SERVER,
        Need.SQL,
        Need.SELECT,
        Need.TABLE,
    ),
    "writes-refused": _problem(
        "With read_only, or while another holds its write lock, HandlerSocket refuses writes.",
        _ERRORS,
        Need.PORTS,
    ),
    # Secrets.
    "secret-wrong": _problem("The server lets in nobody without its secret.", _SERVER),
    "secret-empty": _problem(
        "Whoever reaches the port needs no secret, and owns every database.", _SECURITY, Need.PORTS
    ),
    "secret-random": _warning(
        "The server makes up another secret at each start, and the clients are locked out.",
        _SERVER,
        Need.SQL,
    ),
    "secret-weak": _warning(
        "The server lets anybody try secrets as fast as they can.", _SECURITY, Need.PORTS
    ),
    # Settings.
    "threads-write": _warning(
        "Writers take turns all the same, and lose the commit that they would share.",
        "docs/performance.md",
        Need.SQL,
    ),
    "threads-read": _warning(
        "Each thread serves its connections one after the other: one that waits makes all wait.",
        "docs/performance.md",
        Need.SQL,
    ),
    "timeout-idle": _warning(
        "The connection of a client whose machine died keeps its tables open so long, and ALTER "
        "TABLE waits for it.",
        _SERVER,
        Need.SQL,
    ),
    "timeout-table-lock": _warning(
        "A table that SQL has locked stops every writer for so long.", _SERVER, Need.SQL
    ),
    "timeout-row-lock": _warning(
        "A write of up to three requests waits so long for each row that SQL has locked: the "
        "client gives up first, with OutcomeUnknownError.",
        _SERVER,
        Need.SQL,
    ),
    "timeout-not-in-effect": _warning(
        "HandlerSocket keeps the value from the start of the server: SET GLOBAL does not reach it.",
        _SERVER,
        Need.SQL,
    ),
    "autocommit": _problem(
        "What HandlerSocket writes is not committed, and it reads rows as they once were.",
        "docs/promises.md",
        Need.SQL,
    ),
    "flush-log": _problem(
        "A crash of mariadbd loses writes that were acknowledged.", "docs/promises.md", Need.SQL
    ),
    "rollback-on-timeout": _problem(
        "A write that waits too long for a row undoes its neighbours, which were acknowledged.",
        "docs/promises.md",
        Need.SQL,
    ),
    # Copies: replicas, Galera.
    "several-servers": _problem(
        "Writes by HandlerSocket stay on one server: a store refuses to write so to several.",
        _REPLICATION,
    ),
    "binary-log": _warning(
        "Writes by HandlerSocket reach no binary log: no replica and no point-in-time recovery "
        "has them.",
        _REPLICATION,
        Need.SQL,
    ),
    "galera": _problem(
        "Writes by HandlerSocket stay on this node, and a later change of such a row by SQL "
        "throws the node out of the cluster.",
        _REPLICATION,
        Need.SQL,
    ),
    "server-not-read-from": _warning(
        "A store that reads from several servers leaves this one out.", _REPLICATION
    ),
    "binary-log-missing": _problem(
        "Without a binary log no other server hears of a write.", _REPLICATION, Need.SQL
    ),
    "write-port-open": _warning(
        "What is written there reaches no other server; where nobody is to write, nobody should "
        "listen.",
        _REPLICATION,
        Need.SQL,
    ),
    # The table.
    "table-missing": _problem(
        "A store needs its table.", _SERVER, Need.SQL, Need.SELECT, instead=[Need.TABLE]
    ),
    "table-view": _problem(
        "The server crashes when HandlerSocket opens a view.",
        _SECURITY,
        Need.SQL,
        Need.SELECT,
        instead=[Need.TABLE],
    ),
    "table-partitioned": _problem(
        "The server crashes when HandlerSocket scans a partitioned table.",
        _SECURITY,
        Need.SQL,
        Need.SELECT,
        instead=[Need.TABLE],
    ),
    "table-versioned": _problem(
        "HandlerSocket writes no history, and SQL does not see its rows.",
        _TABLES,
        Need.SQL,
        Need.SELECT,
    ),
    "table-engine": _problem(
        "Scans need an index in the order of keys, and a write that was acknowledged should "
        "survive a crash: InnoDB.",
        _SERVER,
        Need.SQL,
        Need.SELECT,
        instead=[Need.TABLE],
    ),
    "table-trigger": _problem(
        "HandlerSocket fires no trigger: what it keeps in step is wrong.",
        _TABLES,
        Need.SQL,
        Need.SELECT,
        Need.TRIGGER,
    ),
    "table-check": _problem(
        "HandlerSocket checks no CHECK: what it keeps out gets in.", _TABLES, Need.SQL, Need.SELECT
    ),
    "table-unique": _problem(
        "HandlerSocket puts zero or nothing into columns that a store does not know: the second "
        "row is a duplicate.",
        _TABLES,
        Need.SQL,
        Need.SELECT,
    ),
    "column-missing": _problem(
        "A store uses every column that its Table has.",
        _TABLES,
        Need.SQL,
        Need.SELECT,
        instead=[Need.TABLE],
    ),
    "column-generated": _problem(
        "HandlerSocket writes wrong values into generated columns and their indexes.",
        _TABLES,
        Need.SQL,
        Need.SELECT,
    ),
    "column-auto-increment": _problem(
        "A key is what the client says; the server must not make up others.",
        _TABLES,
        Need.SQL,
        Need.SELECT,
    ),
    "column-default": _problem(
        "HandlerSocket evaluates no default that is not a constant, and puts zero or nothing "
        "there.",
        _TABLES,
        Need.SQL,
        Need.SELECT,
    ),
    "column-null": _problem(
        "NULL compares below every number, and counts as no change.", _TABLES, Need.SQL, Need.SELECT
    ),
    "key-index": _problem(
        "Without a unique index on the key alone there can be two rows of one key.",
        _SERVER,
        Need.SQL,
        Need.SELECT,
        instead=[Need.TABLE],
    ),
    "key-type": _problem(
        "The server answers for another key: by case, by spaces at the end, by number.",
        _TABLES,
        Need.SQL,
        Need.SELECT,
    ),
    "key-width": _problem(
        "The server cuts longer keys in silence, and reads or overwrites another's row.",
        _TABLES,
        Need.SQL,
        Need.SELECT,
    ),
    "value-type": _problem(
        "Values are bytes: other types change them in silence.", _TABLES, Need.SQL, Need.SELECT
    ),
    "value-width": _problem(
        "The server cuts longer values in silence.", _TABLES, Need.SQL, Need.SELECT
    ),
    "number-type": _problem(
        "Other types clip numbers, and times, in silence.", _TABLES, Need.SQL, Need.SELECT
    ),
    "expires-index": _warning(
        "Without an index on expires nothing frees the space of expired rows.",
        _SERVER,
        Need.SQL,
        Need.SELECT,
        instead=[Need.TABLE],
    ),
    "expires-index-descending": _problem(
        "By an index in descending order a purge would delete live rows.",
        _SERVER,
        Need.SQL,
        Need.SELECT,
    ),
    # What goes on.
    "expired-rows": _warning(
        "Expired rows take space until writers cull them, or a purge does.",
        "docs/caching.md",
        Need.TABLE,
    ),
    "metadata-lock": _problem(
        "While a statement waits for a table that clients have open, new SQL and new connections "
        "wait behind it.",
        "docs/ddl.md",
        Need.SQL,
        Need.PROCESS,
    ),
    "latency": _warning(
        "Each operation takes at least one round trip, and leases and limits more.",
        "docs/performance.md",
        Need.PORTS,
    ),
    "clock": _problem(
        "TTLs, leases and limits go by the clocks of the clients: another clock ends them at "
        "another time.",
        "docs/leases.md",
        Need.SQL,
    ),
    "sql-refused": _problem(
        "The URL of SQL leads to no server, or nobody with its user and password is let in.",
        "docs/doctor.md",
    ),
    "rights": _warning(
        "Without these rights the doctor does not see the triggers of the table, or what waits.",
        "docs/doctor.md",
        Need.SQL,
    ),
}
