"""The store against a dict: any sequence of operations gives the same on both."""

import ast
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import hskv
from hskv import KEEP, KeyValueStore, Table
from hskv.mariadb import PrivateServer

TEXT_KEYS = ["", "a", "b", "ab", "é", "\x00", "z" * 200, "\t\n\x01"]
INT64 = st.integers(-(2**63), 2**63 - 1)
PLAIN = (
    st.none(),
    st.booleans(),
    INT64,
    st.binary(max_size=40),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.lists(INT64, max_size=3),
)


class Reversed:
    """A serializer of one's own."""

    kind = 6

    def dumps(self, value: Any) -> bytes:
        return repr(value).encode()[::-1]

    def loads(self, data: bytes) -> Any:
        return ast.literal_eval(data[::-1].decode())


@dataclass
class Setting:
    """A kind of store: its keys, its values, and how it is opened."""

    names: Sequence[Any]
    values: st.SearchStrategy[Any]
    prefixes: Sequence[Any] = ("state:", "state;")
    table: str = "kv"
    options: dict[str, Any] = field(default_factory=dict)


SETTINGS = {
    "str and JSON": Setting(TEXT_KEYS, st.one_of(*PLAIN, st.integers())),
    "bytes, msgpack and compression": Setting(
        [name.encode() for name in TEXT_KEYS] + [b"\xff\xfe"],
        st.one_of(*PLAIN, st.lists(st.binary(max_size=9)), st.just("x" * 500)),
        prefixes=(b"st\xff", b"st\xfe\xff"),
        options={"key_type": bytes, "serializer": "msgpack", "compress_min_bytes": 8},
    ),
    "int and pickle": Setting(
        [0, 1, -1, 10, 9, 2**63 - 1, -(2**63)],
        st.one_of(*PLAIN, st.sets(INT64), st.tuples(INT64)),
        prefixes=("",),
        table="state_int",
        options={"key_type": int, "serializer": "pickle"},
    ),
    "str and a serializer of one's own": Setting(
        TEXT_KEYS, st.one_of(*PLAIN, st.tuples(INT64)), options={"serializer": Reversed()}
    ),
}

# What they may be depends on the setting of the machine.
keys = st.runner().flatmap(lambda machine: st.sampled_from(machine.setting.names))
values = st.runner().flatmap(lambda machine: machine.setting.values)
stores = st.runner().flatmap(lambda machine: st.sampled_from(range(len(machine.sides))))
ttls = st.sampled_from([None, 0.5, 1.0, 7.25])


