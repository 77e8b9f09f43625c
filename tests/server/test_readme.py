"""What the README shows was run; what is more on its page of servers, too."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hskv
from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

from ..pages import DOCS, ROOT, blocks

SERVER = DOCS / "server.md"


def texts(page: Path, language: str) -> list[str]:
    return [block.text for block in blocks(page) if block.language == language]


def test_the_example_runs() -> None:
    example = next(text for text in texts(ROOT / "README.md", "python") if "PrivateServer" in text)
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True)
    assert done.stderr == ""
    assert re.fullmatch(
        r"\{'en': 'hello'\} 1 1799\.\d+|\{'en': 'hello'\} 1 1800\.0", done.stdout[:-1]
    )


def test_the_settings_of_the_page_are_those_that_init_prints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HSKV_URL", raising=False)
    command = [sys.executable, "-m", "hskv", "init", "--settings"]
    printed = subprocess.check_output(command, text=True)
    for name, written in (("", "CHANGE-ME"), ("_wr", "CHANGE-ME-TOO")):
        (secret,) = re.findall(
            rf"^handlersocket_plain_secret{name} = (\w{{32}})$", printed, re.MULTILINE
        )
        printed = printed.replace(secret, written)
    assert [printed] == texts(SERVER, "ini")


def test_the_event_removes_what_expired_more_than_a_minute_ago(
    hskv_store: KeyValueStore[str, Any], hskv_server: PrivateServer, run_sql: Callable[..., Any]
) -> None:
    event = next(text for text in texts(SERVER, "sql") if "CREATE EVENT" in text)
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


def test_every_option_of_a_url_is_named() -> None:
    with pytest.raises(ValueError, match="known: ") as raised:
        hskv.connect("hskv://localhost/hskv?none=1")
    known = str(raised.value).partition("known: ")[2].split(", ")
    assert len(known) > 10
    page = SERVER.read_text()
    assert [name for name in known if f"`{name}`" not in page and f"{name}=PATH" not in page] == []
