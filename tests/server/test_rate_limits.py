"""Rate limits on the real server: what each call does."""

import inspect
import logging
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

import hskv
from hskv import Decision, KeyValueStore, RateLimitExceededError, RequestInfo, Table
from hskv.exceptions import ConnectionError as NoConnectionError
from hskv.mariadb import PrivateServer
from hskv.store.ratelimit import STRATEGIES

Store = KeyValueStore[str, Any]
# Windows that neither end while a test runs nor free a hit.
LONG = 50 * 365 * 86_400.0

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


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
        ("strategy", "expected"),
        [
            ("fixed-window", [2, 1, 1, 2, 1, 1]),
            ("sliding-window", [2, 1, 1, 1, 1, 1]),
            ("gcra", [2, 1, 1, 1, 1, 1]),
        ],
    )
    def test_round_trips(
        self,
        hskv_server: PrivateServer,
        hskv_store: Store,
        strategy: Any,
        expected: list[int],
    ) -> None:
        trips: list[RequestInfo] = []
        with watched(hskv_server, trips) as store:
            # Before its first request a store that goes by SQL looks at the server.
            store.get("first")
            limiter = store.limiter("l", 3, LONG, strategy)
            # The first request of a store looks at the table too, where there is SQL.
            limiter.peek("b")
            for number, count in enumerate(expected):
                trips.clear()
                assert limiter.hit("a").allowed == (number < 3)
                assert len(trips) == count, number
            trips.clear()
            limiter.peek("a")
            assert len(trips) == 1

    def test_what_is_full_is_looked_at_again(
        self, hskv_server: PrivateServer, hskv_store: Store
    ) -> None:
        """By the read port, and a hit passes as soon as another has made room."""
        trips: list[RequestInfo] = []
        with watched(hskv_server, trips) as store:
            limiter, other = store.limiter("l", 3, LONG), hskv_store.limiter("l", 3, LONG)
            assert limiter.hit("a", cost=2)
            assert not limiter.hit("a", cost=2)
            trips.clear()
            assert not limiter.hit("a", cost=2)
            assert [(trip.operation, trip.requests) for trip in trips] == [("find", 1)]
            assert limiter.hit("a", cost=1)
            assert not limiter.hit("a")
            other.reset("a")
            assert limiter.hit("a").remaining == 2
            assert limiter.hit("a", cost=2)
            assert hskv_store.limiter("l", 4, LONG).hit("a")

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
        """Each row is needed for two seconds and kept for a minute more; refusals add none."""
        limiter = timed_store.limiter("l", 1, 1)
        most = 0
        for number in range(2_000):
            clock.now += 0.5
            assert limiter.hit(f"identity {number}")
            assert not limiter.hit(f"identity {number}")
            if number % 200 == 199:
                ((rows,),) = run_sql("SELECT COUNT(*) FROM kv")
                most = max(most, rows)
        assert most < 2 * 62 * 1.5 + 100


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
            began = time.monotonic()
            errors = [limiter.hit("a").error for _ in range(100)]
            assert None not in errors
            # Only the first hit waited, and one more at most.
            assert time.monotonic() - began < 5
            server.start()
            deadline = time.monotonic() + 20
            while (decision := limiter.hit("a")).error is not None:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert decision.remaining == 1


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
