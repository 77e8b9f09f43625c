"""Branches of a lease that a real server seldom takes: scripted outcomes, no server, no time."""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from hskv.exceptions import ConnectionError as LostConnectionError
from hskv.exceptions import (
    DuplicateKeyError,
    LeaseLostError,
    LockTimeoutError,
    OperationalError,
    OutcomeUnknownError,
    TransactionAbortedError,
)
from hskv.store import lease as lease_module
from hskv.store.lease import Lease
from hskv.store.values import Kind
from hskv.store.verbs import Add, Column, Condition, Delete, Find, Insert, Row, Update, Verb

NOW = 1_000_000.0
DUPLICATE = DuplicateKeyError("there", code=1, reason="121")
LOCKED = LockTimeoutError("locked", code=1, reason="146")
FULL = OperationalError("full", code=1, reason="135")
ABORTED = TransactionAbortedError("rolled back", code=1, reason="149")
UNKNOWN = OutcomeUnknownError("no reply")
UNREACHABLE = LostConnectionError("refused")
HELD_BY_ANOTHER = [DUPLICATE, 0]
EXTENDED = [1, [(b"0",)]]
LOST = [0, []]

Step = Sequence[Any] | Exception | Callable[[], Sequence[Any]]


class Script:
    """An executor that answers each packet by the next step, and the time that passes."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.asked: list[list[Verb]] = []
        self.now = 0.0
        self.slept: list[float] = []

    def execute(self, verbs: Sequence[Verb]) -> list[Any]:
        self.asked.append(list(verbs))
        assert self.steps, f"more is asked than the script says: {verbs}"
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        outcomes = list(step() if callable(step) else step)
        assert len(outcomes) == len(verbs)
        return outcomes

    def find_value(self, key: bytes, now: int) -> Any:
        raise NotImplementedError

    def find_kind(self, key: bytes, now: int) -> Any:
        raise NotImplementedError

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


Scripted = Callable[..., tuple[Lease, Script]]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """Makes a lease, and the script that it follows."""

    def make(*steps: Step, **options: Any) -> tuple[Lease, Script]:
        script = Script(*steps)
        monkeypatch.setattr(lease_module, "monotonic", lambda: script.now)
        monkeypatch.setattr(lease_module, "sleep", script.sleep)
        clock = lambda: NOW + script.now  # noqa: E731
        return Lease(script, b"k", 10.0, clock=clock, **options), script

    return make


def held(scripted: Scripted, *steps: Step, **options: Any) -> tuple[Lease, Script]:
    """A lease that was acquired."""
    taken = [True, 0, [(b"0",)]] if options.get("fence") else [True, 0]
    lease, script = scripted(taken, *steps, **options)
    assert lease.acquire(wait=False)
    script.asked.clear()
    return lease, script


def owned(lease: Lease) -> tuple[Condition, ...]:
    assert lease.token is not None
    return (Condition("version", "=", lease.token),)


def ends(milliseconds: float) -> list[Any]:
    """What a look at a row that ends so long from the beginning gives."""
    return [[(b"%d" % (NOW * 1000 + milliseconds),)]]


class TestTry:
    def test_it_inserts_or_takes_over_in_one_packet(self, scripted: Scripted) -> None:
        lease, script = scripted([True, 0], max_skew=1.5)
        assert lease.acquire(wait=False)
        expires = int(NOW * 1000) + 10_000
        over = (Condition("expires", "<=", int(NOW * 1000) - 1_500),)
        token = lease.token
        assert token
        row = Row(b"k", b"", 0, Kind.LEASE, token, expires)
        columns: tuple[Column, ...] = ("version", "expires")
        assert script.asked == [[Insert(row), Update(b"k", over, columns, (token, expires))]]

    def test_a_part_of_a_millisecond_of_skew_counts_whole(self, scripted: Scripted) -> None:
        lease, script = scripted(HELD_BY_ANOTHER, max_skew=0.0001)
        assert not lease.acquire(wait=False)
        (_, update) = script.asked[0]
        assert isinstance(update, Update)
        assert update.where[0].value == int(NOW * 1000) - 1

    @pytest.mark.parametrize("outcomes", [[True, 0], [DUPLICATE, 1], [True, 1]])
    def test_either_of_both_makes_it_the_holder(
        self, scripted: Scripted, outcomes: list[Any]
    ) -> None:
        lease, _ = scripted(outcomes)
        assert lease.acquire(wait=False)
        assert lease.held

    @pytest.mark.parametrize("outcomes", [[DUPLICATE, 0, []], [True, 0, []], [DUPLICATE, 1, []]])
    def test_with_a_fence_only_the_last_verb_does(
        self, scripted: Scripted, outcomes: list[Any]
    ) -> None:
        # Between the parts of a packet another may take what was made free.
        lease, _ = scripted(outcomes, fence=True)
        assert not lease.acquire(wait=False)
        assert lease.token is None

    def test_with_a_fence_it_makes_a_free_row_and_takes_that(self, scripted: Scripted) -> None:
        lease, script = scripted([DUPLICATE, 1, [(b"6",)]], fence=True)
        assert lease.acquire(wait=False)
        assert lease.fence == 7
        insert, over, add = script.asked[0]
        assert insert == Insert(Row(b"k", b"", 0, Kind.LEASE, 0, 0))
        assert isinstance(over, Update)
        assert over.cells == (0, 0)
        assert isinstance(add, Add)
        assert set(add.where) == {Condition("expires", "=", 0), Condition("version", "=", 0)}
        assert add.deltas == (1, lease.token, int(NOW * 1000) + 10_000)

    @pytest.mark.parametrize("outcomes", [[FULL, 0], [DUPLICATE, LOCKED], [LOCKED, LOCKED]])
    def test_an_error_of_the_server_is_raised(
        self, scripted: Scripted, outcomes: list[Any]
    ) -> None:
        lease, _ = scripted(outcomes)
        with pytest.raises(OperationalError):
            lease.acquire()
        assert not lease.held

    def test_an_error_of_the_last_verb_of_a_fence_is_raised(self, scripted: Scripted) -> None:
        lease, _ = scripted([DUPLICATE, 0, LOCKED], fence=True)
        with pytest.raises(LockTimeoutError):
            lease.acquire()
        assert not lease.held

    def test_what_the_server_rolled_back_is_not_held(self, scripted: Scripted) -> None:
        lease, script = scripted([ABORTED, ABORTED])
        with pytest.raises(TransactionAbortedError):
            lease.acquire()
        assert not lease.held
        assert len(script.asked) == 1

    @pytest.mark.parametrize("answer", [[1], [0], UNKNOWN, UNREACHABLE, [LOCKED]])
    def test_without_a_reply_its_own_token_is_freed_once(
        self, scripted: Scripted, answer: Step
    ) -> None:
        lease, script = scripted(UNKNOWN, answer)
        with pytest.raises(OutcomeUnknownError, match="no reply"):
            lease.acquire()
        (insert, _), (free,) = script.asked
        assert isinstance(insert, Insert)
        assert free == Delete((b"k",), (Condition("version", "=", insert.row.version),))
        assert not lease.held

    def test_without_a_reply_a_fence_stays_in_its_row(self, scripted: Scripted) -> None:
        lease, script = scripted(UNKNOWN, [1], fence=True)
        with pytest.raises(OutcomeUnknownError):
            lease.acquire()
        add, free = script.asked[0][-1], script.asked[1][0]
        assert isinstance(add, Add)
        mine = (Condition("version", "=", add.deltas[1]),)
        assert free == Update(b"k", mine, ("version", "expires"), (0, 0))

    def test_what_was_never_sent_is_not_freed(self, scripted: Scripted) -> None:
        lease, script = scripted(UNREACHABLE)
        with pytest.raises(LostConnectionError):
            lease.acquire()
        assert len(script.asked) == 1

    def test_each_attempt_has_a_token_of_its_own(self, scripted: Scripted) -> None:
        tokens = set()
        for _ in range(200):
            lease, _ = held(scripted)
            tokens.add(lease.token)
        assert len(tokens) == 200
        assert all(0 < token < 1 << 62 for token in tokens if token is not None)

    @pytest.mark.parametrize("wait", [math.nan, -1, -math.inf])
    def test_a_wait_that_is_no_time_is_refused(self, scripted: Scripted, wait: float) -> None:
        lease, _ = scripted()
        with pytest.raises(ValueError, match="wait"):
            lease.acquire(wait)


class TestPause:
    def test_it_sleeps_around_poll_while_the_end_is_far(self, scripted: Scripted) -> None:
        looks = [ends(1e9) for _ in range(300)]
        lease, script = scripted(HELD_BY_ANOTHER, *looks, ends(0), [True, 0], poll=0.2)
        assert lease.acquire()
        slept = script.slept[:-1]
        assert all(0.1 <= pause <= 0.3 for pause in slept)
        assert min(slept) < 0.13
        assert max(slept) > 0.27

    def test_it_sleeps_no_longer_than_until_the_end_and_the_skew(self, scripted: Scripted) -> None:
        lease, script = scripted(HELD_BY_ANOTHER, ends(250), [DUPLICATE, 1], poll=60, max_skew=0.5)
        assert lease.acquire()
        assert script.slept == [pytest.approx(0.75)]

    @pytest.mark.parametrize("look", [[[]], [[(b"0",)]], ends(-5_000)])
    def test_it_comes_again_at_once_where_it_is_free(
        self, scripted: Scripted, look: list[Any]
    ) -> None:
        lease, script = scripted(HELD_BY_ANOTHER, look, [True, 0])
        assert lease.acquire()
        assert script.slept == [0.001]

    def test_it_sleeps_no_longer_than_it_may_wait(self, scripted: Scripted) -> None:
        lease, script = scripted(HELD_BY_ANOTHER, ends(1e9), ends(1e9), poll=60)
        assert not lease.acquire(wait=2.5)
        assert script.slept == [2.5]
        assert [len(verbs) for verbs in script.asked] == [2, 1, 1]

    def test_it_looks_at_nothing_but_the_end(self, scripted: Scripted) -> None:
        lease, script = scripted(HELD_BY_ANOTHER, ends(-5_000), [True, 0])
        assert lease.acquire()
        assert script.asked[1] == [Find((b"k",), ("expires",))]

    @pytest.mark.parametrize("look", [[LOCKED], UNREACHABLE])
    def test_an_error_of_the_look_is_raised(self, scripted: Scripted, look: Step) -> None:
        lease, _ = scripted(HELD_BY_ANOTHER, look)
        with pytest.raises((LockTimeoutError, LostConnectionError)):
            lease.acquire()
        assert not lease.held


class TestRelease:
    @pytest.mark.parametrize("again", [[1], [0]])
    def test_without_a_reply_it_is_repeated_whichever_did_it(
        self, scripted: Scripted, again: list[int]
    ) -> None:
        lease, script = held(scripted, UNKNOWN, again)
        free = Delete((b"k",), owned(lease))
        lease.release()
        assert script.asked == [[free], [free]]

    def test_after_the_end_a_repetition_cannot_tell_and_says_lost(self, scripted: Scripted) -> None:
        lease, script = held(scripted, UNKNOWN, [0])
        script.now = 10.0
        with pytest.raises(LeaseLostError):
            lease.release()

    def test_with_a_fence_it_frees_the_row_and_leaves_it(self, scripted: Scripted) -> None:
        lease, script = held(scripted, [1], fence=True)
        mine = owned(lease)
        lease.release()
        assert script.asked == [[Update(b"k", mine, ("version", "expires"), (0, 0))]]

    def test_it_is_repeated_once_only(self, scripted: Scripted) -> None:
        lease, script = held(scripted, UNKNOWN, OutcomeUnknownError("again"))
        with pytest.raises(OutcomeUnknownError, match="again"):
            lease.release()
        assert len(script.asked) == 2
        assert not lease.held

    @pytest.mark.parametrize("steps", [[[LOCKED]], [UNKNOWN, [LOCKED]], [[FULL]]])
    def test_an_error_of_the_server_is_raised(self, scripted: Scripted, steps: list[Step]) -> None:
        lease, _ = held(scripted, *steps)
        with pytest.raises(OperationalError):
            lease.release()
        assert lease.token is None

    def test_what_was_lost_is_not_held_any_more(self, scripted: Scripted) -> None:
        lease, _ = held(scripted, [0])
        with pytest.raises(LeaseLostError):
            lease.release()
        with pytest.raises(RuntimeError):
            lease.release()


MINE = [(b"1",)]
EXTENDED = [1, MINE]


class TestExtend:
    def test_it_moves_the_end_of_its_own_row_alone_and_never_back(self, scripted: Scripted) -> None:
        lease, script = held(scripted, EXTENDED)
        script.now = 4.0
        lease.extend(20)
        mine, expires = owned(lease), int((NOW + 24) * 1000)
        sooner = (*mine, Condition("expires", "<", expires))
        assert script.asked == [
            [
                Update(b"k", sooner, ("expires",), (expires,)),
                Find((b"k",), ("expires",), mine),
            ]
        ]

    def test_where_the_row_ends_later_already_it_is_no_loss(self, scripted: Scripted) -> None:
        lease, script = held(scripted, [0, [(b"9",)]])
        lease.extend(2)
        script.now = 9.5
        assert lease.held
        script.now = 10.0
        assert not lease.held

    def test_without_a_reply_it_is_repeated_with_the_same_end(self, scripted: Scripted) -> None:
        lease, script = held(scripted, UNKNOWN, EXTENDED)
        lease.extend()
        first, again = script.asked
        assert first == again

    def test_an_error_promises_nothing_new(self, scripted: Scripted) -> None:
        lease, script = held(scripted, [LOCKED, []], [1, LOCKED], UNKNOWN, UNKNOWN)
        script.now = 5.0
        for error in (LockTimeoutError, LockTimeoutError, OutcomeUnknownError):
            with pytest.raises(error):
                lease.extend(100)
        script.now = 9.5
        assert lease.held
        script.now = 10.0
        assert not lease.held

    def test_the_time_that_it_takes_is_not_trusted(self, scripted: Scripted) -> None:
        def slowly() -> list[Any]:
            script.now += 7
            return EXTENDED

        lease, script = held(scripted, slowly)
        script.now = 5.0
        lease.extend()
        script.now = 14.5
        assert lease.held
        script.now = 15.0
        assert not lease.held

    @pytest.mark.parametrize("outcomes", [EXTENDED, LOST])
    def test_one_that_was_released_meanwhile_stays_released(
        self, scripted: Scripted, outcomes: list[Any]
    ) -> None:
        def released() -> list[Any]:
            lease.release()
            return outcomes

        lease, _ = held(scripted, released, [1])
        with pytest.raises(RuntimeError, match="released"):
            lease.extend()
        assert lease.token is None

    @pytest.mark.parametrize("outcomes", [EXTENDED, LOST])
    def test_one_that_another_thread_acquired_anew_is_not_meant(
        self, scripted: Scripted, outcomes: list[Any]
    ) -> None:
        def acquired_anew() -> list[Any]:
            lease.release()
            lease.acquire(wait=False)
            return outcomes

        lease, script = held(scripted, acquired_anew, [1], [True, 0])
        with pytest.raises(RuntimeError, match="released"):
            lease.extend(1000)
        assert lease.held
        script.now = 10.0
        assert not lease.held

    @pytest.mark.parametrize(("first", "second"), [(100, 2), (2, 100)])
    def test_two_at_once_trust_what_the_server_has(
        self, scripted: Scripted, first: float, second: float
    ) -> None:
        row = [int((NOW + 10) * 1000)]

        def carried_out() -> list[Any]:
            (update, _) = script.asked[-1]
            return applied(update)

        def overtaken() -> list[Any]:
            (late, _) = script.asked[-1]
            lease.extend(second)
            return applied(late)

        def applied(update: Verb) -> list[Any]:
            assert isinstance(update, Update)
            (end,), limit = update.cells, update.where[-1]
            assert limit == Condition("expires", "<", end)
            row[0] = max(row[0], int(end))
            return EXTENDED

        lease, script = held(scripted, overtaken, carried_out)
        lease.extend(first)
        assert row == [int((NOW + 100) * 1000)]
        script.now = 99.0
        assert lease.held
        script.now = 100.0
        assert not lease.held


class TestRenewal:
    def test_a_release_meanwhile_is_no_loss(
        self, scripted: Scripted, caplog: pytest.LogCaptureFixture
    ) -> None:
        renewed = threading.Event()

        def released() -> list[Any]:
            lease.release()
            renewed.set()
            return LOST

        lease, _ = scripted([True, 0], released, [1], renew=True)
        lease.ttl = 0.03
        lease.acquire(wait=False)
        assert renewed.wait(10)
        join_renewals()
        assert caplog.text == ""

    def test_a_loss_is_logged_and_ends_it(
        self, scripted: Scripted, caplog: pytest.LogCaptureFixture
    ) -> None:
        lease, script = scripted([True, 0], LOST, renew=True)
        lease.ttl = 0.03
        lease.acquire(wait=False)
        join_renewals()
        assert script.steps == []
        assert "another took it over" in caplog.text

    def test_a_failure_is_logged_and_tried_again(
        self, scripted: Scripted, caplog: pytest.LogCaptureFixture
    ) -> None:
        lease, script = scripted([True, 0], UNREACHABLE, [LOCKED, []], EXTENDED, LOST, renew=True)
        lease.ttl = 0.03
        lease.acquire(wait=False)
        join_renewals()
        assert script.steps == []
        assert caplog.text.count("it is tried again") == 2


def join_renewals() -> None:
    for thread in threading.enumerate():
        if thread.name == "hskv-lease-renewal":
            thread.join(10)
            assert not thread.is_alive()
