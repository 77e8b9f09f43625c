from collections.abc import Iterator
from typing import Any

import pytest

from hskv.transport.pool import ChannelPool

from .fake_channels import Server, consistent
from .scripted import Connector


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connector:
    return Connector(monkeypatch)


@pytest.fixture
def fake_server() -> Server:
    return Server()


@pytest.fixture
def pool(fake_server: Server) -> Iterator[ChannelPool[Any]]:
    """A pool of two; its counters are right at the end, whatever the test did."""
    made = ChannelPool(fake_server.connect, size=2, timeout=5.0)
    yield made
    lent = [channel for channel in fake_server.made if channel.holder is made]
    consistent(made, len(lent))
    for channel in lent:
        made.release(channel)
    made.close()
    consistent(made, 0)
