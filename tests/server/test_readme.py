"""What the README shows was run: its example, its table, its my.cnf."""

import configparser
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hskv
from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_example_runs() -> None:
    example = next(block for block in blocks("python") if "PrivateServer" in block)
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True)
    assert done.stderr == ""
    assert re.fullmatch(
        r"\{'en': 'hello'\} 1 1799\.\d+|\{'en': 'hello'\} 1 1800\.0", done.stdout[:-1]
    )


def test_the_table_is_the_one_that_the_code_makes() -> None:
    assert blocks("sql")[0] == hskv.Table("kv").create_sql() + "\n"


def test_the_event_removes_what_expired_more_than_a_minute_ago(
    hskv_store: KeyValueStore[str, Any], hskv_server: PrivateServer, run_sql: Callable[..., Any]
) -> None:
    event = blocks("sql")[1]
    run_sql(event)
    run_sql("DROP EVENT kv_expired")
    ago = KeyValueStore(hskv_server.url, clock=lambda: time.time() - 61)
    ago.set_many({"dead": 1}, ttl=0.001)
    hskv_store.set("alive", 1, ttl=60)
    hskv_store.set("just dead", 1, ttl=0.001)
    ago.close()
    time.sleep(0.01)
    run_sql(event.partition("DO\n")[2])
    left = run_sql("SELECT k FROM kv ORDER BY k")
    assert left == ((b"alive",), (b"just dead",))


def test_a_server_runs_with_the_my_cnf_and_the_url_opens_it() -> None:
    parser = configparser.ConfigParser(inline_comment_prefixes=("#",))
    parser.read_string(blocks("ini")[0])
    settings: dict[str, str | int | None] = dict(parser["mariadb"])
    for ours in ("handlersocket_port", "handlersocket_port_wr"):
        assert settings.pop(ours)
    with PrivateServer(tcp=True, options=settings) as server:
        url = next(line for line in README.splitlines() if 'hskv.connect("hskv://' in line)
        url = url.partition('"')[2].partition('"')[0]
        ports = server.url.rpartition("@")[2].partition("/")[0].partition(":")[2]
        url = url.replace("9998,9999", ports).replace("DATABASE", "hskv")
        with hskv.connect(url) as store:
            store["a"] = 1
            assert store["a"] == 1


def test_every_option_of_a_url_is_named() -> None:
    for option in ("secret_file", "prefix", "default_ttl", "serializer", "timeout", "pool_size"):
        assert f"`{option}`" in README
