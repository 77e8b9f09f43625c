"""Greenlets whose store goes by SQL over TLS: what they counted, and how a deadline ends a wait."""

from gevent import monkey  # type: ignore[import-untyped]

monkey.patch_all()

# Programs patch before they import what is to be patched.
import sys  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402

import hskv  # noqa: E402
from hskv.exceptions import RequestTimeoutError  # noqa: E402


def main(url: str, ca: str) -> None:
    url = f"hskv:///hskv?reads=sql&writes=sql&pool_size=4&sql={url}"
    with hskv.connect(url, sql_ssl_ca=ca, cull=False) as store:
        store["n"] = 0
        work = [gevent.spawn(lambda: [store.incr("n") for _ in range(5)]) for _ in range(12)]
        gevent.joinall(work, raise_error=True)
        assert store["n"] == 60
        assert store.client.sql is not None
        channel = store.client.sql.servers.acquire()
        ticks: list[int] = []
        ticking = gevent.spawn(tick, ticks)
        began = time.monotonic()
        try:
            channel.run(b"SELECT SLEEP(9)", 1, began + 0.2)
        except RequestTimeoutError as error:
            store.client.sql.servers.discard(channel, error)
        ticking.join()
        assert time.monotonic() - began < 1
        assert len(ticks) == 10
    sys.stdout.write("all went well")


def tick(ticks: list[int]) -> None:
    for number in range(10):
        ticks.append(number)
        gevent.sleep(0.01)


main(*sys.argv[1:])
