"""What a server says by SQL, and whether it may then be read from. No network."""

from typing import Any, Self

import pytest

from hskv.transport import checkup as checkup_module
from hskv.transport.checkup import Checkup, Examiner

Rows = list[tuple[Any, ...]]

PRIMARY = [(0, 0)]
READ_ONLY = [(1, 0)]
NODE = [(0, 1)]
NAMES = (
    "Slave_IO_Running",
    "Slave_SQL_Running",
    "Seconds_Behind_Master",
    "Last_IO_Error",
    "Last_SQL_Error",
)


class Connection:
    """Answers what a test has it answer; it is its own cursor."""

    def __init__(self, *answers: Rows) -> None:
        self.answers = list(answers)
        self.statements: list[str] = []
        self.closed = False
        self.description = [(name,) for name in NAMES]
        self._rows: Rows = []

    def cursor(self) -> "Connection":
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def execute(self, statement: str) -> None:
        self.statements.append(statement)
        if not self.answers:
            raise OSError("it went away")
        self._rows = self.answers.pop(0)

    def fetchall(self) -> Rows:
        return self._rows

    def close(self) -> None:
        if self.closed:
            raise OSError("Already closed")
        self.closed = True

    _force_close = close


def asked(*answers: Rows) -> Checkup:
    return Examiner(lambda: Connection(*answers), max_lag=5.0)()


def replica(
    receives: str = "Yes", applies: str = "Yes", lag: int | None = 0, *errors: str
) -> list[Rows]:
    """The answers of one that follows a primary."""
    received, applied = errors or ("", "")
    return [READ_ONLY, [(receives, applies, lag, received, applied)]]


def test_a_primary_is_well() -> None:
    assert asked(PRIMARY, []) == Checkup(None, primary=True)


def test_a_server_that_follows_nobody_and_takes_no_writes_is_not() -> None:
    assert asked(READ_ONLY, []) == Checkup("it is read-only, and replicates from nobody")


def test_a_replica_that_follows_is_well_and_no_primary() -> None:
    assert asked(*replica()) == Checkup(None)
    assert asked(*replica(lag=5)) == Checkup(None)


@pytest.mark.parametrize(
    ("receives", "applies", "errors", "trouble"),
    [
        ("Yes", "No", ("", ""), "replication is stopped"),
        ("No", "Yes", ("", ""), "replication is stopped"),
        ("Preparing", "Yes", ("", ""), "replication is stopped"),
        ("No", "Yes", ("1236", ""), "replication is stopped: 1236"),
        ("Yes", "No", ("", "1062"), "replication is stopped: 1062"),
    ],
)
def test_a_replica_that_is_stopped_is_not(
    receives: str, applies: str, errors: tuple[str, str], trouble: str
) -> None:
    assert asked(*replica(receives, applies, None, *errors)) == Checkup(trouble)


def test_a_replica_that_is_too_far_behind_is_not() -> None:
    assert asked(*replica(lag=6)) == Checkup("it is 6 s behind, more than max_lag (5 s)")


def test_of_several_primaries_that_it_follows_each_must_be_well() -> None:
    first, second = replica()[1], replica("No")[1]
    assert asked(READ_ONLY, first + second) == Checkup("replication is stopped")


def test_a_replica_that_lost_its_primary_is_well_for_as_long_as_it_is_new_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(checkup_module, "monotonic", lambda: now)
    lost = replica("Connecting", "Yes", None)
    connection = Connection(*lost, *replica(lag=2), *lost, *lost)
    examine = Examiner(lambda: connection, max_lag=5.0)
    trouble = "it lost its primary more than 5 s ago, or never had it"
    assert examine() == Checkup(trouble)
    assert examine() == Checkup(None)
    now += 2.9
    assert examine() == Checkup(None)
    now += 0.2
    assert examine() == Checkup(trouble)


@pytest.mark.parametrize(
    ("ready", "state", "well"),
    [("ON", "4", True), ("OFF", "4", False), ("ON", "2", False), ("OFF", "0", False)],
)
def test_a_node_is_well_when_it_is_ready_and_synced(ready: str, state: str, well: bool) -> None:
    checkup = asked(NODE, [("wsrep_local_state", state), ("wsrep_ready", ready)])
    assert (checkup.trouble is None) is checkup.primary is well
    assert well or f"wsrep_ready {ready}, wsrep_local_state {state}" in str(checkup.trouble)


def test_a_node_that_is_read_only_is_well_and_no_primary() -> None:
    status: Rows = [("wsrep_local_state", "4"), ("wsrep_ready", "ON")]
    assert asked([(1, 1)], status) == Checkup(None, primary=False)


def test_its_connection_is_kept_and_made_anew_when_it_broke() -> None:
    made: list[Connection] = []

    def connect() -> Connection:
        made.append(Connection(PRIMARY, [], PRIMARY, []))
        return made[-1]

    examine = Examiner(connect, max_lag=5.0)
    assert [examine(), examine()] == [Checkup(None, primary=True)] * 2
    assert examine() == Checkup("SQL failed: it went away")
    assert examine() == Checkup(None, primary=True)
    assert [one.closed for one in made] == [True, False]
    made[-1].closed = True
    examine.close()
    examine.close()


def test_a_server_that_cannot_be_reached_is_not_well() -> None:
    def refuse() -> None:
        raise OSError("refused")

    assert Examiner(refuse, max_lag=5.0)() == Checkup("SQL failed: refused")


def test_a_child_closes_its_copy_of_the_connection() -> None:
    connection = Connection(PRIMARY, [])
    examine = Examiner(lambda: connection, max_lag=5.0)
    examine.after_fork()
    examine()
    examine.after_fork()
    assert connection.closed
