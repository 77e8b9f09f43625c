"""A counter as Server-Sent Events: the browser learns of each change, whichever process made it."""

import time
from collections.abc import Iterator
from typing import Any, Final

from hskv import KeyValueStore

# Then the browser connects again: no thread is held for ever by a window that was forgotten.
STREAM_SECONDS: Final = 20.0
LOOK_SECONDS: Final = 0.2
# Where nothing changes, what is written tells whether the browser is still there.
QUIET_SECONDS: Final = 5.0


def events(store: KeyValueStore[str, Any], key: str) -> Iterator[str]:
    """The number now, and whenever it is another one. One round trip for each look."""
    yield "retry: 500\n\n"
    end = time.monotonic() + STREAM_SECONDS
    shown, written = None, time.monotonic()
    while (now := time.monotonic()) < end:
        if (count := store.get(key, 0)) != shown:
            yield f"data: {count}\n\n"
            shown, written = count, now
        elif now - written > QUIET_SECONDS:
            yield ": nothing new\n\n"
            written = now
        time.sleep(LOOK_SECONDS)
