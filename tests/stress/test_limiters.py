"""A rate limit with very many identities."""

from collections.abc import Callable
from typing import Any

import pytest

from hskv import KeyValueStore
from hskv.store.ratelimit import STRATEGIES

pytestmark = [pytest.mark.stress, pytest.mark.timeout(600)]

IDENTITIES = 100_000


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_100000_identities_leave_a_bounded_table(
    timed_store: KeyValueStore[str, Any],
    clock: Any,
    run_sql: Callable[..., Any],
    strategy: Any,
) -> None:
    """Rows stay for a period and a minute at least, and not much longer where hits go on."""
    limiter = timed_store.limiter("many", 1, 10, strategy)
    most = 0
    for number in range(IDENTITIES):
        clock.now += 0.01
        identity = f"identity {number}" * (1 + number % 40)
        assert limiter.hit(identity)
        if number % 10 == 0:
            assert not limiter.hit(identity)
        if number % 5_000 == 0:
            ((rows,),) = run_sql("SELECT COUNT(*) FROM kv")
            most = max(most, rows)
    # 100 new ones a second, each of which is needed for 20 s and kept for 60 s more.
    assert most < 100 * (30 + 60) * 1.5
    clock.now += 200
    timed_store.purge_expired()
    assert run_sql("SELECT COUNT(*) FROM kv") == ((0,),)
