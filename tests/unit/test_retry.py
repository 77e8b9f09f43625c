from itertools import pairwise

import pytest

from hskv import exceptions
from hskv.transport import retry
from hskv.transport.retry import ATTEMPTS, Effect, failure, pauses, repeatable

WRITES = (Effect.WRITE_ROW, Effect.WRITE)
SENT = [
    exceptions.IndexedConnectionError("broke"),
    exceptions.RequestTimeoutError("late"),
    exceptions.ProtocolError("nonsense"),
]
NOT_SENT = [
    exceptions.ConnectionError("refused"),
    exceptions.PoolTimeoutError("all in use"),
    exceptions.RecoverableConnectionError("broke before"),
]
OTHERS: list[BaseException] = [
    exceptions.LockTimeoutError("locked", code=1, reason="146"),
    exceptions.OperationalError("no", code=2, reason="op"),
    exceptions.OutcomeUnknownError("known to be unknown"),
    exceptions.TransactionAbortedError("deadlock", code=1, reason="149"),
    KeyboardInterrupt(),
    ValueError("bad name"),
]


def name(value: object) -> str:
    return value.name if isinstance(value, Effect) else type(value).__name__


@pytest.mark.parametrize("error", [*SENT, *NOT_SENT, *OTHERS], ids=name)
def test_the_failure_of_a_read_is_the_error_itself(error: BaseException) -> None:
    assert failure(error, Effect.READ) is error


@pytest.mark.parametrize("effect", WRITES, ids=name)
@pytest.mark.parametrize("error", SENT, ids=name)
def test_a_write_that_was_sent_has_an_unknown_outcome(error: Exception, effect: Effect) -> None:
    reported = failure(error, effect)
    assert type(reported) is exceptions.OutcomeUnknownError
    assert str(error) in str(reported)
    assert effect.value in str(reported)
    assert not repeatable(reported, effect)


@pytest.mark.parametrize("effect", WRITES, ids=name)
@pytest.mark.parametrize("error", [*NOT_SENT, *OTHERS], ids=name)
def test_other_failures_of_a_write_stay_as_they_are(error: BaseException, effect: Effect) -> None:
    assert failure(error, effect) is error


@pytest.mark.parametrize(
    ("error", "effects"),
    [
        (exceptions.ConnectionError("refused"), set(Effect)),
        (exceptions.RecoverableConnectionError("not sent"), set(Effect)),
        (exceptions.IndexedConnectionError("broke"), set(Effect)),
        (exceptions.RequestTimeoutError("late"), set(Effect)),
        (exceptions.LockTimeoutError("locked"), {Effect.READ, Effect.WRITE_ROW}),
        (exceptions.PoolTimeoutError("all in use"), set()),
        (exceptions.OutcomeUnknownError("unknown"), set()),
        (exceptions.TransactionAbortedError("deadlock"), set()),
        (exceptions.DuplicateKeyError("there"), set()),
        (exceptions.ProtocolError("nonsense"), set()),
        (exceptions.AuthenticationError("who?"), set()),
    ],
    ids=name,
)
def test_only_harmless_requests_are_repeatable(
    error: exceptions.HandlerSocketError, effects: set[Effect]
) -> None:
    assert {effect for effect in Effect if repeatable(error, effect)} == effects


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(retry, "monotonic", lambda: now[0])
    return now


def test_pauses_begin_with_none_and_grow(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 1.0)
    assert list(pauses(clock[0] + 100)) == [0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]


def test_pauses_are_jittered_and_one_fewer_than_the_attempts(clock: list[float]) -> None:
    for _ in range(20):
        taken = list(pauses(clock[0] + 100))
        assert len(taken) == ATTEMPTS - 1
        for pause, plain in zip(taken, (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0), strict=True):
            assert plain * 0.5 <= pause <= plain * 1.5


def test_pauses_end_where_the_next_one_would_pass_the_deadline(clock: list[float]) -> None:
    deadline = clock[0] + 0.1
    taken = []
    for pause in pauses(deadline):
        taken.append(pause)
        clock[0] += pause
    assert clock[0] < deadline
    assert 1 <= len(taken) < ATTEMPTS - 1


def test_there_is_no_pause_once_the_deadline_has_passed(clock: list[float]) -> None:
    assert list(pauses(clock[0])) == []


def test_two_rounds_of_pauses_differ(clock: list[float]) -> None:
    rounds = [tuple(pauses(clock[0] + 100)) for _ in range(5)]
    assert all(one != other for one, other in pairwise(rounds))
