"""Rate limits on the real server: what each call does, and 8 processes on one identity."""

import inspect
import logging
import math
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from typing import Any, NamedTuple

import pytest

import hskv
from hskv import Decision, KeyValueStore, RateLimitExceededError, RequestInfo, Table
from hskv.exceptions import ConnectionError as NoConnectionError
from hskv.mariadb import PrivateServer

Store = KeyValueStore[str, Any]
SPAWN = multiprocessing.get_context("spawn")
STRATEGIES: list[Any] = ["fixed-window", "sliding-window", "gcra"]
PROCESSES = 8
# Windows that neither end while a test runs nor free a hit.
LONG = 50 * 365 * 86_400.0

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


class Hit(NamedTuple):
    """What a process did: its clock when it asked last, and what became of it."""

    at: float
    cost: int
    allowed: bool


class Gate(NamedTuple):
    """What each process is told."""

    url: str
    strategy: Any
    limit: int
    per: float
    seconds: float
    skew: float


def hammer(gate: Gate, number: int) -> list[Hit]:
    """Hit one identity without a break, and keep a log."""
    said = [0.0]
    ahead = gate.skew * (number % 3 - 1)

    def clock() -> float:
        said[0] = time.time() + ahead
        return said[0]

    log: list[Hit] = []
    # A cull would ask the clock as well.
    with KeyValueStore[str, Any](gate.url, clock=clock, cull=False) as store:
        limiter = store.limiter("hammered", gate.limit, gate.per, gate.strategy)
        end = time.monotonic() + gate.seconds
        while time.monotonic() < end:
            cost = 1 + (len(log) + number) % 2
            allowed = limiter.hit("one", cost).allowed
            log.append(Hit(said[0], cost, allowed))
    return log


def hammered(gate: Gate) -> list[Hit]:
    with ProcessPoolExecutor(PROCESSES, SPAWN) as pool:
        logs = [pool.submit(hammer, gate, number) for number in range(PROCESSES)]
        return sorted(hit for log in logs for hit in log.result())


def admissions(hits: list[Hit]) -> list[Hit]:
    return [hit for hit in hits if hit.allowed]