class Model:
    """What the store should hold: values, and when they end, by a clock of its own."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self._rows: dict[Any, tuple[Any, float | None]] = {}

    def clock(self) -> float:
        return self.now

    @property
    def live(self) -> dict[Any, Any]:
        return {
            key: value
            for key, (value, end) in sorted(self._rows.items(), key=_order)
            if end is None or end > self.now
        }

    def set(self, key: Any, value: Any, ttl: float | None = None) -> None:
        self._rows[key] = (value, None if ttl is None else self.now + ttl)

    def change(self, key: Any, value: Any) -> None:
        self._rows[key] = (value, self._rows[key][1])

    def remove(self, key: Any) -> None:
        del self._rows[key]

    def clear(self) -> None:
        self._rows.clear()

    def forget(self, prefix: Any) -> None:
        for key in [key for key in self._rows if key.startswith(prefix)]:
            del self._rows[key]

    def left(self, key: Any) -> float | None:
        end = self._rows[key][1]
        return None if end is None else end - self.now


class Store(RuleBasedStateMachine):
    """Operations on a store, each compared with the model."""

    url: str
    setting: Setting
    sides: list[tuple[KeyValueStore[Any, Any], Model]]

    def __init__(self) -> None:
        super().__init__()
        self.sides = []
        for prefix in self.setting.prefixes:
            model = Model()
            options = {"prefix": prefix, "clock": model.clock, **self.setting.options}
            store: Any = KeyValueStore(self.url, Table(self.setting.table), **options)
            store.clear()
            self.sides.append((store, model))

    def teardown(self) -> None:
        for store, _ in self.sides:
            store.close()

    @rule(on=stores, key=keys, value=values, ttl=ttls)
    def set(self, on: int, key: Any, value: Any, ttl: float | None) -> None:
        store, model = self.sides[on]
        store.set(key, value, ttl=ttl)
        model.set(key, value, ttl)

    @rule(on=stores, key=keys, value=values)
    def set_item(self, on: int, key: Any, value: Any) -> None:
        store, model = self.sides[on]
        store[key] = value
        model.set(key, value)

    @rule(on=stores, key=keys)
    def get(self, on: int, key: Any) -> None:
        store, model = self.sides[on]
        expected = model.live.get(key, "nothing")
        got = store.get(key, "nothing")
        assert got == expected
        assert type(got) is type(expected)
        assert (key in store) == (key in model.live)

    @rule(on=stores, key=keys)
    def delete(self, on: int, key: Any) -> None:
        store, model = self.sides[on]
        there = key in model.live
        assert store.delete(key) is there
        if there:
            model.remove(key)

    @rule(on=stores, key=keys)
    def pop(self, on: int, key: Any) -> None:
        store, model = self.sides[on]
        assert store.pop(key, "nothing") == model.live.get(key, "nothing")
        if key in model.live:
            model.remove(key)

    @rule(on=stores)
    def popitem(self, on: int) -> None:
        store, model = self.sides[on]
        live = model.live
        if not live:
            with pytest.raises(KeyError):
                store.popitem()
            return
        first = next(iter(live))
        assert store.popitem() == (first, live[first])
        model.remove(first)

    @rule(on=stores, key=keys, value=values)
    def setdefault(self, on: int, key: Any, value: Any) -> None:
        store, model = self.sides[on]
        live = model.live
        assert store.setdefault(key, value) == live.get(key, value)
        if key not in live:
            model.set(key, value)

    @rule(on=stores, key=keys, value=values, ttl=ttls)
    def add(self, on: int, key: Any, value: Any, ttl: float | None) -> None:
        store, model = self.sides[on]
        missing = key not in model.live
        assert store.add(key, value, ttl) is missing
        if missing:
            model.set(key, value, ttl)

    @rule(on=stores, key=keys, value=values, ttl=ttls)
    def replace(self, on: int, key: Any, value: Any, ttl: float | None) -> None:
        store, model = self.sides[on]
        there = key in model.live
        assert store.replace(key, value, ttl) is there
        if there:
            model.set(key, value, ttl)

    @rule(on=stores, key=keys, ttl=ttls)
    def touch(self, on: int, key: Any, ttl: float | None) -> None:
        store, model = self.sides[on]
        live = model.live
        assert store.touch(key, ttl) is (key in live)
        if key in live:
            model.set(key, live[key], ttl)

    @rule(on=stores, key=keys)
    def ttl(self, on: int, key: Any) -> None:
        store, model = self.sides[on]
        if key not in model.live:
            with pytest.raises(KeyError):
                store.ttl(key)
        else:
            assert store.ttl(key) == pytest.approx(model.left(key), abs=0.002)

    @rule(on=stores, items=st.dictionaries(keys, values), ttl=ttls)
    def set_many(self, on: int, items: dict[Any, Any], ttl: float | None) -> None:
        store, model = self.sides[on]
        store.set_many(items, ttl)
        for key, value in items.items():
            model.set(key, value, ttl)

    @rule(on=stores, items=st.dictionaries(keys, values))
    def update(self, on: int, items: dict[Any, Any]) -> None:
        store, model = self.sides[on]
        store.update(items)
        for key, value in items.items():
            model.set(key, value)

    @rule(on=stores, asked=st.lists(keys))
    def get_many(self, on: int, asked: list[Any]) -> None:
        store, model = self.sides[on]
        live = model.live
        assert store.get_many(asked) == {key: live[key] for key in asked if key in live}

    @rule(on=stores, asked=st.lists(keys))
    def delete_many(self, on: int, asked: list[Any]) -> None:
        store, model = self.sides[on]
        there = {key for key in asked if key in model.live}
        assert store.delete_many(asked) == len(there)
        for key in there:
            model.remove(key)

    @rule(
        on=stores,
        key=keys,
        amount=st.sampled_from([1, -1, 10, 2**62, -(2**62)]),
        initial=st.sampled_from([0, 5, 2**62]),
        ttl=ttls,
    )
    def incr(self, on: int, key: Any, amount: int, initial: int, ttl: float | None) -> None:
        store, model = self.sides[on]
        live = model.live
        old = live.get(key, initial)
        if type(old) is not int or not -(2**63) <= old < 2**63:
            with pytest.raises(TypeError):
                store.incr(key, amount, initial=initial, ttl=ttl)
            return
        new = old + amount
        if not -(2**63) <= new < 2**63:
            with pytest.raises(OverflowError):
                store.incr(key, amount, initial=initial, ttl=ttl)
            return
        assert store.incr(key, amount, initial=initial, ttl=ttl) == new
        if key in live:
            model.change(key, new)
        else:
            model.set(key, new, ttl)

    @rule(
        on=stores,
        key=keys,
        amount=st.sampled_from([0, 1, -1, 10]),
        bound=st.sampled_from([0, 5, -(2**70), 2**63 - 1]),
        down=st.booleans(),
    )
    def bounded(self, on: int, key: Any, amount: int, bound: int, down: bool) -> None:
        store, model = self.sides[on]
        live = model.live
        old = live.get(key, 0)
        if type(old) is not int or not -(2**63) <= old < 2**63:
            return
        new = old - amount if down else old + amount
        count = store.decr if down else store.incr
        options: dict[str, Any] = {"floor": bound} if down else {"ceiling": bound}
        if not -(2**63) <= new < 2**63:
            with pytest.raises(OverflowError):
                count(key, amount, **options)
            return
        # A bound holds back only what moves towards it.
        moved = -amount if down else amount
        refused = new < bound if down and moved < 0 else new > bound and not down and moved >= 0
        assert count(key, amount, **options) == (None if refused else new)
        if not refused and key in live:
            model.change(key, new)
        elif not refused:
            model.set(key, new)

    @rule(on=stores, key=keys, value=values)
    def set_keeping_the_expiry(self, on: int, key: Any, value: Any) -> None:
        store, model = self.sides[on]
        store.set(key, value, ttl=KEEP)
        if key in model.live:
            model.change(key, value)
        else:
            model.set(key, value)

    @rule(on=stores, key=keys, value=values, ttl=ttls)
    def swap(self, on: int, key: Any, value: Any, ttl: float | None) -> None:
        store, model = self.sides[on]
        assert store.swap(key, value, ttl, default="nothing") == model.live.get(key, "nothing")
        model.set(key, value, ttl)

    @rule(on=stores, key=keys, value=values, stale=st.booleans())
    def compare_and_set(self, on: int, key: Any, value: Any, stale: bool) -> None:
        store, model = self.sides[on]
        if key not in model.live:
            with pytest.raises(KeyError):
                store.get_versioned(key)
            assert not store.compare_and_set(key, value, 0)
            return
        found, version = store.get_versioned(key)
        assert found == model.live[key]
        assert store.compare_and_set(key, value, version + stale) is not stale
        if not stale:
            model.change(key, value)
            assert store.get_versioned(key)[1] != version

    @rule(on=stores, key=keys, batch=st.sampled_from([1, 2, 1000]))
    def scan(self, on: int, key: Any, batch: int) -> None:
        store, model = self.sides[on]
        if key == type(key)():
            key = self.setting.names[-1]
        from_key = [item for item in model.live.items() if _order(item) >= _order((key, None))]
        assert list(store.scan(start=key, batch=batch)) == from_key
        if not isinstance(key, int):
            begins = [item for item in model.live.items() if item[0].startswith(key)]
            assert list(store.scan(key, batch=batch)) == begins
            if ("\x00" if isinstance(key, str) else b"\x00") not in key:
                assert list(store.namespace(key).values()) == [value for _, value in begins]

    @rule(on=stores, key=keys)
    def delete_prefix(self, on: int, key: Any) -> None:
        store, model = self.sides[on]
        if isinstance(key, int):
            return
        there = [name for name in model.live if name.startswith(key)]
        assert store.delete_prefix(key) == len(there)
        model.forget(key)

    @rule(on=stores, key=keys, value=values)
    def get_or_set(self, on: int, key: Any, value: Any) -> None:
        store, model = self.sides[on]
        if isinstance(key, int):
            with pytest.raises(hskv.UnsupportedError):
                store.get_or_set(-5, lambda: value)
            return
        assert store.get_or_set(key, lambda: value) == model.live.get(key, value)
        if key not in model.live:
            model.set(key, value)

    @rule()
    def purge(self) -> None:
        store, _ = self.sides[0]
        store.purge_expired(batch=3, limit=5)

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 100.0]))
    def wait(self, seconds: float) -> None:
        for _, model in self.sides:
            model.now += seconds

    @precondition(lambda self: len(self.sides[0][1].live) > 3)
    @rule(on=stores)
    def clear(self, on: int) -> None:
        store, model = self.sides[on]
        store.clear()
        model.clear()

    @invariant()
    def same(self) -> None:
        for store, model in self.sides:
            live = copy.copy(model.live)
            assert store.to_dict() == live
            assert list(store) == list(live)
            assert len(store) == len(live)
            assert bool(store) == bool(live)
            assert list(store.values()) == list(live.values())


def _order(item: tuple[Any, Any]) -> Any:
    return item[0].encode() if isinstance(item[0], str) else item[0]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_a_store_is_a_dict_that_expires(
    hskv_server: PrivateServer, run_sql: Callable[..., Any], setting: Setting
) -> None:
    integers = Table("state_int").create_sql().replace("VARBINARY(255)", "BIGINT")
    run_sql("DROP TABLE IF EXISTS state_int")
    run_sql(integers)
    Store.url, Store.setting = hskv_server.url, setting
    run_state_machine_as_test(
        Store,
        settings=settings(
            max_examples=20,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
