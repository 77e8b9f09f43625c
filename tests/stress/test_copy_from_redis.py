"""The program of docs/from-redis.md that copies what is in a redis."""

import os
import subprocess
import sys
from typing import Any

import pytest
import redis

from benchmarks.peers import redis_server
from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

from ..pages import DOCS, blocks

pytestmark = pytest.mark.stress


def test_strings_come_over_with_their_time(
    hskv_server: PrivateServer, hskv_store: KeyValueStore[str, Any]
) -> None:
    (program,) = (one.text for one in blocks(DOCS / "from-redis.md") if one.file)
    with redis_server(tcp=True) as peer:
        with redis.Redis(port=peer.port) as source:
            source.mset({"text": "one", "hits": 12, b"bytes": b"\x00\xff"})
            source.set("ends", "soon", ex=100)
            source.rpush("list", 1)
        subprocess.run(
            [sys.executable, "-c", program, f"redis://localhost:{peer.port}/0"],
            check=True,
            env={**os.environ, "HSKV_URL": hskv_server.url},
            timeout=30,
        )
    assert hskv_store.incr("hits") == 13
    assert 90 < (hskv_store.ttl("ends") or 0) <= 100
    assert hskv_store.get_many(["text", "bytes", "list"]) == {"text": b"one", "bytes": b"\x00\xff"}
    assert len(hskv_store) == 4