class TestPromises:
    """From a log of every hit of 8 processes, with the time by the clock that decided it."""

    @pytest.mark.parametrize("skew", [0.0, 0.03])
    def test_a_fixed_window_has_no_more_than_its_limit_and_is_filled(
        self, hskv_server: PrivateServer, hskv_store: Store, skew: float
    ) -> None:
        """With clocks apart a window is that of the clock which is ahead, and is no wider."""
        limit, per = 50, 0.2
        hits = hammered(Gate(hskv_server.url, "fixed-window", limit, per, 2.0, skew))
        counts = Counter[int]()
        for hit in admissions(hits):
            # A clock that is behind may have been counted in a window that is ahead.
            counts[math.floor(hit.at * 1000) // 200] += hit.cost
        windows = max(counts) - min(counts) + 1
        assert counts.total() <= limit * windows
        if not skew:
            # Some are filled, however slow the machine is.
            assert limit - 1 <= max(counts.values()) <= limit

    def test_a_sliding_window_never_passes_its_estimate(
        self, hskv_server: PrivateServer, hskv_store: Store
    ) -> None:
        limit, per_ms = 50, 200
        hits = hammered(Gate(hskv_server.url, "sliding-window", limit, 0.2, 2.0, 0.0))
        counts = Counter[int]()
        for hit in admissions(hits):
            window, elapsed = divmod(math.floor(hit.at * 1000), per_ms)
            counts[window] += hit.cost
            # In the order of the clock, a hit or two of others may not be in yet.
            assert counts[window] + counts[window - 1] * (per_ms - elapsed) / per_ms <= limit
        assert counts.total() >= 2 * limit

    @pytest.mark.parametrize("skew", [0.0, 0.03])
    def test_gcra_never_passes_a_burst_and_its_rate(
        self, hskv_server: PrivateServer, hskv_store: Store, skew: float
    ) -> None:
        limit, per = 50, 0.2
        hits = hammered(Gate(hskv_server.url, "gcra", limit, per, 2.0, skew))
        passed = admissions(hits)
        # What a leaky bucket holds after each admission.
        level, last = 0.0, passed[0].at
        for hit in passed:
            level = max(level - (hit.at - last) * limit / per, 0.0) + hit.cost
            last = hit.at
            assert level <= limit * (1 + 1e-6) + 1e-3
        span = passed[-1].at - passed[0].at
        allowance = limit + span * limit / per
        assert sum(hit.cost for hit in passed) >= allowance * 0.5

    @every_strategy
    def test_clocks_a_second_apart_widen_no_limit(
        self, hskv_server: PrivateServer, hskv_store: Store, strategy: Any
    ) -> None:
        """Of the clocks in use the one that is most ahead decides: it is what is promised by."""
        limit, per = 40, 2.0
        began = time.time()
        hits = hammered(Gate(hskv_server.url, strategy, limit, per, 3.0, 1.0))
        passed = sum(hit.cost for hit in admissions(hits))
        span = time.time() - began + 2.0
        most = limit * (math.floor(span / per) + 2)
        assert limit <= passed <= most

    def test_exactly_the_limit_passes_and_no_refusal_came_too_early(
        self, hskv_server: PrivateServer, hskv_store: Store
    ) -> None:
        hits = hammered(Gate(hskv_server.url, "gcra", 200, LONG, 1.0, 0.0))
        passed = admissions(hits)
        assert sum(hit.cost for hit in passed) == 200
        refused_single = [hit for hit in hits if not hit.allowed and hit.cost == 1]
        # By then at most one of the process that was last was still to be counted.
        assert min(hit.at for hit in refused_single) >= passed[-PROCESSES].at


def watched(server: PrivateServer, trips: list[RequestInfo]) -> Store:
    """A store that notes each exchange, and never culls, which is one more."""
    return KeyValueStore(server.url, on_request=trips.append, cull=False)


class TestHit:
    @every_strategy
    def test_a_refused_hit_and_a_peek_change_nothing(
        self, hskv_store: Store, run_sql: Callable[..., Any], strategy: Any
    ) -> None:
        limiter = hskv_store.limiter("l", 2, 3600, strategy)
        assert [limiter.hit("a").allowed for _ in range(2)] == [True, True]
        before = run_sql("SELECT * FROM kv")
        assert len(before) == 1
        assert not limiter.hit("a")
        assert not limiter.hit("a", cost=2)
        assert not limiter.peek("a")
        assert run_sql("SELECT * FROM kv") == before

    @every_strategy
    def test_costs_count_whole_or_not_at_all(self, hskv_store: Store, strategy: Any) -> None:
        limiter = hskv_store.limiter("l", 10, 3600, strategy)
        assert limiter.hit("a", cost=7).remaining == 3
        assert not limiter.hit("a", cost=4)
        assert limiter.hit("a", cost=3).remaining == 0

    @every_strategy
    def test_reset_and_clear_forget(self, hskv_store: Store, strategy: Any) -> None:
        limiter = hskv_store.limiter("l", 1, 3600, strategy)
        other = hskv_store.limiter("l2", 1, 3600, strategy)
        for identity in ("a", "b" * 1000, "\0c"):
            assert limiter.hit(identity)
        assert other.hit("a")
        assert (limiter.reset("a"), limiter.reset("a"), limiter.reset("z")) == (True, False, False)
        assert limiter.hit("a")
        assert limiter.clear() == 3
        assert limiter.clear() == 0
        assert limiter.hit("b" * 1000)
        assert not other.hit("a")

    def test_a_decision_is_true_when_it_was_allowed(self, hskv_store: Store) -> None:
        limiter = hskv_store.limiter("l", 1, 3600)
        decisions = limiter.hit("a"), limiter.hit("a")
        assert [bool(decision) for decision in decisions] == [True, False]
        assert decisions[1].retry_after == decisions[1].reset_after > 0

    @pytest.mark.parametrize(
        ("strategy", "first", "then", "refused"),
        [("fixed-window", 2, 1, 1), ("sliding-window", 2, 1, 1), ("gcra", 2, 1, 1)],
    )
    def test_round_trips(
        self,
        hskv_server: PrivateServer,
        hskv_store: Store,
        strategy: Any,
        first: int,
        then: int,
        refused: int,
    ) -> None:
        trips: list[RequestInfo] = []
        with watched(hskv_server, trips) as store:
            limiter = store.limiter("l", 3, LONG, strategy)
            expected = [first, then, 1, refused, refused]
            for number, count in enumerate(expected):
                trips.clear()
                assert limiter.hit("a").allowed == (number < 3)
                assert len(trips) == count, number
            trips.clear()
            limiter.peek("a")
            assert len(trips) == 1

    def test_a_gcra_hit_after_a_rest_takes_one(self, hskv_server: PrivateServer) -> None:
        trips: list[RequestInfo] = []
        with watched(hskv_server, trips) as store:
            limiter = store.limiter("rest", 1000, 1, "gcra")
            limiter.hit("a")
            time.sleep(0.05)
            trips.clear()
            assert limiter.hit("a")
            assert len(trips) == 1

    def test_threads_and_forked_children_share_one(self, hskv_store: Store) -> None:
        limiter = hskv_store.limiter("l", 100, LONG, "gcra")
        with ThreadPoolExecutor(16) as pool:
            passed = sum(map(bool, pool.map(lambda _: limiter.hit("a"), range(99))))
        assert passed == 99
        child = os.fork()
        if not child:
            os._exit(0 if limiter.hit("a") else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert not limiter.hit("a")


class TestIdentities:
    @pytest.mark.parametrize(
        "identity",
        ["", "a", "x" * 10_000, b"\x00", b"\x00" * 40, b"\xff" * 300, "\ud800", "tab\tline\n"],
    )
    def test_any_is_one_of_its_own(self, hskv_store: Store, identity: Any) -> None:
        limiter = hskv_store.limiter("l", 1, 3600)
        assert limiter.hit(identity)
        assert not limiter.hit(identity)
        more = b"x" if isinstance(identity, bytes) else "x"
        assert limiter.hit(identity + more)
        assert len(hskv_store) == 0

    def test_limiters_meet_where_they_are_the_same_and_nowhere_else(
        self, hskv_store: Store
    ) -> None:
        others = [
            hskv_store.limiter("m", 1, 60),
            hskv_store.limiter("l", 1, 61),
            hskv_store.limiter("l", 1, 60, "gcra"),
            hskv_store.namespace("p:").limiter("l", 1, 60),
        ]
        assert hskv_store.limiter("l", 2, 60).hit("a")
        assert all(other.hit("a") for other in others)
        assert hskv_store.limiter("l", 2, 60).peek("a").remaining == 1
        assert hskv_store.limiter("l", 1, 60).hit("a").allowed is False

    def test_an_identity_made_like_a_digest_meets_no_other(
        self, hskv_store: Store, run_sql: Callable[..., Any]
    ) -> None:
        limiter = hskv_store.limiter("l", 1, 3600)
        assert limiter.hit("x" * 1000)
        ((key,),) = run_sql("SELECT k FROM kv")
        assert limiter.hit(key[-33:])

    def test_the_table_stays_bounded(
        self, timed_store: Store, clock: Any, run_sql: Callable[..., Any]
    ) -> None:
        limiter = timed_store.limiter("l", 1, 1)
        most = 0
        for number in range(5_000):
            clock.now += 0.1
            assert limiter.hit(f"identity {number}")
            if number % 500 == 499:
                ((rows,),) = run_sql("SELECT COUNT(*) FROM kv")
                most = max(most, rows)
        assert most < 1_500


class TestAcquire:
    def test_it_waits_for_its_turn(self, hskv_store: Store) -> None:
        limiter = hskv_store.limiter("l", 1, 0.1, "gcra")
        times = []
        for _ in range(4):
            assert limiter.acquire("a")
            times.append(time.time())
        assert all(later - earlier > 0.05 for earlier, later in pairwise(times))

    def test_it_gives_up_at_once_where_it_cannot_be_in_time(self, hskv_store: Store) -> None:
        limiter = hskv_store.limiter("l", 1, LONG, "gcra")
        assert limiter.acquire("a", wait=False)
        began = time.monotonic()
        assert not limiter.acquire("a", wait=3600)
        assert not limiter.acquire("a", wait=False)
        assert time.monotonic() - began < 60

    @pytest.mark.parametrize("wait", [-1, math.nan])
    def test_a_wait_that_is_none_is_refused(self, hskv_store: Store, wait: float) -> None:
        with pytest.raises(ValueError, match="wait"):
            hskv_store.limiter("l", 1, 60).acquire("a", wait=wait)


class TestDecorator:
    def test_the_key_is_made_of_the_arguments(self, hskv_store: Store) -> None:
        calls = []

        @hskv_store.limiter("mails", 1, 60).limit(key=lambda to, **_: to)
        def mail(to: str, *, urgent: bool = False) -> str:
            """Sends."""
            calls.append((to, urgent))
            return f"sent to {to}"

        assert mail("ann") == "sent to ann"
        assert mail("bob", urgent=True) == "sent to bob"
        with pytest.raises(RateLimitExceededError, match="mails: 1 in 60 s") as raised:
            mail("ann")
        assert raised.value.limit == 1
        assert 0 < raised.value.retry_after <= 60
        assert raised.value.reset_after == raised.value.retry_after
        assert calls == [("ann", False), ("bob", True)]
        assert (mail.__name__, mail.__doc__) == ("mail", "Sends.")

    def test_a_key_may_be_one_for_all(self, hskv_store: Store) -> None:
        costly = hskv_store.limiter("l", 5, 60).limit(key="all", cost=3)(len)
        assert costly("ab") == 2
        with pytest.raises(RateLimitExceededError):
            costly("ab")

    def test_a_coroutine_function_is_refused(self, hskv_store: Store) -> None:
        async def later() -> None: ...

        assert inspect.iscoroutinefunction(later)
        with pytest.raises(TypeError, match="to_thread"):
            hskv_store.limiter("l", 5, 60).limit(key="all")(later)


class TestHeaders:
    def test_they_say_what_is_left_and_when_to_come_back(self, hskv_store: Store) -> None:
        limiter = hskv_store.limiter('a "b" \\ é', 2, 1.5)
        allowed = Decision(True, 2, 1, 0.0, 1.2)
        name = '"a \\"b\\" \\\\ ?"'
        assert limiter.headers(allowed) == {
            "RateLimit-Policy": f"{name};q=2;w=2",
            "RateLimit": f"{name};r=1;t=2",
        }
        refused = Decision(False, 2, 0, 0.2, 1.0)
        assert limiter.headers(refused)["Retry-After"] == "1"

    def test_without_the_table_there_is_nothing_to_say(self, hskv_store: Store) -> None:
        limiter = hskv_store.limiter("l", 2, 60)
        error = hskv.HandlerSocketError("away")
        assert limiter.headers(Decision(True, 2, 0, 0.0, 0.0, error)) == {}
        refused = Decision(False, 2, 0, 1.0, 1.0, error)
        assert limiter.headers(refused) == {"Retry-After": "1"}


class TestFailing:
    URL = "hskv://:secret@127.0.0.1:1,2/d"

    @pytest.mark.parametrize("ask", ["hit", "peek"])
    def test_open_closed_or_raising(self, ask: str, caplog: pytest.LogCaptureFixture) -> None:
        with KeyValueStore[str, Any](self.URL, timeout=0.3, connect_timeout=0.3) as store:
            allowed, refused = (
                getattr(store.limiter("l", 5, 60, fail=fail), ask)("a")
                for fail in ("open", "closed")
            )
            with pytest.raises(NoConnectionError):
                getattr(store.limiter("l", 5, 60), ask)("a")
        assert (allowed.allowed, refused.allowed) == (True, False)
        assert isinstance(allowed.error, NoConnectionError)
        assert refused.retry_after > 0
        assert [record.levelno for record in caplog.records if "fails" in record.message] == [
            logging.WARNING
        ] * 2

    def test_it_works_again_when_the_server_is_back(self) -> None:
        with PrivateServer() as server, KeyValueStore[str, Any](server.url, timeout=1) as store:
            limiter = store.limiter("l", 3, LONG, "gcra", fail="closed")
            assert limiter.hit("a").remaining == 2
            server.kill()
            assert limiter.hit("a").error is not None
            server.start()
            assert limiter.hit("a").remaining == 1


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "kind"),
        [
            (("l", 0, 60), ValueError),
            (("l", 2**31, 60), ValueError),
            (("l", True, 60), TypeError),
            (("l", 1.5, 60), TypeError),
            (("l", "1", 60), TypeError),
            (("l", 1, 0), ValueError),
            (("l", 1, -1), ValueError),
            (("l", 1, math.nan), ValueError),
            (("l", 1, math.inf), ValueError),
            (("l", 1, None), ValueError),
            (("l", 1, 0.0001), ValueError),
            (("l", 1, "60"), TypeError),
            (("", 1, 60), ValueError),
            (("a\0b", 1, 60), ValueError),
            ((b"l", 1, 60), TypeError),
            (("l", 1, 60, "leaky"), ValueError),
            (("n" * 300, 1, 60), ValueError),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, arguments: Any, kind: type[Exception]) -> None:
        store: Store = KeyValueStore("hskv://127.0.0.1:1,2/d")
        with pytest.raises(kind):
            store.limiter(*arguments)

    def test_so_are_costs_and_identities(self) -> None:
        limiter = KeyValueStore[str, Any]("hskv://127.0.0.1:1,2/d").limiter("l", 5, timedelta(1))
        assert limiter.per == 86_400
        for cost in (0, -1, 6):
            with pytest.raises(ValueError, match="cost"):
                limiter.hit("a", cost)
        for wrong in (True, 1.0, "1"):
            with pytest.raises(TypeError):
                limiter.hit("a", wrong)  # type: ignore[arg-type]
        for identity in (1, None, bytearray(b"a")):
            with pytest.raises(TypeError):
                limiter.hit(identity)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="fail"):
            KeyValueStore[str, Any]("hskv://127.0.0.1:1,2/d").limiter(
                "l",
                5,
                1,
                fail="perhaps",  # type: ignore[arg-type]
            )

    @pytest.mark.parametrize("column", ["number", "kind", "version", "expires"])
    def test_a_table_without_all_columns_is_refused(self, column: str) -> None:
        table = Table("t", **{column: None})  # type: ignore[arg-type]
        values: dict[str, Any] = {"value_type": str} if column == "kind" else {}
        store: Any = KeyValueStore("hskv://127.0.0.1:1,2/d", table, cull=False, **values)
        with pytest.raises(hskv.UnsupportedError, match=column):
            store.limiter("l", 1, 60)

    def test_counts_are_for_sliding_windows_only(self, hskv_store: Store) -> None:
        with pytest.raises(hskv.UnsupportedError, match="sliding"):
            hskv_store.limiter("l", 1, 60).counts("a")
