"""A value that expires."""

import time
from typing import Any, Final

from rich.console import Console

from hskv import KeyValueStore

from .workers import DemoError

TTL_SECONDS: Final = 0.5
LONGEST_WAIT_SECONDS: Final = 10.0


def show_expiry(console: Console, url: str) -> None:
    """Watch a value go that nobody deletes."""
    console.print(f"\n[bold]4. A value that expires.[/]\n  It is stored with ttl={TTL_SECONDS}.")
    store: KeyValueStore[str, Any]
    with KeyValueStore(url) as store:
        store.set("greeting", "hello", ttl=TTL_SECONDS)
        started, left = time.monotonic(), store.ttl("greeting")
        console.print(f"  at once: {store.get('greeting')!r}, with {left:.2f} s left")
        while "greeting" in store:
            if time.monotonic() > started + LONGEST_WAIT_SECONDS:
                raise DemoError(f"a value outlived its ttl by {LONGEST_WAIT_SECONDS} s")
            time.sleep(0.02)
        waited = time.monotonic() - started
        console.print(f"  {waited:.2f} s later: {store.get('greeting')!r}")
