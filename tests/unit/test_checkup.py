"""What a server says by SQL, and whether it may then be read from. No network."""

from typing import Any, NamedTuple

import pytest

from hskv.exceptions import OperationalError
from hskv.transport import checkup as checkup_module
from hskv.transport.checkup import Checkup, Examiner
from hskv.transport.sql_channel import Result

NAMES = (
    "Slave_IO_Running",
    "Slave_SQL_Running",
    "Seconds_Behind_Master",
    "Last_IO_Error",
    "Last_SQL_Error",
)


class Says(NamedTuple):
    """What a server answers: is it read-only, and the rows of its second answer."""

    read_only: bool
    rows: list[tuple[Any, ...]]


class Channel:
    """A connection that answers what a test has it answer, and then breaks."""

    timeout = 2.0
    column_names = NAMES

    def __init__(
        self, *answers: Says | OperationalError, galera: bool = False, autocommit: bool = True
    ) -> None:
        self.answers = list(answers)
        self.closed = False
        self.state = self
        self.wsrep_on = galera
        self.autocommit = autocommit

    def run(self, statements: bytes, count: int, deadline: float) -> Any:
        assert statements.count(b";") == count - 1 == 1
        if not self.answers:
            raise OSError("it went away")
        answer = self.answers.pop(0)
        if isinstance(answer, OperationalError):
            return [], answer
        rows = [
            tuple(None if cell is None else str(cell).encode() for cell in row)
            for row in answer.rows
        ]
        first = b"%d" % answer.read_only
        return [Result([(first,)], 1, 0), Result(rows, len(rows), 0)], None

    def close(self) -> None:
        self.closed = True


def examiner(channel: Any) -> Examiner:
    return Examiner(lambda: channel, max_lag=5.0)


PRIMARY = Says(False, [])
READ_ONLY = Says(True, [])


def asked(answer: Says, *, galera: bool = False) -> Checkup:
    return examiner(Channel(answer, galera=galera))()


def replica(receives: str = "Yes", applies: str = "Yes", lag: int | None = 0, *errors: str) -> Says:
    """One that follows a primary."""
    received, applied = errors or ("", "")
    return Says(True, [(receives, applies, lag, received, applied)])


def test_a_primary_is_well() -> None:
    assert asked(PRIMARY) == Checkup(None, primary=True)


def test_a_server_that_follows_nobody_and_takes_no_writes_is_not() -> None:
    assert asked(READ_ONLY) == Checkup("it is read-only, and replicates from nobody")


@pytest.mark.parametrize("galera", [False, True])
def test_a_server_whose_handlersocket_shows_what_once_was_is_not(galera: bool) -> None:
    trouble = examiner(Channel(PRIMARY, galera=galera, autocommit=False))().trouble
    assert trouble
    assert "set autocommit=1 in its configuration, and restart" in trouble


def test_what_handlersocket_shows_is_no_matter_where_sql_reads() -> None:
    channel: Any = Channel(PRIMARY, autocommit=False)
    assert Examiner(lambda: channel, 5.0, by_handlersocket=False)().trouble is None


def test_a_replica_that_follows_is_well_and_no_primary() -> None:
    assert asked(replica()) == Checkup(None)
    assert asked(replica(lag=4)) == Checkup(None)


def test_a_replica_exactly_as_far_behind_as_it_may_be_is_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A time to which five may not be added, and taken from again, without a loss.
    monkeypatch.setattr(checkup_module, "monotonic", lambda: 0.1)
    assert asked(replica(lag=5)) == Checkup(None)


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
    assert asked(replica(receives, applies, None, *errors)) == Checkup(trouble)


def test_a_replica_that_is_too_far_behind_is_not() -> None:
    assert asked(replica(lag=6)) == Checkup("it is 6 s behind, more than max_lag (5 s)")


def test_of_several_primaries_that_it_follows_each_must_be_well() -> None:
    both = Says(True, replica().rows + replica("No").rows)
    assert asked(both) == Checkup("replication is stopped")


@pytest.fixture
def pass_by(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets seconds pass."""
    now = 1000.0

    def pass_by(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(checkup_module, "monotonic", lambda: now)
    return pass_by


def test_a_replica_that_lost_its_primary_is_well_for_as_long_as_it_is_new_enough(
    pass_by: Any,
) -> None:
    lost = replica("Connecting", "Yes", None)
    examine = examiner(Channel(lost, replica(lag=2), lost, lost))
    trouble = "it lost its primary more than 5 s ago, or never had it"
    assert examine() == Checkup(trouble)
    assert examine() == Checkup(None)
    pass_by(2.9)
    assert examine() == Checkup(None)
    pass_by(0.2)
    assert examine() == Checkup(trouble)


@pytest.mark.parametrize("before", [replica(), PRIMARY])
def test_one_that_is_being_made_a_primary_or_a_replica_is_well_meanwhile(
    before: Says, pass_by: Any
) -> None:
    examine = examiner(Channel(before, READ_ONLY, READ_ONLY))
    examine()
    pass_by(4.9)
    assert examine() == Checkup(None)
    pass_by(0.2)
    assert examine() == Checkup("it is read-only, and replicates from nobody")


@pytest.mark.parametrize(
    ("ready", "state", "well"),
    [("ON", "4", True), ("OFF", "4", False), ("ON", "2", False), ("OFF", "0", False)],
)
def test_a_node_is_well_when_it_is_ready_and_synced(ready: str, state: str, well: bool) -> None:
    node = Says(False, [("wsrep_local_state", state), ("wsrep_ready", ready)])
    checkup = asked(node, galera=True)
    assert (checkup.trouble is None) is checkup.primary is well
    assert well or f"wsrep_ready {ready}, wsrep_local_state {state}" in str(checkup.trouble)


def test_a_node_that_is_read_only_is_well_and_no_primary() -> None:
    node = Says(True, [("wsrep_local_state", "4"), ("wsrep_ready", "ON")])
    assert asked(node, galera=True) == Checkup(None, primary=False)


def test_its_connection_is_kept_and_made_anew_when_it_broke() -> None:
    made: list[Any] = []

    def connect() -> Any:
        made.append(Channel(PRIMARY, PRIMARY))
        return made[-1]

    examine = Examiner(connect, max_lag=5.0)
    assert [examine(), examine()] == [Checkup(None, primary=True)] * 2
    assert examine() == Checkup("SQL failed: it went away")
    assert examine() == Checkup(None, primary=True)
    assert [one.closed for one in made] == [True, False]
    examine.close()
    examine.close()
    assert made[-1].closed


def test_what_the_server_refuses_to_tell_is_told() -> None:
    refusal = OperationalError("you need the SLAVE MONITOR privilege")
    assert examiner(Channel(refusal))() == Checkup(
        "SQL failed: you need the SLAVE MONITOR privilege"
    )


def test_a_server_that_cannot_be_reached_is_not_well() -> None:
    def refuse() -> Any:
        raise OSError("refused")

    assert Examiner(refuse, max_lag=5.0)() == Checkup("SQL failed: refused")
