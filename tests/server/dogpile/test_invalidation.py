"""Invalidation that every process sees."""

import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest
from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE

import hskv
from hskv import KeyValueStore
from hskv.integrations.dogpile import HandlerSocketInvalidator
from hskv.mariadb import PrivateServer

from .regions import NOWHERE, SPAWN


def region_with_invalidator(url: str, max_age: float = 0.05, **arguments: Any) -> Any:
    region = make_region()
    invalidator: Any = HandlerSocketInvalidator(region, max_age=max_age)
    arguments = {"url": url, **arguments}
    return region.configure("hskv", 60, arguments=arguments, region_invalidator=invalidator)


def get_elsewhere(url: str) -> Any:
    found = region_with_invalidator(url).get("a")
    return None if found is NO_VALUE else found


class TestInvalidation:
    @pytest.mark.parametrize("hard", [True, False])
    def test_it_reaches_every_process(
        self, url: str, hskv_store: KeyValueStore[str, Any], hard: bool
    ) -> None:
        here = region_with_invalidator(url)
        here.set("a", 1)
        with ProcessPoolExecutor(1, SPAWN) as pool:
            assert pool.submit(get_elsewhere, url).result() == 1
            here.invalidate(hard)
            assert here.get("a") is NO_VALUE
            assert pool.submit(get_elsewhere, url).result() is None
        strategy = here.region_invalidator
        assert strategy.was_hard_invalidated() is hard
        assert strategy.was_soft_invalidated() is not hard
        assert strategy.is_hard_invalidated(time.time() - 60) is hard
        assert strategy.is_soft_invalidated(time.time() - 60) is not hard
        here.set("a", 2)
        assert here.get("a") == 2

    def test_another_client_sees_it_after_max_age(
        self, url: str, hskv_store: KeyValueStore[str, Any]
    ) -> None:
        here, there = region_with_invalidator(url), region_with_invalidator(url, max_age=0.3)
        here.set("a", 1)
        assert there.get("a") == 1
        here.invalidate()
        assert there.get("a") == 1
        time.sleep(0.35)
        assert there.get("a") is NO_VALUE

    def test_a_region_on_another_backend_is_refused(self) -> None:
        region: Any = make_region()
        invalidator = HandlerSocketInvalidator(region)
        region.configure("dogpile.cache.memory", region_invalidator=invalidator)
        with pytest.raises(hskv.UnsupportedError, match="backend 'hskv'"):
            region.invalidate()


class TestOfSeveral:
    def test_a_clock_that_is_behind_takes_back_no_invalidation(
        self, url: str, hskv_store: KeyValueStore[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ahead, behind = region_with_invalidator(url), region_with_invalidator(url)
        began = time.time()
        ahead.invalidate()
        monkeypatch.setattr(time, "time", lambda: began - 5)
        behind.invalidate()
        assert behind.region_invalidator.is_hard_invalidated(began - 0.001)

    def test_a_soft_one_brings_back_nothing_that_a_hard_one_removed(
        self, url: str, hskv_store: KeyValueStore[str, Any]
    ) -> None:
        region = region_with_invalidator(url)
        region.set("a", 1)
        region.invalidate()
        region.invalidate(hard=False)
        strategy = region.region_invalidator
        assert (strategy.was_hard_invalidated(), strategy.was_soft_invalidated()) == (True, True)
        assert region.get_or_create("a", lambda: 2) == 2
        region.invalidate()
        assert not strategy.was_soft_invalidated()

    def test_of_several_at_once_the_latest_stands(
        self, url: str, hskv_store: KeyValueStore[str, Any]
    ) -> None:
        region = region_with_invalidator(url, max_age=0)
        with ThreadPoolExecutor(4) as pool:
            for latest in pool.map(invalidate_often, [url] * 4):
                assert region.region_invalidator.is_hard_invalidated(latest)


def invalidate_often(url: str) -> float:
    """When the last one began."""
    region, began = region_with_invalidator(url), 0.0
    for _ in range(50):
        began = time.time() - 0.000_001
        region.invalidate()
        assert region.region_invalidator.is_hard_invalidated(began)
    return began


class TestOutage:
    def test_what_was_invalidated_meanwhile_is_told_when_the_server_is_back(self) -> None:
        with PrivateServer() as server:
            here = region_with_invalidator(server.url, ignore_errors=True, timeout=0.5)
            there = region_with_invalidator(server.url)
            there.set("a", 1)
            assert here.get("a") == 1
            server.kill()
            here.invalidate()
            server.start()
            assert there.get("a") == 1
            deadline = time.monotonic() + 20
            while there.get("a") is not NO_VALUE:
                assert here.get("a") is NO_VALUE
                assert time.monotonic() < deadline
                time.sleep(0.05)
            for region in (here, there):
                region.actual_backend.close()

    def test_without_ignore_errors_it_is_an_error(self) -> None:
        region = region_with_invalidator(NOWHERE, timeout=0.1)
        with pytest.raises(hskv.exceptions.ConnectionError):
            region.invalidate()
