"""Pools of several servers that are led as one. Locks: none."""

from collections import Counter
from collections.abc import Sequence
from typing import Generic

from .pool import ChannelPool, ChannelT


class Pools(Generic[ChannelT]):
    """What is done to all pools at once, whatever is chosen among them."""

    def __init__(self, pools: Sequence[ChannelPool[ChannelT]]) -> None:
        self.pools = list(pools)

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self.pools[0].closed

    def purge(self) -> None:
        """As `ChannelPool.purge`, of all pools."""
        for pool in self.pools:
            pool.purge()

    def drain(self, timeout: float, *, refuse: bool = False) -> bool:
        """As `ChannelPool.drain`, of all pools; `timeout` is for each."""
        drained = [pool.drain(timeout, refuse=refuse) for pool in self.pools]
        return all(drained)

    def resume(self) -> None:
        """As `ChannelPool.resume`, of all pools."""
        for pool in self.pools:
            pool.resume()

    def stats(self) -> dict[str, int]:
        """As `ChannelPool.stats`, summed."""
        counts: Counter[str] = Counter()
        for pool in self.pools:
            counts.update(pool.stats())
        return dict(counts)

    def close(self) -> None:
        """Close all pools."""
        for pool in self.pools:
            pool.close()
