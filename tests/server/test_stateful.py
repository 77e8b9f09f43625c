"""The store against a dict: any sequence of operations gives the same on both."""

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

keys = st.sampled_from(["", "a", "b", "ab", "é", "\x00", "z" * 200, "\t\n\x01"])
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(),
    st.binary(max_size=40),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.lists(st.integers(), max_size=3),
)
ttls = st.sampled_from([None, 0.5, 1.0, 7.25])


class Model:
    """What the store should hold: values, and when they end, by a clock of its own."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self._rows: dict[str, tuple[Any, float | None]] = {}

    def clock(self) -> float:
        return self.now

    @property
    def live(self) -> dict[str, Any]:
        return {
            key: value
            for key, (value, end) in sorted(self._rows.items(), key=lambda row: row[0].encode())
            if end is None or end > self.now
        }

    def set(self, key: str, value: Any, ttl: float | None = None) -> None:
        self._rows[key] = (value, None if ttl is None else self.now + ttl)

    def change(self, key: str, value: Any) -> None:
        self._rows[key] = (value, self._rows[key][1])

    def remove(self, key: str) -> None:
        del self._rows[key]

    def clear(self) -> None:
        self._rows.clear()

    def left(self, key: str) -> float | None:
        end = self._rows[key][1]
        return None if end is None else end - self.now


class Store(RuleBasedStateMachine):
    """Operations on a store, each compared with the model."""

    url: str

    @initialize()
    def open(self) -> None:
        self.model = Model()
        self.store: KeyValueStore[str, Any] = KeyValueStore(
            self.url, prefix="state:", clock=self.model.clock
        )
        self.store.clear()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()

    @rule(key=keys, value=values, ttl=ttls)
    def set(self, key: str, value: Any, ttl: float | None) -> None:
        self.store.set(key, value, ttl=ttl)
        self.model.set(key, value, ttl)

    @rule(key=keys, value=values)
    def set_item(self, key: str, value: Any) -> None:
        self.store[key] = value
        self.model.set(key, value)

    @rule(key=keys)
    def get(self, key: str) -> None:
        expected = self.model.live.get(key, "nothing")
        got = self.store.get(key, "nothing")
        assert got == expected
        assert type(got) is type(expected)
        assert (key in self.store) == (key in self.model.live)

    @rule(key=keys)
    def delete(self, key: str) -> None:
        there = key in self.model.live
        assert self.store.delete(key) is there
        if there:
            self.model.remove(key)

    @rule(key=keys)
    def pop(self, key: str) -> None:
        assert self.store.pop(key, "nothing") == self.model.live.get(key, "nothing")
        if key in self.model.live:
            self.model.remove(key)

    @rule()
    def popitem(self) -> None:
        live = self.model.live
        if not live:
            with pytest.raises(KeyError):
                self.store.popitem()
            return
        first = next(iter(live))
        assert self.store.popitem() == (first, live[first])
        self.model.remove(first)

    @rule(key=keys, value=values)
    def setdefault(self, key: str, value: Any) -> None:
        live = self.model.live
        assert self.store.setdefault(key, value) == live.get(key, value)
        if key not in live:
            self.model.set(key, value)

    @rule(key=keys, value=values, ttl=ttls)
    def add(self, key: str, value: Any, ttl: float | None) -> None:
        missing = key not in self.model.live
        assert self.store.add(key, value, ttl) is missing
        if missing:
            self.model.set(key, value, ttl)

    @rule(key=keys, value=values, ttl=ttls)
    def replace(self, key: str, value: Any, ttl: float | None) -> None:
        there = key in self.model.live
        assert self.store.replace(key, value, ttl) is there
        if there:
            self.model.set(key, value, ttl)

    @rule(key=keys, ttl=ttls)
    def touch(self, key: str, ttl: float | None) -> None:
        live = self.model.live
        assert self.store.touch(key, ttl) is (key in live)
        if key in live:
            self.model.set(key, live[key], ttl)

    @rule(key=keys)
    def ttl(self, key: str) -> None:
        if key not in self.model.live:
            with pytest.raises(KeyError):
                self.store.ttl(key)
        else:
            assert self.store.ttl(key) == pytest.approx(self.model.left(key), abs=0.002)

    @rule(items=st.dictionaries(keys, values), ttl=ttls)
    def set_many(self, items: dict[str, Any], ttl: float | None) -> None:
        self.store.set_many(items, ttl)
        for key, value in items.items():
            self.model.set(key, value, ttl)

    @rule(items=st.dictionaries(keys, values))
    def update(self, items: dict[str, Any]) -> None:
        self.store.update(items)
        for key, value in items.items():
            self.model.set(key, value)

    @rule(asked=st.lists(keys))
    def get_many(self, asked: list[str]) -> None:
        live = self.model.live
        assert self.store.get_many(asked) == {key: live[key] for key in asked if key in live}

    @rule(asked=st.lists(keys))
    def delete_many(self, asked: list[str]) -> None:
        there = {key for key in asked if key in self.model.live}
        assert self.store.delete_many(asked) == len(there)
        for key in there:
            self.model.remove(key)

    @rule(
        key=keys,
        amount=st.sampled_from([1, -1, 10, 2**62, -(2**62)]),
        initial=st.sampled_from([0, 5, 2**62]),
        ttl=ttls,
    )
    def incr(self, key: str, amount: int, initial: int, ttl: float | None) -> None:
        live = self.model.live
        old = live.get(key, initial)
        if type(old) is not int or not -(2**63) <= old < 2**63:
            with pytest.raises(TypeError):
                self.store.incr(key, amount, initial=initial, ttl=ttl)
            return
        new = old + amount
        if not -(2**63) <= new < 2**63:
            with pytest.raises(OverflowError):
                self.store.incr(key, amount, initial=initial, ttl=ttl)
            return
        assert self.store.incr(key, amount, initial=initial, ttl=ttl) == new
        if key in live:
            self.model.change(key, new)
        else:
            self.model.set(key, new, ttl)

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.model.now += seconds

    @precondition(lambda self: len(self.model.live) > 3)
    @rule()
    def clear(self) -> None:
        self.store.clear()
        self.model.clear()

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "store"):
            return
        live = copy.copy(self.model.live)
        assert dict(self.store) == live
        assert list(self.store) == list(live)
        assert len(self.store) == len(live)
        assert bool(self.store) == bool(live)
        assert list(self.store.values()) == list(live.values())


@pytest.mark.timeout(180)
def test_a_store_is_a_dict_that_expires(hskv_server: PrivateServer) -> None:
    Store.url = hskv_server.url
    run_state_machine_as_test(
        Store,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
