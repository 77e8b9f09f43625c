"""What docs/monitoring.md says of the server's own figures and logs."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hskv import KeyValueStore

RunSql = Callable[..., tuple[tuple[Any, ...], ...]]


@pytest.fixture
def general_log(run_sql: RunSql) -> Iterator[None]:
    run_sql("SET GLOBAL log_output = 'TABLE'")
    run_sql("SET GLOBAL general_log = ON")
    yield
    run_sql("SET GLOBAL general_log = OFF")
    run_sql("TRUNCATE mysql.general_log")


def figure(run_sql: RunSql, name: str) -> int:
    return int(run_sql(f"SHOW GLOBAL STATUS LIKE '{name}'")[0][1])


@pytest.mark.usefixtures("general_log")
def test_reads_count_for_innodb_and_not_for_sql(
    hskv_store: KeyValueStore[str, Any], run_sql: RunSql
) -> None:
    names = ("Handler_read_key", "Com_select")
    before = [figure(run_sql, name) for name in names]
    for _ in range(100):
        hskv_store.get("unlikely-key")
    after = [figure(run_sql, name) for name in names]
    assert after[0] - before[0] >= 100
    assert after[1] == before[1]
    assert run_sql("SELECT argument FROM mysql.general_log WHERE argument LIKE 'unlikely%%'") == ()
